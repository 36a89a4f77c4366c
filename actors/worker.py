"""Composition root of `dramatiq actors.worker`: one actor an operation, pulled from the priority queues."""

import dramatiq

from scheduler_app import create_app, operations
from scheduler_app.broker import ANY_OPERATION, FairScheduling, PriorityBroker, queue_name
from scheduler_app.config import Settings
from scheduler_app.services import execution

app = create_app(Settings.load())
broker: PriorityBroker = app.extensions["backbeat.broker"]


def run(task_id: int, claims: int) -> None:
    with app.app_context():
        execution.run(task_id, claims)


class Stopping(dramatiq.Middleware):
    """Tells running attempts that the worker is asked to stop."""

    def before_worker_shutdown(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        execution.stopping.set()


broker.add_middleware(FairScheduling())
broker.add_middleware(Stopping())
dramatiq.set_broker(broker)
for name in (ANY_OPERATION, *(operation.name for operation in operations.registered())):
    dramatiq.actor(actor_name=name, queue_name=queue_name(0), broker=broker)(run)  # a message names its own queue
