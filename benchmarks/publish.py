"""A thousand messages given to Valkey at once, beside one by one as Dramatiq's own actors send them."""

import statistics
import time
from collections.abc import Callable, Iterable

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.harness import Options, Servers
from benchmarks.table import Row
from scheduler_app.broker import Delivery, PriorityBroker

COUNT = 1_000
GOAL = 8


def run(servers: Servers, options: Options) -> Iterable[Row]:
    bulk, single = in_bulk(servers.valkey.url), one_by_one(servers.valkey.url)
    times: list[tuple[float, float]] = []
    for _ in range(options.size(20, 5)):
        servers.valkey.client.flushall()
        times.append((timed(bulk), timed(single)))
    ours, stock = (statistics.median(some) for some in zip(*times, strict=True))
    ratio = statistics.median(theirs / mine for mine, theirs in times)
    yield Row(
        f"bulk publish of {COUNT:,}, a message",
        f"{1e6 * ours:.0f} µs",
        "stock Dramatiq, one by one",
        f"{1e6 * stock:.0f} µs",
        f"{ratio:.1f}",
        f"≥ {GOAL} x",
        ratio >= GOAL,
    )


def in_bulk(url: str) -> Callable[[], object]:
    broker = PriorityBroker(url)
    return lambda: broker.publish(Delivery(task_id, 0, "calculate", 5) for task_id in range(COUNT))


def one_by_one(url: str) -> Callable[[], object]:
    actor = dramatiq.actor(actor_name="add", broker=RedisBroker(url=url))(lambda a, b: a + b)
    return lambda: [actor.send(4, 7) for _ in range(COUNT)]


def timed(publish: Callable[[], object]) -> float:
    """Seconds a message."""
    began = time.perf_counter()
    publish()
    return (time.perf_counter() - began) / COUNT
