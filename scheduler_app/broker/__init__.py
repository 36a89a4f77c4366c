"""How due tasks reach a worker: in Dramatiq's own Redis layout, published in bulk and pulled by weight."""

from scheduler_app.broker.breaker import NotAsked
from scheduler_app.broker.consumer import WorkerBroker
from scheduler_app.broker.delivery import Delivery, GiveBack, message_id, queue_name
from scheduler_app.broker.ends import WorkersEnds
from scheduler_app.broker.fair_queue import FairQueue, FairScheduling
from scheduler_app.broker.priority_broker import ANY_OPERATION, MAX_AHEAD, PriorityBroker

__all__ = [
    "ANY_OPERATION",
    "MAX_AHEAD",
    "Delivery",
    "FairQueue",
    "FairScheduling",
    "GiveBack",
    "NotAsked",
    "PriorityBroker",
    "WorkerBroker",
    "WorkersEnds",
    "message_id",
    "queue_name",
]
