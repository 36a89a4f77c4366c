"""Most urgent tasks while many wait at the least urgent level, one process is busy and another has free threads."""

import time
from collections.abc import Iterable

from benchmarks import sides
from benchmarks.harness import Options, Processes, Servers
from benchmarks.starts import Starts
from benchmarks.table import Row, milliseconds, percentile, within

TRIALS = range(30)
GAP = 0.15  # seconds between two
BUSY = range(1_000, 1_000 + sides.THREADS)  # the tasks that hold a process
HELD_ON = 5.0  # seconds that the process is held after the last trial


def run(servers: Servers, options: Options) -> Iterable[Row]:
    waiting = options.size(100_000, 20_000)
    ours = trial(servers, sides.this_project, waiting)
    stock = trial(servers, sides.stock_dramatiq, waiting)
    for percent, goal in ((50, 0.05), (100, 0.05)):
        theirs = milliseconds(percentile(stock, percent))
        yield within(
            f"start at priority 0 while {waiting:,} wait at 9",
            ours,
            percent,
            goal,
            peer="stock Dramatiq, one queue per priority",
            theirs=theirs,
        )


def trial(servers: Servers, opened: sides.Opened, waiting: int) -> list[float]:
    """Seconds from posting to the task's first line."""
    with Starts() as starts, opened(servers, starts) as side, Processes() as processes:
        side.load(waiting)
        for number in BUSY:
            side.hold(number)
        side.start_worker(processes)
        starts.wait_for(BUSY, within=20)
        side.start_worker(processes)
        posted = [_post(side, starts, number) for number in TRIALS]
        starts.listen(HELD_ON)
        starts.release()
        started = starts.wait_for(TRIALS, within=30)
        return [after - before for before, after in zip(posted, started, strict=True)]


def _post(side: sides.Side, starts: Starts, number: int) -> float:
    starts.listen(GAP)
    posted = time.monotonic()
    side.tell(number)
    return posted
