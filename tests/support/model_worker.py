"""A worker process of the model: the real queue, exchange, executor and pulse, in threads that stop at points."""

import math
from contextlib import nullcontext, suppress
from typing import Any, cast

import dramatiq
from flask import Flask
from marshmallow import Schema
from sqlalchemy.exc import SQLAlchemyError

from scheduler_app import database
from scheduler_app.broker import WorkerBroker
from scheduler_app.config import Settings
from scheduler_app.operations import Limit, PermanentError, operation, running_task
from scheduler_app.services import limits, workers
from scheduler_app.worker.exchange import Exchange
from scheduler_app.worker.execution import Executor
from scheduler_app.worker.ledger import Ledger
from scheduler_app.worker.patience import Patience
from scheduler_app.worker.pulse import Pulse, _write_begun
from scheduler_app.worker.running import RunningTask, running_tasks
from scheduler_app.worker.status_writer import StatusWriter
from scheduler_app.worker.work_queue import STALLED, Scheduling, WorkQueue
from tests.support.model_clock import Clock
from tests.support.points import StoppingCursors
from tests.support.stage import Actor, current, reach

IDLE, BETWEEN = "idle", "between two tasks"  # points of a thread: without and with an attempt at hand
SUCCEED, FAIL, FAIL_FOR_GOOD = "succeed", "fail", "fail for good"
THREADS = 2
GLANCE = 0.002  # seconds that an idle thread waits for a message: two ticks of the model's clock
LIMITED, AT_ONCE = "model.limited", 1
SHORT = 0.01  # seconds that a task takes, so that the queue claims ahead


class Nothing(Schema):
    pass


@operation("model.run", params=Nothing)
def run() -> int:
    "Runs until the model says what becomes of it; returns the number of its claim."
    actor = current()
    assert actor
    record = cast(RunningTask, running_task.get()).record
    actor.process.begins(record)
    try:
        reach(f"running attempt {record.number} of task {record.task_id}", always=True)
    finally:
        actor.process.ends(record)
    if actor.outcome == FAIL:
        raise RuntimeError("as the model wants it")
    if actor.outcome == FAIL_FOR_GOOD:
        raise PermanentError("as the model wants it")
    return record.claims


@operation(LIMITED, params=Nothing, limits=[Limit(max_running=AT_ONCE)])
def run_limited() -> int:
    "The same with a limit."
    return run()


class ModelWorker:
    """Its methods are bodies of actors, but for those that start it."""

    def __init__(self, name: str, app: Flask, settings: Settings, attempts: Any, clock: Clock) -> None:
        self.name = name
        self.app = app
        self.clock = clock
        self.attempts = attempts  # who is told of each attempt that begins or ends
        self.running: dict[Any, Any] = {}  # what scheduler_app.worker.running keeps of one process
        self.stopping = self.gone = self.killed = False
        self.threads: list[Actor] = []
        self.broker = WorkerBroker(settings.redis_url, weights=settings.priority_weights, ask_limits=self._count_slots)
        self.broker.broker_id = name
        self.broker.limits.in_turn = nullcontext
        self.ledger, self.patience = Ledger(), Patience()
        with app.app_context():
            self.writer = StatusWriter(name)
            self.writer.cursors = StoppingCursors()
        executor = Executor(app, self.ledger, self.patience)
        exchange = Exchange(app, self.ledger, self.writer, self.patience, executor.reject)
        exchange.broker = self.broker
        self.scheduling = Scheduling(exchange, executor.perform)
        self.scheduling.before_worker_boot(self.broker, dramatiq.Worker(self.broker, worker_threads=THREADS))
        self.queue: WorkQueue = self.scheduling.queue
        self.queue.queues = list(self.broker.weights)  # it is not opened: no thread moves by itself
        self.queue.task_time = SHORT
        self.pulse = Pulse(app, name, self.ledger, threads=THREADS, queues=sorted(self.broker.weights))
        self.pulse.strays = workers.Strays(name, clock.monotonic)

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def begins(self, record: Any) -> None:
        self.attempts.begin(self, record)

    def ends(self, record: Any) -> None:
        self.attempts.end(self, record)

    def work(self) -> None:
        """One of its threads, until it stops."""
        with database.deadline(math.inf):
            while not self._stops():
                self.queue.wake()  # it polls
                self.queue._run_next(self.clock.monotonic() + GLANCE)
        self.writer.close()

    def beat(self) -> None:
        self.pulse._beat()

    def disown(self) -> None:
        self.pulse._disown()

    def attend(self) -> None:
        """Not to cancellations: an interrupt would come at any step of a thread, and never twice at the same."""
        _write_begun(running_tasks())

    def tidy(self) -> None:
        """What two threads do that look every so often."""
        for _ in range(STALLED + 1):
            self.queue.tidy()
        self.queue.acknowledge()

    def stop(self) -> None:
        """As dramatiq does when it is asked to."""
        self.patience.stopping.set()
        self.stopping = True
        self.scheduling.before_worker_shutdown(self.broker, cast(Any, None))
        reach("waits for its threads", always=True, may_pass=lambda: all(thread.ended for thread in self.threads))
        self.scheduling.after_worker_shutdown(self.broker, cast(Any, None))
        with self.app.app_context():
            workers.leave(self.name, now=database.clock())
        self.gone = True

    def _count_slots(self) -> None:
        with suppress(SQLAlchemyError), self.app.app_context():
            limits._copy()

    def has_work(self) -> bool:
        """Claimed or to be recorded."""
        return self.queue._is_astir()

    def _stops(self) -> bool:
        reach(BETWEEN if self.queue.ready else IDLE, always=True)
        return self.stopping
