"""What a worker process does beside its tasks: it shows that it lives, hears of cancellations, writes progress."""

import logging
import os
import socket
import threading
import time
from typing import Any

from flask import Flask
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from scheduler_app import database
from scheduler_app.extensions import db
from scheduler_app.models import Status, Task
from scheduler_app.services import attempts, workers
from scheduler_app.worker.running import RunningTask, running_tasks

log = logging.getLogger(__name__)

INTERVAL = 0.5  # seconds


class Pulse(threading.Thread):
    """One thread a worker process, from before it takes its first task until after its last."""

    def __init__(self, app: Flask, worker_id: str, *, threads: int, queues: list[str]) -> None:
        super().__init__(name="pulse", daemon=True)
        self.app = app
        self.worker: dict[str, Any] = {
            "worker_id": worker_id,
            "host": socket.gethostname()[:255],
            "pid": os.getpid(),
            "threads": threads,
            "queues": queues,
        }
        self._stopping = threading.Event()
        self._next_beat = 0.0
        self._away = False  # the database does not answer

    def start(self) -> None:
        """The worker's row comes before its first task; if the database is away, within SETTLED of the first claim.

        It does not wait for the database: until a worker has booted, dramatiq does not stop it.
        """
        self._perform()
        super().start()

    def run(self) -> None:
        while not self._stopping.wait(INTERVAL):
            self._perform()

    def stop(self) -> None:
        """Takes leave; when the database does not answer, the row is left to the reaper."""
        self._stopping.set()
        self.join()
        try:
            with self.app.app_context():
                workers.leave(self.worker["worker_id"], now=database.clock())
        except SQLAlchemyError as error:
            log.warning("could not take leave: %s", error)

    def _perform(self) -> None:
        try:
            with self.app.app_context():  # leaving it rolls back, which can fail as well
                if time.monotonic() >= self._next_beat:
                    self._beat()
                if tasks := running_tasks():
                    _hear_cancellations(tasks)
                    _write_progress(tasks)
        except SQLAlchemyError as error:
            if not self._away:
                log.warning("the database does not answer: %s", error)
            self._away = True
        else:
            self._away = False

    def _beat(self) -> None:
        now = database.clock()
        workers.beat({"started_at": now} | self.worker, now=now)
        self.worker.setdefault("started_at", now)
        self._next_beat = time.monotonic() + workers.HEARTBEAT
        here = [task.task_id for task in running_tasks()]
        if disowned := workers.disown(self.worker["worker_id"], here, now=now):
            log.warning("%d attempts stood as this worker's without running here", disowned)


def _hear_cancellations(tasks: list[RunningTask]) -> None:
    requested = select(Task.task_id, Task.claims).where(
        Task.task_id.in_([task.task_id for task in tasks]), Task.status == Status.STARTED, Task.cancel_requested
    )
    claims = {(task_id, claims) for task_id, claims in db.session.execute(requested)}
    db.session.rollback()
    for task in tasks:
        if (task.task_id, task.record.claims) in claims:
            task.cancel()


def _write_progress(tasks: list[RunningTask]) -> None:
    for task in sorted(tasks, key=lambda task: task.task_id):  # as everybody locks them
        if progress := task.take_progress():
            attempts.save_progress(task.record, progress)
    db.session.commit()
