"""How many tasks have not finished: with BACKBEAT_MAX_WAITING of them, nobody can add more from outside.

Schedules still fire, because a time of theirs must not be lost.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress

from flask import Flask, current_app
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from scheduler_app.database import DIRECT, deadline
from scheduler_app.errors import Unavailable
from scheduler_app.extensions import db
from scheduler_app.models import FINISHED, Status, Task

LOOK_EVERY = 10.0  # seconds
WAIT = 0.5  # seconds that a request waits for a count; of millions of tasks it takes longer
LONGEST = 120.0  # seconds that a count may take
UNFINISHED = tuple(status for status in Status if status not in FINISHED)


class Backlog:
    """What this process knows of the number. One thread looks, the others go on with what was found before."""

    def __init__(self, app: Flask, *, most: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.app = app
        self.most = most
        self._monotonic = monotonic
        self._looking = threading.Lock()
        self._next_look = float("-inf")
        self._full = False
        self._count: Future[None] = Future()
        self._count.set_result(None)

    def is_full(self) -> bool:
        """Raises SQLAlchemyError when the database has to be asked and does not answer."""
        if self._monotonic() >= self._next_look and self._looking.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._looking.release()
        return self._full

    def _look(self) -> None:
        self._next_look = self._monotonic() + LOOK_EVERY
        if span() < self.most:
            self._full = False
            return
        if self._count.done():
            self._count = Future()
            threading.Thread(target=self._count_all, args=(self._count,), name="backlog", daemon=True).start()
        with suppress(TimeoutError):
            self._count.result(WAIT)

    def _count_all(self, done: Future[None]) -> None:
        # Not the request itself: it has no time for millions of tasks. If it fails, the next look tries again.
        with suppress(SQLAlchemyError), deadline(LONGEST), self.app.app_context():
            self._full = count(most=self.most) >= self.most
        done.set_result(None)


def check_room() -> None:
    """Raises Unavailable when as many tasks as may wait have not finished; by a count that is 10 s old at most."""
    backlog: Backlog = current_app.extensions["backbeat.backlog"]
    if backlog.is_full():
        message = f"BACKBEAT_MAX_WAITING: {backlog.most:,} tasks have not finished, and no more may wait; try later."
        raise Unavailable(message, headers={"Retry-After": f"{LOOK_EVERY:.0f}"})


def span() -> int:
    """A number that the unfinished tasks cannot exceed: of the ids from the oldest of them to the newest task.

    It only looks at the ends of indexes.
    """
    oldest = [select(func.min(Task.task_id)).where(Task.status == status).scalar_subquery() for status in UNFINISHED]
    with db.engines[DIRECT].connect() as connection:
        newest, *firsts = connection.execute(select(select(func.max(Task.task_id)).scalar_subquery(), *oldest)).one()
    known = [first for first in firsts if first is not None]
    return newest - min(known) + 1 if known else 0


def count(*, most: int) -> int:
    """The unfinished tasks; it stops counting at `most`."""
    some = select(Task.task_id).where(Task.status.in_(UNFINISHED)).limit(most).subquery()
    with db.engines[DIRECT].connect() as connection:
        return connection.execute(select(func.count()).select_from(some)).scalar_one()
