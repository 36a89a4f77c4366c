"""What a view needs of its caller, said at the view."""

from collections.abc import Callable
from typing import Any, TypeVar

from flask import Flask

from scheduler_app.access_models import Scope

View = TypeVar("View", bound=Callable[..., Any])


def needs(scope: Scope) -> Callable[[View], View]:
    """The view is for callers of this scope. To know them may take the database, so it always counts as needed."""

    def mark(view: View) -> View:
        view.scope = scope  # type: ignore[attr-defined]
        return view

    return mark


def open_to_all(view: View) -> View:
    """The view needs neither a key nor the database, as probes and documentation."""
    view.scope = None  # type: ignore[attr-defined]
    return view


def for_signing_in(view: View) -> View:
    """The view needs no key yet. It takes the database, to find the key that it is given."""
    view.scope = None  # type: ignore[attr-defined]
    view.signs_in = True  # type: ignore[attr-defined]
    return view


def scope_of(app: Flask, endpoint: str) -> Scope | None:
    """The scope that the view needs; None for one that is open to all."""
    view: Any = app.view_functions[endpoint]
    scope: Scope | None = view.scope
    return scope


def is_open(app: Flask, endpoint: str | None) -> bool:
    """False also where there is no view: what does not exist is told only to who may call."""
    return endpoint is not None and scope_of(app, endpoint) is None


def takes_database(app: Flask, endpoint: str | None) -> bool:
    return not is_open(app, endpoint) or hasattr(app.view_functions[endpoint or ""], "signs_in")


def check_every_view(app: Flask) -> None:
    unmarked = [endpoint for endpoint, view in app.view_functions.items() if not hasattr(view, "scope")]
    assert not unmarked, f"these views do not say who may call them: {', '.join(unmarked)}"
