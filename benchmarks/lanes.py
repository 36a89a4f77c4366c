"""Groups and limits: what they cost, whether they hold, and how long a small customer waits beside a big one."""

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from sqlalchemy import String, cast, func, literal, select

from benchmarks import ours, sides
from benchmarks.harness import PATIENCE, Options, Processes, Servers, application, progress
from benchmarks.starts import Starts
from benchmarks.table import Row, compared, milliseconds, percentile
from scheduler_app.extensions import db
from scheduler_app.models import Task
from scheduler_app.services import limits, tasks
from tests.support.system import System

GROUP = literal("customer-") + cast(ours.N, String)  # each task's own
SMALL = range(10)  # the small customer's tasks
RATE = 5  # a second
NEVER = {"operation": "calculate", "max_running": 10_000}


def run(servers: Servers, options: Options) -> Iterable[Row]:
    yield from costs(servers, options)
    yield rate_holds(servers, seconds=options.size(60, 15))
    yield customers(servers, waiting=options.size(100_000, 10_000))


def costs(servers: Servers, options: Options) -> Iterable[Row]:
    """What a group of its own, and a limit that is never reached, cost each task."""
    count = options.size(100_000, 10_000)
    kinds: dict[str, dict[str, Any]] = {
        "plain": {},
        f"{count:,} groups": {"group": GROUP},
        "a limit, never reached": {},
    }
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(options.size(3, 2)):
        for kind, columns in kinds.items():
            with servers.fresh() as environ:
                with application(environ):
                    ours.insert_tasks(count, **columns)
                    if "limit" in kind:
                        limits.put("calculate", NEVER, now=datetime.now(UTC))
                rates[kind].append(ours.drain(environ, count))
        progress(", ".join(f"{kind} {some[-1]:,.0f}/s" for kind, some in rates.items()))
    for kind in kinds:
        if kind != "plain":
            yield compared(f"drain {count:,} with {kind}", rates[kind], "without", rates["plain"], goal=0.9)


def rate_holds(servers: Servers, *, seconds: int) -> Row:
    """A limit of RATE a second over four worker processes."""
    with servers.fresh() as environ, application(environ):
        limits.put("calculate", {"operation": "calculate", "rate": {"count": RATE}}, now=datetime.now(UTC))
        ours.insert_tasks(RATE * seconds * 2)
        ours.publish_all()
        with System(environ, web=0, workers=4, schedulers=1):
            time.sleep(seconds + 5)  # the time is what is measured
        first = select(func.min(Task.started_at)).scalar_subquery()
        started = db.session.scalars(select(Task.started_at - first).where(Task.started_at.is_not(None))).all()
        db.session.rollback()
    number = sum(after.total_seconds() < seconds for after in started)
    wanted = RATE * seconds
    return Row(
        f"begun in {seconds} s at {RATE} a second, 4 processes",
        str(number),
        goal=f"{wanted} ± 1",
        met=abs(number - wanted) <= 1,
    )


def customers(servers: Servers, *, waiting: int) -> Row:
    """How long the tasks of a small customer wait that come after those of a big one, at the same priority."""
    mine, theirs = _wait_with_groups(servers, waiting), _wait_in_one_queue(servers, waiting)
    return Row(
        f"wait of {len(SMALL)} tasks behind {waiting:,} of another customer, p50",
        milliseconds(percentile(mine, 50)),
        "stock Dramatiq, one queue",
        milliseconds(percentile(theirs, 50)),
        f"{percentile(mine, 50) / percentile(theirs, 50):.4f}",
    )


def _wait_with_groups(servers: Servers, waiting: int) -> list[float]:
    with Starts() as starts, sides.this_project(servers, starts) as side, Processes() as processes:
        ours.insert_tasks(waiting, priority=5, group="big")
        ours.publish_all()
        side.start_worker(processes)
        request = {"operation": "bench.tell", "priority": 5, "max_retries": 0, "group": "small"}
        requests = [request | {"params": {"number": number}} for number in SMALL]
        posted = time.monotonic()
        tasks.submit(requests, now=datetime.now(UTC))
        started = starts.wait_for(SMALL, within=PATIENCE)
        return [moment - posted for moment in started]


def _wait_in_one_queue(servers: Servers, waiting: int) -> list[float]:
    with Starts() as starts, sides.stock_dramatiq(servers, starts) as side, Processes() as processes:
        side.load(waiting)
        side.start_worker(processes)
        broker = RedisBroker(url=side.environ["REDIS_URL"])
        posted = time.monotonic()
        for number in SMALL:
            message: dramatiq.Message[Any] = dramatiq.Message("p9", "tell", (number,), {}, {})
            broker.enqueue(message)
        started = starts.wait_for(SMALL, within=PATIENCE)
        broker.close()
        return [moment - posted for moment in started]
