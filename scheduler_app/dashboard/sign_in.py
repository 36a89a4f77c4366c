"""Signing in with a key, signing out, and the theme."""

import re

from flask import redirect, request, url_for
from werkzeug.wrappers import Response

from scheduler_app.access import COOKIE, for_signing_in, guard, needs, open_to_all
from scheduler_app.access_models import Scope
from scheduler_app.dashboard.frame import THEME, THEMES, YEAR, blp, page, path
from scheduler_app.errors import TooManyRequests, Unauthorized
from scheduler_app.services.sessions import LASTS

LONGEST_KEY = 200  # characters
LONGEST_ADDRESS = 2_000


@blp.get("/sign-in")
@for_signing_in
def sign_in() -> Response:
    if not guard().callers.need_key():
        return redirect(_wanted())
    return page("sign_in.html", to=request.args.get("to", ""))


@blp.post("/sign-in")
@for_signing_in
def begin_session() -> Response:
    to = request.form.get("to", "")
    try:
        token = guard().sign_in(request.form.get("key", "")[: LONGEST_KEY + 1])
    except (Unauthorized, TooManyRequests) as error:
        return page("sign_in.html", status=error.status, to=to, wrong=error.message)
    response = redirect(_wanted(), 303)
    _set(response, COOKIE, token, max_age=int(LASTS.total_seconds()))
    return response


@blp.post("/sign-out")
@needs(Scope.READ)
def end_session() -> Response:
    guard().sign_out()
    response = redirect(url_for("dashboard.sign_in"), 303)
    response.delete_cookie(COOKIE, path=path())
    return response


@blp.post("/theme")
@open_to_all
def set_theme() -> Response:
    chosen = request.form.get("theme", "")
    response = redirect(_wanted(), 303)
    _set(response, THEME, chosen if chosen in THEMES else THEMES[0], max_age=YEAR)
    return response


def _wanted() -> str:
    """The page that was asked for. It begins with our own path, so it cannot lead elsewhere."""
    to = request.values.get("to", "")
    is_ours = len(to) <= LONGEST_ADDRESS and not re.search(r"[\x00-\x20\\]|(^|/)\.\.?([/?#]|$)", to)
    return path() + to.lstrip("/") if is_ours else path()


def _set(response: Response, name: str, value: str, *, max_age: int) -> None:
    response.set_cookie(
        name, value, max_age=max_age, path=path(), httponly=True, samesite="Lax", secure=request.is_secure
    )
