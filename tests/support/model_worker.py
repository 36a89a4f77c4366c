"""A worker process of the model: the real queue, executor, status writer and pulse, in threads that stop at points."""

import math
from contextlib import suppress
from queue import Empty
from typing import Any, cast

import dramatiq
from dramatiq.worker import ConsumerThread, WorkerThread
from flask import Flask
from marshmallow import Schema

from scheduler_app import database
from scheduler_app.broker import ANY_OPERATION, FairQueue, FairScheduling, GiveBack, WorkerBroker, queue_name
from scheduler_app.config import Settings
from scheduler_app.operations import PermanentError, operation, running_task
from scheduler_app.services import workers
from scheduler_app.worker.execution import Executor
from scheduler_app.worker.pulse import Pulse
from scheduler_app.worker.running import RunningTask
from scheduler_app.worker.status_writer import Message, StatusWriter
from tests.support.model_clock import Books, Clock
from tests.support.points import StoppingCursors
from tests.support.stage import Actor, current, reach

IDLE, BETWEEN = "idle", "between two tasks"  # points of a thread: without and with its next message at hand
SUCCEED, FAIL, FAIL_FOR_GOOD = "succeed", "fail", "fail for good"
THREADS = 2
GLANCE = 0.002  # seconds that an idle thread waits for a message: two ticks of the model's clock
SHORT = 0.01  # seconds that a task takes, so that the queue fetches ahead


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


class ModelWorker:
    """Its methods are bodies of actors, but for those that start it."""

    def __init__(self, name: str, app: Flask, settings: Settings, attempts: Any, clock: Clock) -> None:
        self.name = name
        self.app = app
        self.attempts = attempts  # who is told of each attempt that begins or ends
        self.books = Books()
        self.stopping = self.gone = self.killed = False
        self.threads: list[Actor] = []
        self.broker = WorkerBroker(settings.redis_url, weights=settings.priority_weights)
        self.broker.broker_id = name
        self._declare_actors()
        worker = dramatiq.Worker(self.broker, worker_threads=THREADS)
        self.queue = FairQueue(self.broker, worker)
        self.queue.consumers = worker.consumers = {queue: self._consumer(queue) for queue in self.broker.weights}
        self.queue.task_time = SHORT
        self.scheduling = FairScheduling()
        self.scheduling.queue = self.queue
        with app.app_context():
            self.writer = StatusWriter(name)
            self.writer.cursors = StoppingCursors()
        self.executor = Executor(app, self.writer, self._following)
        self.pulse = Pulse(app, name, threads=THREADS, queues=sorted(self.broker.weights))
        self.pulse.strays = workers.Strays(name, clock.monotonic)

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def begins(self, record: Any) -> None:
        self.attempts.begin(self, record)

    def ends(self, record: Any) -> None:
        self.attempts.end(self, record)

    def work(self) -> None:
        """One of its threads, until it stops."""
        thread = WorkerThread(
            broker=self.broker, consumers=self.queue.consumers, work_queue=self.queue, worker_timeout=1000
        )
        with database.deadline(math.inf):
            self._process_all(thread)
        self.scheduling.before_worker_thread_shutdown(self.broker, thread)
        self.writer.close()

    def beat(self) -> None:
        self.pulse._beat()

    def disown(self) -> None:
        self.pulse._disown()

    def tidy(self) -> None:
        """What the thread that listens for wake-ups does every second."""
        self.queue.tidy()

    def stop(self) -> None:
        """As dramatiq does when it is asked to."""
        self.executor.stopping.set()
        self.stopping = True
        self.scheduling.before_worker_shutdown(self.broker, self.queue.worker)
        reach("waits for its threads", always=True, may_pass=lambda: all(thread.ended for thread in self.threads))
        self.scheduling.after_worker_shutdown(self.broker, self.queue.worker)
        with self.app.app_context():
            workers.leave(self.name, now=database.clock())
        self.gone = True

    def _process_all(self, thread: WorkerThread) -> None:
        while True:
            reach(BETWEEN if "reserved" in self.queue.thread.__dict__ else IDLE, always=True)
            if self.stopping:
                break
            self.queue.wake()  # it polls
            with suppress(Empty):
                thread.process_message(self.queue.get(timeout=GLANCE).message)

    def _declare_actors(self) -> None:
        # As actors/worker.py, which is a program and cannot be imported twice.
        def run(task_id: int, claims: int) -> None:
            try:
                self.executor.run((task_id, claims))
            except GiveBack:
                raise
            except Exception:
                raise GiveBack from None

        for name in (ANY_OPERATION, "model.run"):
            dramatiq.actor(actor_name=name, queue_name=queue_name(0), broker=self.broker)(run)

    def _following(self) -> Message | None:
        if message := self.queue.reserve():
            task_id, claims = message.args
            return task_id, claims
        return None

    def _consumer(self, name: str) -> ConsumerThread:
        """Not started: what it would fetch, the queue fetches."""
        thread = ConsumerThread(
            broker=self.broker, queue_name=name, prefetch=0, work_queue=cast(Any, self.queue), worker_timeout=1000
        )
        thread.consumer = self.broker.consume(name)
        return thread
