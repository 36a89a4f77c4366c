"""The broker of a worker process, and its consumers. They never fetch: FairQueue fetches for all queues at once."""

import time
from collections.abc import Callable, Iterable
from typing import Any

import redis
from dramatiq import MessageProxy
from dramatiq.broker import Consumer

from scheduler_app.broker.delivery import GiveBack
from scheduler_app.broker.ends import WorkersEnds
from scheduler_app.broker.priority_broker import PriorityBroker
from scheduler_app.broker.pulled import Pulled


class WorkerBroker(PriorityBroker):
    """Also keeps track of the messages that this process has pulled."""

    ends_class = WorkersEnds
    ends: WorkersEnds

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.books = Pulled()

    def consume(self, queue_name: str, prefetch: int = 0, timeout: int = 1000) -> "AckConsumer":
        return AckConsumer(self, queue_name, timeout / 1000)


class AckConsumer(Consumer):
    """Settles the messages of one queue, and keeps the heartbeat fresh while every thread is busy."""

    def __init__(self, broker: WorkerBroker, queue_name: str, tick: float) -> None:
        self.broker = broker
        self.books = broker.books
        self.queue_name = queue_name
        self.tick = tick  # seconds

    def __next__(self) -> None:
        self.broker.beat()
        time.sleep(self.tick)

    def ack(self, message: MessageProxy) -> None:
        if isinstance(message._exception, GiveBack):
            self.settle(self.broker.requeue, _id(message))
        else:
            self.books.finish(self.queue_name, _id(message))

    def nack(self, message: MessageProxy) -> None:
        self.settle(self.broker.nack, _id(message))

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        self.settle(self.broker.requeue, *map(_id, messages))

    def settle(self, command: Callable[..., Any], *ids: str) -> None:
        # While Redis is away this is not repeated: that would block the thread, and a stopping worker, until Redis is
        # back. The id stays in this process's ack set without being held. So FairQueue gives the message back as soon
        # as Redis answers. If the process ends first, maintenance gives it back.
        self.books.release(self.queue_name, ids)
        try:
            command(self.queue_name, *ids)
        except redis.RedisError:
            self.books.in_doubt = True


def _id(message: MessageProxy) -> str:
    return str(message.options["redis_message_id"])
