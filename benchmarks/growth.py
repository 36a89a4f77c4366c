"""Whether a task's cost stays the same with more waiting tasks, more priorities and more processes."""

import statistics
from collections.abc import Iterable

from benchmarks import ours
from benchmarks.harness import Options, Servers, application
from benchmarks.ours import N
from benchmarks.table import Row, compared

SAME = 0.85  # of the rate on the other side: what counts as the same


def run(servers: Servers, options: Options) -> Iterable[Row]:
    yield from waiting(servers, options)
    yield from levels(servers, options)
    yield from processes(servers, options)


def waiting(servers: Servers, options: Options) -> Iterable[Row]:
    many, part = options.size(1_000_000, 50_000), options.size(10_000, 3_000)
    few = [drain(servers, 1_000) for _ in range(options.size(5, 1))]
    large = drain(servers, many, wait_for=part)
    yield compared(f"{part:,} of {many:,} waiting", [large], "1,000 waiting", [statistics.median(few)], goal=SAME)


def levels(servers: Servers, options: Options) -> Iterable[Row]:
    count, rounds = options.size(10_000, 3_000), range(options.size(3, 1))
    rates = [(drain(servers, count, levels=10), drain(servers, count)) for _ in rounds]
    ten, one = zip(*rates, strict=True)
    yield compared(f"{count:,} on ten levels", ten, "on one level", one, goal=SAME)


def processes(servers: Servers, options: Options) -> Iterable[Row]:
    count, rounds = options.size(10_000, 3_000), range(options.size(3, 1))
    rates: dict[int, list[float]] = {1: [], 2: [], 4: []}
    for _ in rounds:
        for number, some in rates.items():
            some.append(drain(servers, count, processes=number))
    for number in (2, 4):
        yield compared(f"{count:,} with {number} worker processes", rates[number], "with one", rates[1])


def drain(servers: Servers, count: int, *, levels: int = 1, processes: int = 2, wait_for: int | None = None) -> float:
    with servers.fresh() as environ:
        with application(environ):
            ours.insert_tasks(count, priority=N % 10 if levels == 10 else 5)
            ours.vacuum()
        return ours.drain(environ, count, wait_for=wait_for, workers=processes)
