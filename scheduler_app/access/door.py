"""What every request passes before its view, and every answer after it."""

from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask, Response
from werkzeug.middleware.proxy_fix import ProxyFix

from scheduler_app import database
from scheduler_app.access.admission import register_admission
from scheduler_app.access.guard import register_guard
from scheduler_app.config import Settings
from scheduler_app.headers import HEADERS


def register_access(app: Flask) -> None:
    """To be called when all views are there."""
    settings: Settings = app.extensions["backbeat.settings"]
    views: Mapping[str, Callable[..., Any]] = app.view_functions
    app.view_functions = {endpoint: database.tried_again(view) for endpoint, view in views.items()}
    app.after_request(_add_headers)
    register_admission(app)  # first: to find out who calls takes the database
    register_guard(app)
    if trusted := settings.trusted_proxies:
        proxied = ProxyFix(app.wsgi_app, x_for=trusted, x_proto=trusted, x_host=trusted, x_prefix=trusted)
        app.wsgi_app = proxied  # type: ignore[method-assign]


def _add_headers(response: Response) -> Response:
    """To every answer, errors too. A view that sets one itself knows better."""
    # Not with setdefault, which makes an exception for each that is missing.
    there = {name.lower() for name, _ in response.headers}
    response.headers.extend((name, value) for name, value in HEADERS.items() if name.lower() not in there)
    return response
