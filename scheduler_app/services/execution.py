"""What a worker does with one message: claim the task, run its operation, record what came of it."""

import json
import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from marshmallow import ValidationError
from sqlalchemy.exc import InterfaceError, OperationalError

from scheduler_app.broker import GiveBack
from scheduler_app.extensions import db
from scheduler_app.operations import Operation, PermanentError, find, running_task
from scheduler_app.services import attempts
from scheduler_app.services.attempts import Attempt
from scheduler_app.services.interrupts import interruptible

log = logging.getLogger(__name__)
T = TypeVar("T")

MAX_RESULT = 1_000_000  # characters of JSON
LAST_WORD = 10.0  # seconds that a stopping worker still waits for the database to take a result

stopping = threading.Event()  # set once this worker is asked to stop


class UnknownOperation(Exception):
    """This worker has no such operation; another, or this one after its next release, may have it."""


def run(task_id: int, claims: int) -> None:
    """Raises GiveBack when the database is away and the worker stops: the message must not be acknowledged."""
    attempt = _patiently(lambda: attempts.claim(task_id, claims, now=datetime.now(UTC)), last_word=0)
    if attempt is None:
        log.info("task %d: message %d is out of date", task_id, claims)
        return
    if not _patiently(_outcome(attempt), last_word=LAST_WORD):
        log.warning("task %d: attempt %d came too late, dropped", task_id, attempt.attempt)


def _outcome(attempt: Attempt) -> Callable[[], bool]:
    """Runs the operation; what comes back records the outcome."""
    try:
        result = _perform(attempt)
    except BaseException as error:  # whatever an operation raises, sys.exit() too, is its own failure
        log.info("task %d: attempt %d failed: %r", attempt.task_id, attempt.attempt, error)
        return partial(_record_failure, attempt, error)
    return lambda: attempts.succeed(attempt, result, now=datetime.now(UTC))


def _record_failure(attempt: Attempt, error: BaseException) -> bool:
    return attempts.fail(attempt, error, now=datetime.now(UTC))


def _perform(attempt: Attempt) -> Any:
    operation = find(attempt.operation)
    if operation is None:
        raise UnknownOperation(f"No operation {attempt.operation!r} on this worker.")
    arguments = _arguments(operation, attempt.params)
    token = running_task.set(attempt)
    try:
        result = interruptible(lambda: operation.function(**arguments), limit=operation.time_limit)
    finally:
        running_task.reset(token)
    _check_result(result)
    return result


def _arguments(operation: Operation, params: dict[str, Any]) -> dict[str, Any]:
    try:
        return operation.check(params)
    except ValidationError as error:
        raise PermanentError(f"params: {error}") from error


def _check_result(result: Any) -> None:
    try:
        size = len(json.dumps(result, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise PermanentError(f"The result is not JSON: {error}") from error
    if size > MAX_RESULT:
        raise PermanentError(f"The result has {size} characters of JSON; at most {MAX_RESULT} are kept.")


def _patiently(change: Callable[[], T], *, last_word: float) -> T:
    """Does the change, and does it again until the database answers, or until last_word seconds into the stop."""
    delay = 0.1
    gave_up_at = None
    while True:
        try:
            return change()
        except (OperationalError, InterfaceError) as error:
            db.session.rollback()
            log.warning("the database does not answer; again in %.1f s: %s", delay, error.orig)
        if stopping.wait(delay):
            gave_up_at = gave_up_at or time.monotonic() + last_word
            if time.monotonic() >= gave_up_at:
                raise GiveBack
            time.sleep(delay)
        delay = min(delay * 2, 5.0)
