"""Who may call. With a key set: whoever sends it. Without one: only programs and pages of this machine."""

import hmac
from urllib.parse import urlsplit

from flask import Flask, request

from scheduler_app.config import LOOPBACK
from scheduler_app.errors import Forbidden, Unauthorized
from scheduler_app.extensions import settings

OPEN = ("health.", "swagger.", "api-docs.")  # probes and documentation need no key


def register_guard(app: Flask) -> None:
    app.before_request(_check_key if app.extensions["backbeat.settings"].api_key else _check_local)


def _check_key() -> None:
    if request.endpoint and request.endpoint.startswith(OPEN):
        return
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), settings.api_key.encode()):
        message = "Send the key as Authorization: Bearer <key>."
        raise Unauthorized(message, headers={"WWW-Authenticate": 'Bearer realm="Backbeat"'})


def _check_local() -> None:
    """A foreign page in this machine's browser must not reach us, neither through DNS rebinding nor through a form."""
    if urlsplit(f"//{request.host}").hostname not in LOOPBACK:
        raise Forbidden("Without BACKBEAT_API_KEY only requests to this machine's loopback names are answered.")
    if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        raise Forbidden("Without BACKBEAT_API_KEY pages of other sites are not answered.")
