"""Waiting for tasks to end, and telling those who wait."""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import cast

from flask import Flask, current_app
from redis import RedisError
from sqlalchemy import event, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from werkzeug.local import LocalProxy

from scheduler_app.broker import PriorityBroker
from scheduler_app.database import DIRECT, deadline
from scheduler_app.extensions import broker, db
from scheduler_app.models import Task

log = logging.getLogger(__name__)

MOST = 250  # requests of one process that wait
ASKED_FOR = 20  # seconds for which those who end tasks know of one who waits; then it asks again
LOOK = 5.0  # seconds between two looks at the table; Redis may have lost what it was asked
PATIENCE = 5.0  # seconds for one look
ENDED = "ended"  # in Session.info: the tasks that end with the transaction


class TooManyWait(Exception):
    """As many requests as may wait already do."""


class Ends:
    """Of one web process. Any number of requests may wait, and one thread hears and looks for all of them."""

    def __init__(self, app: Flask, *, most: int = MOST) -> None:
        self.app = app
        self.most = most
        self._broker: PriorityBroker = app.extensions["backbeat.broker"]
        self._changing = threading.Lock()
        self._waiting: defaultdict[int, set[threading.Event]] = defaultdict(set)
        self._places = threading.BoundedSemaphore(most)
        self._is_listening = False
        self._is_unknown = False  # Redis may not know what is waited for
        self._next_look = 0.0

    @contextmanager
    def place(self) -> Iterator[None]:
        """To be held while waiting. Raises TooManyWait."""
        if not self._places.acquire(blocking=False):
            raise TooManyWait
        try:
            yield
        finally:
            self._places.release()

    @contextmanager
    def told(self, task_id: int) -> Iterator[threading.Event]:
        """The event is set when the task may have ended, and whenever nobody can be sure. So look at the table again:
        once the event is there, since the task may have ended before, and when it is set.
        """
        over = threading.Event()
        with self._changing:
            self._waiting[task_id].add(over)
            self._listen()
        self._ask([task_id])
        try:
            yield over
        finally:
            with self._changing:
                self._waiting[task_id].discard(over)
                if not self._waiting[task_id]:
                    del self._waiting[task_id]

    def _listen(self) -> None:
        if not self._is_listening:
            self._is_listening = True
            hear = self._broker.ends.listener
            hear(on_end=self._wake, on_connect=self._ask_again, on_tick=self._tick).start()

    def _ask(self, task_ids: Collection[int]) -> None:
        try:
            self._broker.ends.ask(task_ids, seconds=ASKED_FOR)
        except RedisError:
            self._is_unknown = True

    def _ask_again(self) -> None:
        """Redis may have forgotten; or it has told while nobody listened."""
        self._is_unknown = False
        self._next_look = time.monotonic() + LOOK
        if task_ids := self._awaited():
            self._ask(task_ids)
            self._look(task_ids)

    def _tick(self) -> None:
        if self._is_unknown or time.monotonic() >= self._next_look:
            self._ask_again()

    def _look(self, task_ids: Collection[int]) -> None:
        try:
            with deadline(PATIENCE), self.app.app_context(), db.engines[DIRECT].connect() as connection:
                unfinished = select(Task.task_id).where(Task.task_id.in_(task_ids), Task.finished_at.is_(None))
                self._wake(set(task_ids).difference(connection.scalars(unfinished)))
        except SQLAlchemyError as error:
            self._is_unknown = True
            log.debug("whether tasks have ended is looked at again: %s", error)

    def _wake(self, task_ids: Iterable[int]) -> None:
        with self._changing:
            for task_id in task_ids:
                for over in self._waiting.get(task_id, ()):
                    over.set()

    def _awaited(self) -> list[int]:
        with self._changing:
            return list(self._waiting)


# Of this process.
ends = cast(Ends, LocalProxy(lambda: current_app.extensions["backbeat.ends"]))


def end_with_commit(task_ids: Iterable[int]) -> None:
    """Those who wait for these tasks are told once this transaction is committed."""
    db.session().info.setdefault(ENDED, set()).update(task_ids)


def _tell(session: Session) -> None:
    if task_ids := session.info.pop(ENDED, None):
        broker.ends.tell(task_ids)


def _forget(session: Session) -> None:
    session.info.pop(ENDED, None)


event.listen(db.session, "after_commit", _tell)
event.listen(db.session, "after_rollback", _forget)
