"""Dramatiq's consumer of one queue, which here never fetches: FairQueue does, for all queues at once."""

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import redis
from dramatiq import MessageProxy
from dramatiq.broker import Consumer

from scheduler_app.broker.delivery import GiveBack

if TYPE_CHECKING:
    from scheduler_app.broker.priority_broker import PriorityBroker


class AckConsumer(Consumer):
    """Acknowledges what was pulled from its queue, and keeps the heartbeat fresh while every thread is busy."""

    def __init__(self, broker: "PriorityBroker", queue_name: str, tick: float) -> None:
        self.broker = broker
        self.queue_name = queue_name
        self.tick = tick  # seconds
        self.held: set[str] = set()  # ids of the messages that this process has not settled yet

    def __next__(self) -> None:
        self.broker.beat()
        time.sleep(self.tick)

    def ack(self, message: MessageProxy) -> None:
        if isinstance(message._exception, GiveBack):
            self.settle(self.broker.do_requeue, _id(message))
        else:
            # Goes out with the next pull. Until then the message only looks as if it were still being worked on: that
            # it is done stands in the database already, so whoever got it a second time would find it done.
            self.broker.done.append((self.queue_name, _id(message)))

    def nack(self, message: MessageProxy) -> None:
        self.settle(self.broker.do_nack, _id(message))

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        self.settle(self.broker.do_requeue, *map(_id, messages))

    def settle(self, command: Callable[..., Any], *ids: str) -> None:
        # When Redis is away this is not repeated: Dramatiq would hold the thread, and a worker's stop, until it is
        # back. The id stays in this process's ack set without being held, so FairQueue gives the message back as soon
        # as Redis answers, or maintenance does, once the process has ended.
        self.held.difference_update(ids)
        try:
            command(self.queue_name, *ids)
        except redis.RedisError:
            self.broker.in_doubt = True


def _id(message: MessageProxy) -> str:
    return str(message.options["redis_message_id"])
