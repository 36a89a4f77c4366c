"""What a worker does with one message: it claims the task, runs its operation and records the outcome."""

import json
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from flask import Flask
from marshmallow import ValidationError
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from scheduler_app.broker import GiveBack, WorkersEnds
from scheduler_app.database import DatabaseClock, failures
from scheduler_app.extensions import db
from scheduler_app.models import Status, Task
from scheduler_app.operations import Operation, PermanentError, lookup
from scheduler_app.services import attempts
from scheduler_app.services.attempts import Attempt, UnknownOperation
from scheduler_app.worker.running import RunningTask, expect, expect_no_more, registered
from scheduler_app.worker.status_writer import Message, StatusWriter

log = logging.getLogger(__name__)
T = TypeVar("T")

MAX_RESULT = 1_000_000  # characters of JSON
LAST_WORD = 10.0  # seconds that a stopping worker still tries to store a result in the database


class Executor:
    """One per worker process. Its threads call `run`."""

    def __init__(self, app: Flask, writer: StatusWriter, following: Callable[[], Message | None]) -> None:
        self.app = app
        self.clock: DatabaseClock = app.extensions["backbeat.clock"]
        self.ends: WorkersEnds = app.extensions["backbeat.broker"].ends
        self.writer = writer
        self.following = following  # returns the message that the calling thread gets next, if that is known
        self.stopping = threading.Event()  # set once this worker is asked to stop
        self._ahead = threading.local()  # claim: what this thread claimed with the success before it

    def run(self, message: Message) -> None:
        """Raises GiveBack when the database cannot be used now, so that the message comes again later."""
        expect(message)
        try:
            attempt = self._claim(message)
            if attempt is None:
                log.info("task %d: message %d is out of date", *message, extra={"task_id": message[0]})
                return
            with registered(attempt) as task:
                expect_no_more(message)
                if not self._outcome(task):
                    log.warning("task %d: attempt %d came too late, dropped", task.task_id, task.attempt)
        finally:
            expect_no_more(message)

    def _claim(self, message: Message) -> Attempt | None:
        claimed: tuple[Message, Attempt | None] | None = self._ahead.__dict__.pop("claim", None)
        if claimed and claimed[0] == message:
            return claimed[1]

        def claim(again: bool) -> Attempt | None:
            return self.writer.claim(message, again=again, now=self.clock.now())

        # What is no outage may be wrong only here: another worker may have the rights, or the next release.
        return self._patiently(claim, bears=failures.is_outage, last_word=0)

    def _outcome(self, task: RunningTask) -> bool:
        """Runs the operation and records the outcome. Returns False when the task has moved on without this attempt."""
        try:
            result = perform(task)
        except BaseException as error:  # whatever an operation raises, sys.exit() too, is its own failure
            return self._record_failure(task, error)
        try:
            return self._record_success(task, result)
        except SQLAlchemyError as error:  # of the data: all else was borne
            return self._record_failure(task, PermanentError(f"The result cannot be stored: {error}"))

    def _record_success(self, task: RunningTask, result: str) -> bool:
        if following := self.following():
            expect(following)
        progress = task.take_progress()

        def record(again: bool) -> tuple[bool, Attempt | None]:
            now = self.clock.now()
            return self.writer.succeed(
                task.record, result, progress=progress, following=following, again=again, now=now
            )

        won, ahead = self._patiently(record, bears=_can_be_stored, last_word=LAST_WORD)
        self._ahead.claim = following, ahead
        if won:
            self.ends.tell([task.task_id])
        return won

    def _record_failure(self, task: RunningTask, error: BaseException) -> bool:
        progress = task.take_progress()

        def record(again: bool) -> bool:
            with self.app.app_context():  # of each try: its transaction, and SQLite's lock, must not outlive it
                return self._fail(task, error, progress)

        won = self._patiently(record, bears=_can_be_stored, last_word=LAST_WORD)
        if won:
            # The failure is recorded; only the line about it would be missing.
            with suppress(SQLAlchemyError), self.app.app_context():
                _log_failure(task, error)
        return won

    def _fail(self, task: RunningTask, error: BaseException, progress: dict[str, Any] | None) -> bool:
        now = self.clock.now()
        if not isinstance(error, UnknownOperation):
            return attempts.fail(task.record, error, progress=progress, now=now)
        if attempts.wait_for_operation(task.record, now=now):
            log.info("task %d waits, and spends no attempt: %s", task.task_id, error)
            return True
        waited = UnknownOperation(f"No worker has had the operation {task.record.operation!r} for a day.")
        return attempts.fail(task.record, waited, progress=progress, now=now)

    def _patiently(
        self, change: Callable[[bool], T], *, bears: Callable[[SQLAlchemyError], bool], last_word: float
    ) -> T:
        """Does the change, and does it again until it succeeds, or until last_word seconds into the stop.

        The change is told whether it is done again: an earlier try may have succeeded, and only its answer been lost.
        Raises the error that it does not bear.
        """
        delay = 0.1
        gave_up_at = None
        again = False
        while True:
            try:
                return change(again)
            except SQLAlchemyError as error:
                if not bears(error):
                    raise
                log.warning("the database cannot take it now; again in %.1f s: %s", delay, error)
            again = True
            if self.stopping.wait(delay):
                gave_up_at = gave_up_at or time.monotonic() + last_word
                if time.monotonic() >= gave_up_at:
                    raise GiveBack
                time.sleep(delay)
            delay = min(delay * 2, 5.0)


def _log_failure(task: RunningTask, error: BaseException) -> None:
    run_at, status = db.session.execute(select(Task.run_at, Task.status).where(Task.task_id == task.task_id)).one()
    if status == Status.ERROR:
        log.warning("task %d: gave up after %d attempts: %r", task.task_id, task.attempt, error)
    elif status == Status.CANCELLED:
        log.info("task %d: cancelled in attempt %d: %r", task.task_id, task.attempt, error)
    elif not isinstance(error, UnknownOperation):
        log.info("task %d: attempt %d failed, tried again at %s: %r", task.task_id, task.attempt, run_at, error)


def _can_be_stored(error: SQLAlchemyError) -> bool:
    # A result may have taken hours: it waits until the database takes it, whatever is wrong there.
    return not failures.is_of_the_data(error)


def perform(task: RunningTask, *, time_limit: float | None = None) -> str:
    """The result as JSON. The operation's own time limit counts where none is given."""
    operation = lookup(task.record.operation)
    if operation is None:
        raise UnknownOperation(f"No operation {task.record.operation!r} on this worker.")
    arguments = _arguments(operation, task.record.params)
    return _dumped(task.call.run(lambda: operation.function(**arguments), limit=time_limit or operation.time_limit))


def _arguments(operation: Operation, params: dict[str, Any]) -> dict[str, Any]:
    try:
        return operation.check(params)
    except ValidationError as error:
        raise PermanentError(f"params: {error}") from error


def _dumped(result: Any) -> str:
    try:
        dumped = json.dumps(result, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise PermanentError(f"The result is not JSON: {error}") from error
    if len(dumped) > MAX_RESULT:
        raise PermanentError(f"The result has {len(dumped)} characters of JSON; at most {MAX_RESULT} are kept.")
    return dumped
