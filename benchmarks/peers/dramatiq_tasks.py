"""Stock Dramatiq: its own Redis broker with all defaults, and an actor that adds and records nothing."""

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.peers import clock

dramatiq.set_broker(RedisBroker(url=os.environ["REDIS_URL"]))


@dramatiq.actor(actor_name="add")
@clock.of_this_process().timed
def add(a: int, b: int) -> int:
    return a + b


def publish(count: int) -> None:
    for _ in range(count):
        add.send(4, 7)
