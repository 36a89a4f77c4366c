"""The attempts that run in this process. An operation sees its own as `current_task`; the pulse watches all."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from scheduler_app.operations import Cancelled, running_task
from scheduler_app.services.attempts import Attempt
from scheduler_app.worker.interrupts import InterruptibleCall

PATIENCE = 0.5  # seconds for an operation to ask whether it is cancelled, before it is interrupted
MAX_MESSAGE = 500  # characters of a progress message


class RunningTask:
    """An attempt while it runs here. Its operation calls it from its own thread, the pulse from another."""

    def __init__(self, attempt: Attempt) -> None:
        self.record = attempt
        self.task_id = attempt.task_id
        self.operation = attempt.operation
        self.attempt = attempt.number
        self.cancelled = False
        self._asked_at = 0.0
        self.call = InterruptibleCall()  # of the operation
        self.unsaved: dict[str, Any] | None = None  # progress that is not in the database yet

    def check_cancelled(self) -> None:
        if self.cancelled:
            raise Cancelled("Cancelled on request.")

    def progress(self, percent: float, message: str = "") -> None:
        if not 0 <= percent <= 100:
            raise ValueError("percent is a number from 0 to 100")
        self.unsaved = {"percent": percent, "message": message[:MAX_MESSAGE]}

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
_expected: set[tuple[int, int]] = set()  # task and claims: being claimed here, or claimed and next to run


@contextmanager
def registered(attempt: Attempt) -> Iterator[RunningTask]:
    """Registers an attempt as running here. To be held from its claim until its outcome is recorded."""
    task = _running[attempt.task_id] = RunningTask(attempt)
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


def expect(message: tuple[int, int]) -> None:
    """Call this before a claim. While the database is away, it may take long to learn whether the claim succeeded."""
    _expected.add(_claimed(message))


def expect_no_more(message: tuple[int, int]) -> None:
    _expected.discard(_claimed(message))


def attempts_here() -> set[tuple[int, int]]:
    """The task and the claims of each attempt that runs here, or is about to."""
    return {(task.task_id, task.record.claims) for task in running_tasks()} | _expected.copy()


def _claimed(message: tuple[int, int]) -> tuple[int, int]:
    """The attempt that a claim of the message makes. A claim adds one to the task's claims."""
    task_id, claims = message
    return task_id, claims + 1
