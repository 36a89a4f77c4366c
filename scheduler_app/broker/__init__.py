"""How due tasks reach a worker: in Dramatiq's own Redis layout, published in bulk and pulled by weight."""

from scheduler_app.broker.breaker import NotAsked
from scheduler_app.broker.consumer import WorkerBroker
from scheduler_app.broker.delivery import Delivery, Message, message_id, parse, queue_name
from scheduler_app.broker.ends import WorkersEnds
from scheduler_app.broker.priority_broker import MAX_AHEAD, PriorityBroker

__all__ = [
    "MAX_AHEAD",
    "Delivery",
    "Message",
    "NotAsked",
    "PriorityBroker",
    "WorkerBroker",
    "WorkersEnds",
    "message_id",
    "parse",
    "queue_name",
]
