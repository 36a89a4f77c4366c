"""The attempts that run in this process. An operation sees its own as `current_task`; the pulse watches all."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from scheduler_app.operations import Cancelled, running_task
from scheduler_app.services.attempts import Attempt
from scheduler_app.tracing.contexts import passed_on
from scheduler_app.worker import attempt_log
from scheduler_app.worker.attempt_log import AttemptLog
from scheduler_app.worker.interrupts import InterruptibleCall

PATIENCE = 0.5  # seconds for an operation to ask whether it is cancelled, before it is interrupted
MAX_MESSAGE = 500  # characters of a progress message


class RunningTask:
    """An attempt while it runs here. Its operation calls it from its own thread, the pulse from another."""

    def __init__(self, attempt: Attempt, began: float) -> None:
        self.record = attempt
        self.began = began  # by the monotonic clock
        self.known = attempt.begun  # the table says that it has begun
        self.task_id = attempt.task_id
        self.operation = attempt.operation
        self.attempt = attempt.number
        self.cancelled = False
        self._asked_at = 0.0
        self.attempt_log: AttemptLog | None = None  # once it has logged something
        self.call = InterruptibleCall()  # of the operation
        self.unsaved: dict[str, Any] | None = None  # progress that is not in the database yet

    @property
    def trace(self) -> dict[str, str]:
        return passed_on(self.record.trace)

    def began_at(self, clock: Callable[[], datetime]) -> datetime:
        now = clock()  # which may take its time
        return now - timedelta(seconds=time.monotonic() - self.began)

    def check_cancelled(self) -> None:
        if self.cancelled:
            raise Cancelled("Cancelled on request.")

    def progress(self, percent: float, message: str = "") -> None:
        if not 0 <= percent <= 100:
            raise ValueError("percent is a number from 0 to 100")
        self.unsaved = {"percent": percent, "message": message[:MAX_MESSAGE]}

    def log(self, message: object) -> None:
        attempt_log.put(self, attempt_log.stamped(message))

    def take_progress(self) -> dict[str, Any] | None:
        """The progress since the last call, if there is any."""
        taken, self.unsaved = self.unsaved, None
        return taken

    def return_progress(self, progress: dict[str, Any]) -> None:
        """Puts back progress that could not be saved, unless there is newer progress."""
        self.unsaved = self.unsaved or progress

    def cancel(self) -> None:
        """Asks the operation to stop. When called again later, interrupts it."""
        if not self.cancelled:
            self.cancelled, self._asked_at = True, time.monotonic()
        elif time.monotonic() - self._asked_at >= PATIENCE:
            self.call.interrupt(Cancelled("Cancelled on request."))


_running: dict[int, RunningTask] = {}


@contextmanager
def registered(attempt: Attempt, *, began: float | None = None) -> Iterator[RunningTask]:
    """Registers an attempt as running here, since now or since `began` of the monotonic clock."""
    task = _running[attempt.task_id] = RunningTask(attempt, time.monotonic() if began is None else began)
    token = running_task.set(task)
    try:
        yield task
    finally:
        running_task.reset(token)
        # A stalled attempt may end when a later one of the same task runs here.
        if _running.get(attempt.task_id) is task:
            del _running[attempt.task_id]


def running_tasks() -> list[RunningTask]:
    return list(_running.values())
