"""What a worker does with a claimed task: it runs the operation. A failure is recorded at once, a success later.

The success of a task with a callback is recorded at once as well, since the delivery is made with it.
"""

import json
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from flask import Flask
from marshmallow import ValidationError
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from scheduler_app.database import DatabaseClock
from scheduler_app.extensions import db
from scheduler_app.models import Status, Task
from scheduler_app.operations import Operation, PermanentError, lookup
from scheduler_app.services import attempts
from scheduler_app.services.attempts import UnknownOperation
from scheduler_app.worker.ledger import Claimed, Ended, Ledger
from scheduler_app.worker.patience import GaveUp, Patience
from scheduler_app.worker.running import RunningTask, registered

log = logging.getLogger(__name__)

MAX_RESULT = 1_000_000  # characters of JSON
ENCODER = json.JSONEncoder(allow_nan=False)  # made once: json.dumps makes one for each call with an option


class Executor:
    """One per worker process. Its threads call `perform`."""

    def __init__(self, app: Flask, ledger: Ledger, patience: Patience) -> None:
        self.app = app
        self.clock: DatabaseClock = app.extensions["backbeat.clock"]
        self.ledger = ledger
        self.patience = patience

    def perform(self, claimed: Claimed) -> None:
        """Runs the operation. Its success goes into the ledger, its failure into the table, and so does every end of a
        task with a callback.
        """
        message, attempt = claimed
        with registered(attempt) as task:
            try:
                result = perform(task)
            except BaseException as error:  # whatever an operation raises, sys.exit() too, is its own failure
                self._record_failure(task, error)
                self.ledger.settle([message])
            else:
                if attempt.calls_back:
                    self._record_success(task, result)
                    self.ledger.settle([message])
                    return
                progress = task.take_progress()
                last_word = json.dumps(progress) if progress else None
                self.ledger.end(Ended(message, attempt, result, last_word, task.began, time.monotonic()))

    def reject(self, ended: Ended, error: SQLAlchemyError) -> None:
        """The database cannot store the result."""
        with registered(ended.attempt, began=ended.began) as task:
            try:
                self._record_failure(task, PermanentError(f"The result cannot be stored: {error}"))
            except SQLAlchemyError:
                log.exception("task %d: attempt %d is left", task.task_id, task.attempt)
        self.ledger.settle([ended.message])

    def _record_success(self, task: RunningTask, result: str) -> None:
        progress = task.take_progress()
        try:
            self._record(task, lambda: self._succeed(task, result, progress))
        except SQLAlchemyError as error:
            self._record_failure(task, PermanentError(f"The result cannot be stored: {error}"))

    def _record_failure(self, task: RunningTask, error: BaseException) -> None:
        progress = task.take_progress()
        if self._record(task, lambda: self._fail(task, error, progress)):
            # The failure is recorded; only the line about it would be missing.
            with suppress(SQLAlchemyError), self.app.app_context():
                _log_failure(task, error)

    def _record(self, task: RunningTask, change: Callable[[], bool]) -> bool:
        """Whether the end is stored. Raises what is wrong with the data itself."""

        def record(again: bool) -> bool:
            with self.app.app_context():  # of each try: its transaction, and SQLite's lock, must not outlive it
                return change()

        try:
            won = self.patience(record)
        except GaveUp:
            log.warning("task %d: the end of attempt %d cannot be stored", task.task_id, task.attempt)
            return False
        if not won:
            log.warning("task %d: attempt %d came too late, dropped", task.task_id, task.attempt)
        return won

    def _succeed(self, task: RunningTask, result: str, progress: dict[str, Any] | None) -> bool:
        now, began = self.clock.now(), task.began_at(self.clock.now)
        return attempts.succeed(task.record, result, progress=progress, started_at=began, now=now)

    def _fail(self, task: RunningTask, error: BaseException, progress: dict[str, Any] | None) -> bool:
        now, began = self.clock.now(), task.began_at(self.clock.now)
        if not isinstance(error, UnknownOperation):
            return attempts.fail(task.record, error, progress=progress, started_at=began, now=now)
        if attempts.wait_for_operation(task.record, now=now):
            log.info("task %d waits, and spends no attempt: %s", task.task_id, error)
            return True
        waited = UnknownOperation(f"No worker has had the operation {task.record.operation!r} for a day.")
        return attempts.fail(task.record, waited, progress=progress, started_at=began, now=now)


def _log_failure(task: RunningTask, error: BaseException) -> None:
    run_at, status = db.session.execute(select(Task.run_at, Task.status).where(Task.task_id == task.task_id)).one()
    if status == Status.ERROR:
        log.warning("task %d: gave up after %d attempts: %r", task.task_id, task.attempt, error)
    elif status == Status.CANCELLED:
        log.info("task %d: cancelled in attempt %d: %r", task.task_id, task.attempt, error)
    elif not isinstance(error, UnknownOperation):
        log.info("task %d: attempt %d failed, tried again at %s: %r", task.task_id, task.attempt, run_at, error)


def perform(task: RunningTask, *, time_limit: float | None = None) -> str:
    """The result as JSON. The operation's own time limit counts where none is given."""
    operation = lookup(task.record.operation)
    if operation is None:
        raise UnknownOperation(f"No operation {task.record.operation!r} on this worker.")
    arguments = _arguments(operation, task.record.params)
    try:
        result = task.call.run(lambda: operation.function(**arguments), limit=time_limit or operation.time_limit)
        return _dumped(result)
    except BaseException:
        if task.attempt_log:
            task.attempt_log.failed()
        raise


def _arguments(operation: Operation, params: dict[str, Any]) -> dict[str, Any]:
    try:
        return operation.check(params)
    except ValidationError as error:
        raise PermanentError(f"params: {error}") from error


def _dumped(result: Any) -> str:
    try:
        dumped = ENCODER.encode(result)
    except (TypeError, ValueError, RecursionError) as error:
        raise PermanentError(f"The result is not JSON: {error}") from error
    if len(dumped) > MAX_RESULT:
        raise PermanentError(f"The result has {len(dumped)} characters of JSON; at most {MAX_RESULT} are kept.")
    return dumped
