"""Two sides that take the same orders: this project, and stock Dramatiq with a queue for each of two priorities."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks import ours
from benchmarks.harness import Environ, Processes, Servers, application, call_peer
from benchmarks.starts import Starts
from scheduler_app.extensions import db
from scheduler_app.services import dispatch, tasks
from tests.support.system import WORKER_READY, worker_command

STOCK = "benchmarks.peers.dramatiq_starts"
THREADS = 8


@dataclass(frozen=True)
class Side:
    """Servers that hold nothing yet, and how work gets there."""

    environ: Environ
    worker: Sequence[str]
    load: Callable[[int], None]  # publishes so many tasks of the least urgent priority, which only add
    hold: Callable[[int], float]  # a most urgent task that tells its start, and runs until it is released
    tell: Callable[[int], float]  # one that only tells its start; both return when they published

    def start_worker(self, processes: Processes) -> None:
        processes.start(self.worker, self.environ, WORKER_READY)


Opened = Callable[[Servers, Starts], AbstractContextManager[Side]]


@contextmanager
def this_project(servers: Servers, starts: Starts) -> Iterator[Side]:
    def publish(operation: str, priority: int, **params: Any) -> float:
        request = {"operation": operation, "params": params, "priority": priority, "max_retries": 0}
        created = tasks.create([request], now=datetime.now(UTC))
        db.session.commit()
        published = time.monotonic()
        dispatch.publish(created)
        return published

    def load(count: int) -> None:
        ours.insert_tasks(count, priority=9)
        ours.publish_all()

    with servers.fresh() as environ:
        environ |= {"BACKBEAT_OPERATIONS": "actors,benchmarks.operations", "STARTS": starts.path}
        with application(environ):
            yield Side(
                environ,
                worker_command(threads=THREADS),
                load,
                hold=lambda number: publish("bench.hold", 0, number=number),
                tell=lambda number: publish("bench.tell", 0, number=number),
            )


@contextmanager
def stock_dramatiq(servers: Servers, starts: Starts) -> Iterator[Side]:
    with servers.fresh(template="template0") as environ:
        environ |= {"STARTS": starts.path}
        broker = RedisBroker(url=environ["REDIS_URL"])

        def publish(actor: str, queue: str, *args: Any) -> float:
            message: dramatiq.Message[Any] = dramatiq.Message(queue, actor, args, {}, {})
            published = time.monotonic()
            broker.enqueue(message)
            return published

        yield Side(
            environ,
            worker_command(module=STOCK, threads=THREADS),
            load=lambda count: call_peer(STOCK, f"publish({count})", environ),
            hold=lambda number: publish("hold", "p0", number),
            tell=lambda number: publish("tell", "p0", number),
        )
        broker.close()
