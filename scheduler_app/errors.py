"""Errors that services raise, and the one place that turns every error into an answer."""

import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from flask import Flask, current_app
from redis import RedisError
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from scheduler_app.database import failures

log = logging.getLogger(__name__)

SOON = {"Retry-After": "1"}

Answer = tuple[dict[str, Any], int, dict[str, str]]


class BackbeatError(Exception):
    """A request that cannot be fulfilled. `message` says why, and `errors` names the fields."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR

    def __init__(
        self, message: str, errors: dict[str, Any] | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.errors = errors
        self.headers = headers or {}


class BadRequest(BackbeatError):
    status = HTTPStatus.BAD_REQUEST


class Unauthorized(BackbeatError):
    status = HTTPStatus.UNAUTHORIZED


class Forbidden(BackbeatError):
    status = HTTPStatus.FORBIDDEN


class TaskNotFound(BackbeatError):
    status = HTTPStatus.NOT_FOUND

    def __init__(self, task_id: int) -> None:
        super().__init__(f"There is no task {task_id}.")


class TaskScheduleNotFound(BackbeatError):
    status = HTTPStatus.NOT_FOUND

    def __init__(self, task_schedule_id: int) -> None:
        super().__init__(f"There is no task schedule {task_schedule_id}.")


class PriorityNotFound(BackbeatError):
    status = HTTPStatus.NOT_FOUND

    def __init__(self, priority: int) -> None:
        super().__init__(f"There is no priority {priority}.")


class LimitNotFound(BackbeatError):
    status = HTTPStatus.NOT_FOUND

    def __init__(self, name: str, errors: dict[str, Any] | None = None) -> None:
        super().__init__(f"There is no limit {name!r}.", errors)


class KeyNotFound(BackbeatError):
    status = HTTPStatus.NOT_FOUND

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no key {name!r}.")


class WrongState(BackbeatError):
    status = HTTPStatus.CONFLICT


class TooManyRequests(BackbeatError):
    status = HTTPStatus.TOO_MANY_REQUESTS


class UnsupportedMediaType(BackbeatError):
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class Invalid(BackbeatError):
    status = HTTPStatus.UNPROCESSABLE_ENTITY


class Unavailable(BackbeatError):
    """The database or Redis does not work now. The same request can succeed later."""

    status = HTTPStatus.SERVICE_UNAVAILABLE


def register_error_handlers(app: Flask) -> None:
    for kind, answer in ANSWERS.items():
        app.register_error_handler(kind, answer)


def answer_to(error: Exception) -> Answer:
    """What the API answers. Raises the error again when it is a bug."""
    return next(ANSWERS[kind] for kind in type(error).__mro__ if kind in ANSWERS)(error)


def _domain_error(error: BackbeatError) -> Answer:
    return _answer(error.status, error.message, error.errors, error.headers)


def _http_error(error: HTTPException) -> Answer:
    # The exception carries the errors that webargs found, and headers such as Allow.
    found: dict[str, Any] = getattr(error, "data", None) or {}
    status = HTTPStatus(error.code or 500)
    headers = {name: value for name, value in error.get_headers() if name not in ("Content-Type", "Content-Length")}
    invalid = "The request is not valid." if status == HTTPStatus.UNPROCESSABLE_ENTITY else None
    return _answer(status, invalid or error.description or status.phrase, found.get("messages"), headers)


def _too_large(error: RequestEntityTooLarge) -> Answer:
    limit = current_app.config["MAX_CONTENT_LENGTH"]
    return _answer(HTTPStatus(413), f"The body is too large: at most {limit:,} bytes.", None, {})


def _database_error(error: SQLAlchemyError) -> Answer:
    if not failures.is_outage(error):
        raise error  # a bug: it is logged, and answered 500
    log.error("the database cannot serve: %s", error)
    return _domain_error(Unavailable(_meaning(error), headers=SOON))


def _meaning(error: SQLAlchemyError) -> str:
    if failures.is_disk_full(error):
        return "The database's disk is full; nothing can be stored until there is space."
    if failures.is_read_only(error):
        return "The database is read-only; try again."
    return "The database does not answer; try again."


def _broker_error(error: Exception) -> Answer:
    log.error("Redis does not answer: %s", error)
    return _domain_error(Unavailable("Redis does not answer; try again.", headers=SOON))


def _answer(status: HTTPStatus, message: str, errors: dict[str, Any] | None, headers: dict[str, str]) -> Answer:
    payload = {"code": status.value, "status": status.phrase, "message": message}
    return (payload | {"errors": errors} if errors else payload), status.value, headers


ANSWERS: dict[type[Exception], Callable[[Any], Answer]] = {
    BackbeatError: _domain_error,
    HTTPException: _http_error,
    RequestEntityTooLarge: _too_large,
    SQLAlchemyError: _database_error,
    RedisError: _broker_error,
}
