"""The door: every request passes here before its view."""

from contextlib import suppress
from dataclasses import replace
from functools import partial
from urllib.parse import urlsplit

from flask import Flask, Response, g, request
from sqlalchemy.exc import SQLAlchemyError

from scheduler_app import database
from scheduler_app.access.callers import Callers, WrongKey
from scheduler_app.access.rates import Rates
from scheduler_app.access.views import check_every_view, is_open, scope_of
from scheduler_app.config import LOOPBACK
from scheduler_app.errors import Forbidden
from scheduler_app.models import Scope
from scheduler_app.services import keys
from scheduler_app.services.callers import LOCAL, Caller, current

TOUCH = 2.0  # seconds that may be waited for the note that a key was used


def register_guard(app: Flask) -> None:
    """To be called when all views are there."""
    check_every_view(app)
    callers, rates = Callers(), Rates(app.extensions["backbeat.broker"])

    @app.before_request
    def admit() -> None:
        if is_open(app, request.endpoint):
            return
        caller = _admitted(callers, rates)
        if request.endpoint:
            _check_scope(caller, scope_of(app, request.endpoint))
        current.set(replace(caller, address=request.remote_addr))

    @app.after_request
    def add_rate(response: Response) -> Response:
        response.headers.update(g.get("rate_headers", {}))
        return response

    @app.after_request
    def touch(response: Response) -> Response:
        caller = current.get()
        if caller and caller.key_id and callers.is_stale(caller.key_id):
            # Once the answer is on its way, so that it costs the caller nothing.
            response.call_on_close(partial(_touch, app, caller.key_id))
        return response

    @app.teardown_request
    def forget(_: BaseException | None) -> None:
        current.set(None)


def _admitted(callers: Callers, rates: Rates) -> Caller:
    try:
        caller = callers.identify()
    except WrongKey:
        rates.count_wrong_key(request.remote_addr or "")
        raise
    if caller is None:
        _check_local()
        return LOCAL
    rates.count(caller)
    return caller


def _check_scope(caller: Caller, scope: Scope | None) -> None:
    if scope and not caller.scope.contains(scope):
        raise Forbidden(f"This call needs a key of scope {scope.value}; this key has {caller.scope.value}.")


def _check_local() -> None:
    """A page from elsewhere in this machine's browser must not reach us, neither by a rebound name nor by a form."""
    if urlsplit(f"//{request.host}").hostname not in LOOPBACK:
        raise Forbidden("Without a key only requests to this machine's loopback names are answered.")
    ours = (None, f"http://{request.host}", f"https://{request.host}")
    same_site = request.headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin")
    if not same_site or request.headers.get("Origin") not in ours:
        raise Forbidden("Without a key pages of other sites are not answered.")


def _touch(app: Flask, key_id: str) -> None:
    with suppress(SQLAlchemyError), database.deadline(TOUCH), app.app_context():
        keys.touch(key_id, now=database.clock())
