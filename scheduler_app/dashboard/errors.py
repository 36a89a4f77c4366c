"""Errors as pages, for people. The API answers the same errors as JSON."""

from flask import redirect, request, url_for
from redis import RedisError
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException, NotFound, RequestEntityTooLarge
from werkzeug.wrappers import Response

from scheduler_app import errors
from scheduler_app.access import SignInNeeded, needs
from scheduler_app.access_models import Scope
from scheduler_app.dashboard.frame import LIVE, blp, page
from scheduler_app.errors import BackbeatError

HEADINGS = {
    400: "That could not be read",
    401: "Sign in first",
    403: "That is not allowed",
    404: "There is nothing here",
    409: "That is not possible now",
    422: "That is not valid",
    429: "Too many requests",
    503: "Something does not answer",
}


@blp.route("/<path:unknown>", methods=["GET", "POST"])
@needs(Scope.READ)
def nothing(unknown: str) -> Response:
    """What does not exist is told only to who may call."""
    raise NotFound("There is no such page.")


def _page(error: Exception) -> Response:
    payload, status, headers = errors.answer_to(error)
    heading = HEADINGS.get(status, payload["status"])
    response = page("error.html", status=status, heading=heading, message=payload["message"], code=status)
    response.headers.update(headers)
    return response


def _sign_in(_: SignInNeeded) -> Response:
    if LIVE in request.headers:  # the page asks for itself again, and would show the sign-in inside it
        return Response(status=401)
    wanted = request.full_path.removeprefix(f"{blp.url_prefix}/").removesuffix("?") if request.method == "GET" else ""
    return redirect(url_for("dashboard.sign_in", to=wanted or None))


blp.register_error_handler(SignInNeeded, _sign_in)
for kind in (BackbeatError, HTTPException, RequestEntityTooLarge, SQLAlchemyError, RedisError):
    blp.register_error_handler(kind, _page)
