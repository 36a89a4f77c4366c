"""Composition root of `dramatiq actors.worker`: one actor per operation, pulled from the priority queues."""

import logging
from typing import Any

import dramatiq

from scheduler_app import create_app, logs, operations
from scheduler_app.broker import ANY_OPERATION, FairScheduling, GiveBack, WorkerBroker, queue_name
from scheduler_app.config import Settings
from scheduler_app.worker.execution import Executor
from scheduler_app.worker.pulse import Pulse
from scheduler_app.worker.status_writer import Message, StatusWriter

log = logging.getLogger(__name__)
settings = Settings.load()
app = create_app(settings, worker=True)
broker: WorkerBroker = app.extensions["backbeat.broker"]
ends = broker.ends
worker_id = broker.broker_id  # in the table of workers as in Redis
logs.configure(settings.log_level, settings.log_format, process="worker", worker=worker_id)


def run(task_id: int, claims: int) -> None:
    try:
        executor.run((task_id, claims))
    except GiveBack:
        raise
    except Exception:
        # An acknowledged message is gone for good. A message that comes again does nothing if the status was written.
        log.exception("task %d: message %d is given back", task_id, claims, extra={"task_id": task_id})
        executor.stopping.wait(1)  # it may come back at once
        raise GiveBack from None


def following() -> Message | None:
    """The message that the calling thread gets next."""
    if message := scheduling.queue.reserve():
        task_id, claims = message.args
        return task_id, claims
    return None


class Life(dramatiq.Middleware):
    """Registers the worker before it takes a task, and removes its row after its last task has ended."""

    def before_worker_boot(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        queues = sorted(worker.consumer_whitelist or broker.get_declared_queues())
        self.pulse = Pulse(app, worker_id, threads=worker.worker_threads, queues=queues)
        self.pulse.start()
        ends.start()

    def before_worker_shutdown(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        executor.stopping.set()

    def before_worker_thread_shutdown(self, broker: dramatiq.Broker, thread: Any) -> None:
        writer.close()

    def after_worker_shutdown(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        self.pulse.stop()


scheduling = FairScheduling()
with app.app_context():
    writer = StatusWriter(worker_id)
executor = Executor(app, writer, following)
broker.add_middleware(scheduling)
broker.add_middleware(Life())
dramatiq.set_broker(broker)
for name in (ANY_OPERATION, *(operation.name for operation in operations.registered())):
    dramatiq.actor(actor_name=name, queue_name=queue_name(0), broker=broker)(run)  # a message names its own queue
