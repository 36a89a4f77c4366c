"""What a worker does with one message: claim the task, run its operation, record what came of it."""

import json
import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from marshmallow import ValidationError
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from scheduler_app.broker import GiveBack
from scheduler_app.extensions import db
from scheduler_app.operations import Operation, PermanentError, find
from scheduler_app.services import attempts
from scheduler_app.services.attempts import Attempt
from scheduler_app.services.running import RunningTask, registered

log = logging.getLogger(__name__)
T = TypeVar("T")

MAX_RESULT = 1_000_000  # characters of JSON
LAST_WORD = 10.0  # seconds that a stopping worker still waits for the database to take a result

stopping = threading.Event()  # set once this worker is asked to stop


class UnknownOperation(Exception):
    """This worker has no such operation; another, or this one after its next release, may have it."""


def run(task_id: int, claims: int, *, worker_id: str) -> None:
    """Raises GiveBack when the task could not be claimed for want of the database: the message is to come again."""
    attempt = _claim(task_id, claims, worker_id)
    if attempt is None:
        log.info("task %d: message %d is out of date", task_id, claims)
        return
    with registered(attempt) as task:
        if not _outcome(task):
            log.warning("task %d: attempt %d came too late, dropped", task_id, attempt.attempt)


def _claim(task_id: int, claims: int, worker_id: str) -> Attempt | None:
    try:
        return _patiently(
            lambda: attempts.claim(task_id, claims, worker_id=worker_id, now=datetime.now(UTC)), last_word=0
        )
    except SQLAlchemyError:
        log.exception("task %d: could not be claimed", task_id)
        stopping.wait(1)
        raise GiveBack from None


def _outcome(task: RunningTask) -> bool:
    """Runs the operation and records what came of it; False when the task has moved on without this attempt."""
    try:
        result = _perform(task)
    except BaseException as error:  # whatever an operation raises, sys.exit() too, is its own failure
        return _record_failure(task, error)
    try:
        return _patiently(
            lambda: attempts.succeed(task.claimed, result, progress=task.take_progress(), now=datetime.now(UTC)),
            last_word=LAST_WORD,
        )
    except SQLAlchemyError as error:
        return _record_failure(task, PermanentError(f"The result cannot be stored: {error}"))


def _record_failure(task: RunningTask, error: BaseException) -> bool:
    log.info("task %d: attempt %d failed: %r", task.task_id, task.attempt, error)
    return _patiently(
        lambda: attempts.fail(task.claimed, error, progress=task.take_progress(), now=datetime.now(UTC)),
        last_word=LAST_WORD,
    )


def _perform(task: RunningTask) -> Any:
    operation = find(task.claimed.operation)
    if operation is None:
        raise UnknownOperation(f"No operation {task.claimed.operation!r} on this worker.")
    arguments = _arguments(operation, task.claimed.params)
    result = task.call.run(lambda: operation.function(**arguments), limit=operation.time_limit)
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
        except (OperationalError, InterfaceError, PoolTimeout) as error:
            db.session.rollback()
            log.warning("the database does not answer; again in %.1f s: %s", delay, error)
        if stopping.wait(delay):
            gave_up_at = gave_up_at or time.monotonic() + last_word
            if time.monotonic() >= gave_up_at:
                raise GiveBack
            time.sleep(delay)
        delay = min(delay * 2, 5.0)
