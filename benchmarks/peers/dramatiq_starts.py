"""Stock Dramatiq with the most and the least urgent of its queues, and actors that say when they start."""

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks import starts

dramatiq.set_broker(RedisBroker(url=os.environ["REDIS_URL"]))


@dramatiq.actor(queue_name="p0", priority=0)
def tell(number: int) -> None:
    starts.tell(number)


@dramatiq.actor(queue_name="p9", priority=9)
def add(a: int, b: int) -> int:
    return a + b


@dramatiq.actor(queue_name="p0", priority=0)
def hold(number: int) -> None:
    starts.tell(number)
    starts.wait_for_release()


def publish(count: int) -> None:
    for _ in range(count):
        add.send(4, 7)
