"""What a worker process does besides running tasks.

It shows that it lives, hears cancellations, writes progress, and shows where a task stands when somebody asks.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from flask import Flask
from sqlalchemy.exc import SQLAlchemyError

from scheduler_app import database, operations, outgoing
from scheduler_app.database import failures
from scheduler_app.extensions import db
from scheduler_app.services import attempt_logs, attempts, stacks, workers
from scheduler_app.services.attempt_logs import Chunk
from scheduler_app.worker import attempt_log
from scheduler_app.worker.ledger import Ledger
from scheduler_app.worker.running import RunningTask, running_tasks
from scheduler_app.worker.stacks import taken

log = logging.getLogger(__name__)

LOGS = 1.0  # seconds between two writes of what operations have logged
AT_ONCE = 100  # chunks of logs in one transaction
ATTENTION = 0.5  # seconds between two looks for what is asked of the running tasks
PATIENCE = 5.0  # seconds for one heartbeat, or one such look


class Pulse:
    """One per worker process. It beats from before the first task until after the last one.

    Heartbeats have a thread of their own, so that a lock on the task table or on one of its rows does not delay them.
    """

    def __init__(self, app: Flask, worker_id: str, ledger: Ledger, *, threads: int, queues: list[str]) -> None:
        self.app = app
        self.ledger = ledger
        self.worker: dict[str, Any] = {
            "worker_id": worker_id,
            "host": socket.gethostname()[:255],
            "pid": os.getpid(),
            "threads": threads,
            "queues": queues,
            "operations": [operation.name for operation in operations.registered()],
        }
        self.strays = workers.Strays(worker_id)
        self._logs = LogWriter()
        self._stopping = threading.Event()
        self._loops = (
            Loop(app, self._stopping, "heartbeat", self._beat, workers.HEARTBEAT),
            Loop(app, self._stopping, "disown", self._disown, workers.HEARTBEAT),
            Loop(app, self._stopping, "attention", _attend, ATTENTION),
            LogLoop(app, self._stopping, "logs", self._logs.write, LOGS),
        )

    def start(self) -> None:
        """Creates the worker's row before its first task. If the database is away, within SETTLED of the first claim.

        It does not wait for the database, because dramatiq does not stop a worker before it has booted.
        """
        self._loops[0].step()
        for loop in self._loops:
            loop.start()

    def stop(self) -> None:
        """Deletes the worker's row. When the database does not answer, the reaper will do it."""
        self._stopping.set()
        attempt_log.wake.set()
        for loop in self._loops:
            loop.join()
        try:
            with self.app.app_context():
                self._logs.write()
                workers.leave(self.worker["worker_id"], now=database.clock())
        except SQLAlchemyError as error:
            log.warning("could not take leave: %s", error)

    def _beat(self) -> None:
        now = database.clock()
        row = {"started_at": now} | self.worker
        workers.beat(row, clock_offset=database.clock_offset(), secrets=_secrets(), now=now)
        self.worker.setdefault("started_at", now)

    def _disown(self) -> None:
        if disowned := self.strays.disown(self.ledger.attempts(), now=database.clock()):
            log.warning("%d attempts stood as this worker's without running here", disowned)


class LogWriter:
    """Writes what operations have logged. While the database does not take it, no more is fetched from memory."""

    def __init__(self) -> None:
        self._chunks: list[Chunk] = []
        self._gone: list[tuple[int, int, int]] = []

    def write(self) -> None:
        while self._chunks or attempt_log.unwritten:
            if not self._chunks:
                self._fetch()
            attempt_logs.write(self._chunks, self._gone, now=database.clock())
            self._chunks, self._gone = [], []

    def _fetch(self) -> None:
        while attempt_log.unwritten and len(self._chunks) < AT_ONCE:
            chunks, gone = attempt_log.unwritten.pop().take()
            self._chunks += chunks
            self._gone += gone


class Loop(threading.Thread):
    """Repeats its step until it is stopped, also after an error."""

    def __init__(
        self, app: Flask, stopping: threading.Event, name: str, act: Callable[[], None], interval: float
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.app = app
        self.stopping = stopping
        self.act = act
        self.interval = interval
        self.failing = False

    def run(self) -> None:
        while not self.stopping.wait(ATTENTION if self.failing else self.interval):
            self.step()

    def step(self) -> None:
        try:
            with database.deadline(PATIENCE), self.app.app_context():  # leaving it rolls back, which can fail as well
                self.act()
        except Exception as error:
            if not self.failing:
                away = failures.is_outage(error)
                log.warning("%s failed; it is tried again: %s", self.name, error, exc_info=not away)
            self.failing = True
        else:
            self.failing = False


class LogLoop(Loop):
    """Takes its step before its time when many lines have come."""

    def run(self) -> None:
        while not self.stopping.wait(ATTENTION if self.failing else 0):
            attempt_log.wake.wait(self.interval)
            attempt_log.wake.clear()
            self.step()


def _secrets() -> list[str]:
    try:
        return outgoing.secret_names()
    except outgoing.SecretsUnreadable as error:  # a task that needs one will say so
        log.warning("%s", error)
        return []


def _attend() -> None:
    if tasks := running_tasks():
        _write_begun(tasks)
        _hear(tasks)
        _write_progress(tasks)


def _write_begun(tasks: list[RunningTask]) -> None:
    """Of tasks that were claimed in company and turn out to be long: should this worker be lost, the attempt counts."""
    long = [task for task in tasks if not task.known and time.monotonic() - task.began > ATTENTION]
    by_id = sorted(long, key=lambda task: task.task_id)
    written = [task for task in by_id if attempts.begin(task.record, task.began_at(database.clock))]
    db.session.commit()
    for task in written:
        task.known = True


def _hear(tasks: list[RunningTask]) -> None:
    """One statement for both: that a task is to stop, and that somebody wants to see where it stands."""
    wanted = stacks.wanted([task.task_id for task in tasks])
    db.session.rollback()
    for task in tasks:
        if not (one := wanted.get((task.task_id, task.record.claims))):
            continue
        if one.asked:
            stacks.answer(task.record, one.asked, taken(task.call), now=database.clock())
            db.session.commit()
        if one.cancel:
            task.cancel()


def _write_progress(tasks: list[RunningTask]) -> None:
    by_id = sorted(tasks, key=lambda task: task.task_id)  # the order in which everybody locks them
    unsaved = [(task, progress) for task in by_id if (progress := task.take_progress())]
    try:
        saved = [task for task, progress in unsaved if attempts.save_progress(task.record, progress)]
        db.session.commit()
        unsaved = [(task, progress) for task, progress in unsaved if task not in saved]
    finally:
        for task, progress in unsaved:
            task.return_progress(progress)
