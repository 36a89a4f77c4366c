"""Tasks that sleep, beside the best that so many threads could do: short ones, and some long ones among short ones."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import case, func

from benchmarks import drain, ours
from benchmarks.harness import Options, Servers, application
from benchmarks.table import Row, rate

THREADS = drain.PROCESSES * int(drain.THREADS)
SHORT, LONG = 0.005, 2.0  # seconds
ONE_IN = 100  # tasks that is long
SHORT_GOAL, MIXED_GOAL = 0.95, 1.1  # of the best


def run(servers: Servers, options: Options) -> Iterable[Row]:
    count = options.size(20_000, 5_000)
    best = THREADS / SHORT
    measured = _drain(servers, count, {"seconds": SHORT})
    yield Row(
        f"{count:,} tasks that sleep for 5 ms, {THREADS} threads",
        rate(measured),
        "the best that they can do",
        rate(best),
        f"{measured / best:.2f}",
        f"≥ {SHORT_GOAL:g} x",
        measured >= SHORT_GOAL * best,
    )
    count = ONE_IN * THREADS * options.size(4, 2)
    seconds = case((ours.N % ONE_IN == 0, LONG), else_=0.0)
    took = count / _drain(servers, count, func.json_build_object("seconds", seconds))
    ideal = count / ONE_IN * LONG / THREADS
    yield Row(
        f"{count:,} tasks, one in {ONE_IN} of which sleeps for 2 s, {THREADS} threads",
        f"{took:.1f} s",
        "the sleep alone",
        f"{ideal:.1f} s",
        f"{took / ideal:.2f}",
        f"≤ {MIXED_GOAL:g} x",
        took <= MIXED_GOAL * ideal,
    )


def _drain(servers: Servers, count: int, params: Any) -> float:
    with servers.fresh() as environ:
        environ |= {"BACKBEAT_OPERATIONS": "actors,benchmarks.operations"}
        with application(environ):
            ours.insert_tasks(count, operation="bench.sleep", params=params)
        return ours.drain(environ, count)
