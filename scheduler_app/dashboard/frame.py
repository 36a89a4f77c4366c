"""What all pages have in common: navigation, policy, messages, and answers that are sent only when they changed."""

from collections.abc import Callable, Hashable
from dataclasses import replace
from hashlib import sha256
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, unquote

from flask import Blueprint, Response, current_app, g, make_response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from scheduler_app.access import PAGES, scope_of
from scheduler_app.access_models import Scope
from scheduler_app.errors import BadRequest
from scheduler_app.services.callers import current
from scheduler_app.services.shared import shared

T = TypeVar("T")

# Nothing inline, nothing from elsewhere, no page of ours inside another.
POLICY = "; ".join(
    ["default-src 'none'"]
    + [f"{kind}-src 'self'" for kind in ("script", "style", "img", "font", "connect")]
    + ["form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'"]
)
MESSAGE = "backbeat_message"  # the cookie that carries what a form's answer says to the page that comes next
MESSAGE_LENGTH = 500  # characters
THEME = "backbeat_theme"
THEMES = ("system", "light", "dark")
YEAR = 31_536_000  # seconds
LIVE = "Backbeat-Live"  # the header with which a page asks for itself again


class Item(NamedTuple):
    """A page in the navigation. It is left out while it has no view, and for callers who may not see it."""

    name: str  # of the view and of the icon
    title: str


NAVIGATION = [
    [
        Item("overview", "Overview"),
        Item("tasks", "Tasks"),
        Item("failures", "Failures"),
        Item("schedules", "Schedules"),
    ],
    [
        Item("priorities", "Priorities"),
        Item("limits", "Limits"),
        Item("workers", "Workers"),
        Item("operations", "Operations"),
    ],
    [
        Item("log", "Log"),
        Item("keys", "Keys"),
    ],
]

blp = Blueprint(PAGES, __name__, url_prefix="/dashboard", template_folder="templates", static_folder=None)


def page(template: str, *, here: str = "", status: int = 200, **values: Any) -> Response:
    """The rendered template. `here` is the page's name in the navigation. 304 when the caller has it already.

    However many browsers of one caller ask for a page again, it is rendered once in two seconds.
    """
    if status != 200:
        return make_response(render_template(template, here=here, **values), status)
    response = make_response(latest(_place(), lambda: render_template(template, here=here, **values)))
    response.set_etag(sha256(response.get_data()).hexdigest()[:32], weak=True)
    response.make_conditional(request)
    return response


def latest(key: Hashable, compute: Callable[[], T]) -> T:
    """The value now for who opens a page, and at most 2 s old for pages that ask for themselves again."""
    return shared.get(key, compute) if LIVE in request.headers else compute()


def told(url: str, message: str) -> BaseResponse:
    """Leads to the page at `url`, which then shows the message once. For the answer to a form."""
    response = redirect(url, 303)
    response.set_cookie(
        MESSAGE, quote(message[:MESSAGE_LENGTH]), max_age=60, path=path(), httponly=True, samesite="Lax",
        secure=request.is_secure,
    )  # fmt: skip
    return response


def path() -> str:
    """Below which all pages are, and their cookies are sent."""
    return url_for("dashboard.overview")


def may(scope: str) -> bool:
    """Whether the caller has this scope, so that nobody sees a button that would be refused."""
    caller = current.get()
    return caller is not None and caller.scope.contains(Scope(scope))


def has_page(name: str) -> bool:
    return f"{PAGES}.{name}" in current_app.view_functions


def navigation() -> list[list[Item]]:
    caller = current.get()
    groups = [[item for item in group if caller and _is_for(item, caller.scope)] for group in NAVIGATION]
    return [group for group in groups if group]


def theme() -> str:
    chosen = request.cookies.get(THEME, "")
    return chosen if chosen in THEMES else THEMES[0]


def _place() -> Hashable:
    """All that a page depends on, besides what it shows."""
    caller = current.get()
    return "page", request.url, caller and replace(caller, address=None), theme()


def _is_for(item: Item, has: Scope) -> bool:
    if not has_page(item.name):
        return False
    scope = scope_of(current_app, f"{PAGES}.{item.name}")
    return scope is None or has.contains(scope)


@blp.before_request
def check_text() -> None:
    """PostgreSQL's text cannot hold NUL."""
    texts = [*request.args.items(multi=True), *request.form.items(multi=True)]
    if any("\0" in text for pair in texts for text in pair) or "\0" in request.path:
        raise BadRequest("The request has a NUL character.")


@blp.context_processor
def add_values() -> dict[str, Any]:
    message = "" if LIVE in request.headers else unquote(request.cookies.get(MESSAGE, ""))
    g.told = bool(message)
    return {
        "user": current.get(),
        "may": may,
        "said": message[:MESSAGE_LENGTH],
        "navigation": navigation(),
        "has_page": has_page,
        "path": path(),
        "theme": theme(),
        "next_theme": THEMES[(THEMES.index(theme()) + 1) % len(THEMES)],
    }


@blp.after_request
def restrict(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["Referrer-Policy"] = "same-origin"  # with no-referrer, browsers also send no Origin
    if g.get("told"):
        response.delete_cookie(MESSAGE, path=path())
    return response
