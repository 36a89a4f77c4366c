"""Finds out who calls, and refuses who may not."""

from contextlib import suppress
from dataclasses import replace
from functools import partial
from urllib.parse import urlsplit

from flask import Flask, Response, current_app, g, request
from sqlalchemy.exc import SQLAlchemyError

from scheduler_app import database
from scheduler_app.access import refusals
from scheduler_app.access.callers import Callers, WrongKey
from scheduler_app.access.pages import COOKIE, SignInNeeded, check_asked_by_us, is_link, is_page
from scheduler_app.access.rates import Rates
from scheduler_app.access.views import check_every_view, is_open, scope_of
from scheduler_app.access_models import Scope
from scheduler_app.config import LOOPBACK
from scheduler_app.errors import Forbidden
from scheduler_app.services import keys, sessions
from scheduler_app.services.callers import LOCAL, Caller, current

TOUCH = 2.0  # seconds that may be waited for the note that a key was used


class Guard:
    """Of one web process."""

    def __init__(self, app: Flask) -> None:
        self.callers = Callers()
        self.rates = Rates(app.extensions["backbeat.broker"])

    def admit(self) -> Caller:
        """Raises Unauthorized, Forbidden and TooManyRequests."""
        caller = self._signed_in() if is_page() else self._with_key()
        if caller is None:
            _check_local()
            return LOCAL
        self.rates.count(caller)
        return caller

    def check_scope(self, caller: Caller, scope: Scope | None) -> None:
        if scope and not caller.scope.contains(scope):
            refusals.count(self.rates.broker, refusals.SCOPE)
            raise Forbidden(f"This call needs a key of scope {scope.value}; this key has {caller.scope.value}.")

    def sign_in(self, text: str) -> str:
        """The token of a new session for this key. Raises WrongKey and TooManyRequests."""
        token = sessions.start(text.strip(), now=database.clock())
        if token is None:
            self.rates.count_wrong_key(request.remote_addr or "")
            raise WrongKey
        return token

    def sign_out(self) -> None:
        token = request.cookies.get(COOKIE, "")
        sessions.end(token)
        self.callers.forget(token)

    def _with_key(self) -> Caller | None:
        try:
            return self.callers.identify()
        except WrongKey:
            self.rates.count_wrong_key(request.remote_addr or "")
            raise

    def _signed_in(self) -> Caller | None:
        if not self.callers.need_key():
            return None
        caller = self.callers.signed_in(request.cookies.get(COOKIE, ""))
        if caller is None:
            raise SignInNeeded
        return caller


def guard() -> Guard:
    """This process's."""
    found: Guard = current_app.extensions["backbeat.guard"]
    return found


def register_guard(app: Flask) -> None:
    """To be called when all views are there."""
    check_every_view(app)
    app.extensions["backbeat.guard"] = our = Guard(app)

    @app.before_request
    def admit() -> None:
        check_asked_by_us()
        if is_open(app, request.endpoint):
            return
        caller = our.admit()
        if request.endpoint:
            our.check_scope(caller, scope_of(app, request.endpoint))
        current.set(replace(caller, address=request.remote_addr))

    @app.after_request
    def add_rate(response: Response) -> Response:
        response.headers.update(g.get("rate_headers", {}))
        return response

    @app.after_request
    def touch(response: Response) -> Response:
        caller = current.get()
        if caller and caller.key_id and our.callers.is_stale(caller.key_id):
            # Once the answer is on its way, so that it costs the caller nothing.
            response.call_on_close(partial(_touch, app, caller.key_id))
        return response

    @app.teardown_request
    def forget(_: BaseException | None) -> None:
        current.set(None)


def _check_local() -> None:
    """A page from elsewhere in this machine's browser must not reach us, neither by a rebound name nor by a form."""
    if urlsplit(f"//{request.host}").hostname not in LOOPBACK:
        raise Forbidden("Without a key only requests to this machine's loopback names are answered.")
    if is_link():
        return
    ours = (None, f"http://{request.host}", f"https://{request.host}")
    same_site = request.headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin")
    if not same_site or request.headers.get("Origin") not in ours:
        raise Forbidden("Without a key pages of other sites are not answered.")


def _touch(app: Flask, key_id: str) -> None:
    with suppress(SQLAlchemyError), database.deadline(TOUCH), app.app_context():
        keys.touch(key_id, now=database.clock())
