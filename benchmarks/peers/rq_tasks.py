"""RQ, which keeps status and result of each job in Redis."""

import os

from redis import Redis
from rq import Queue
from rq.worker import SimpleWorker, Worker

from benchmarks.peers import clock

READY = "rq is ready"


@clock.of_this_process().timed
def add(a: int, b: int) -> int:
    return a + b


def queue() -> Queue:
    return Queue(connection=Redis.from_url(os.environ["REDIS_URL"]))


def work(*, fork: bool) -> None:
    """RQ's own worker forks a process for each job; SimpleWorker does not, and cannot stop a job that hangs."""
    print(READY)
    worker = Worker if fork else SimpleWorker
    worker([queue()], connection=queue().connection).work(logging_level="WARNING")


def publish(count: int) -> None:
    queue().enqueue_many([Queue.prepare_data(add, (4, 7)) for _ in range(count)])
