"""The broker of a worker process, and its consumers. They never fetch: the work queue does."""

import time
from typing import Any

from dramatiq.broker import Consumer

from scheduler_app.broker.ends import WorkersEnds
from scheduler_app.broker.priority_broker import PriorityBroker


class WorkerBroker(PriorityBroker):
    """Gives Dramatiq consumers that keep the heartbeat fresh while every thread is busy."""

    ends_class = WorkersEnds
    ends: WorkersEnds

    def consume(self, queue_name: str, prefetch: int = 0, timeout: int = 1000) -> "HeartbeatConsumer":
        return HeartbeatConsumer(self, timeout / 1000)


class HeartbeatConsumer(Consumer):
    """Only beats. Dramatiq has one per queue."""

    def __init__(self, broker: WorkerBroker, tick: float) -> None:
        self.broker = broker
        self.tick = tick  # seconds

    def __next__(self) -> Any:
        self.broker.beat()
        time.sleep(self.tick)
