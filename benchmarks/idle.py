"""An idle worker: how soon it starts a task, and what it costs while there is none."""

import random
import time
from collections.abc import Iterable

from benchmarks import sides
from benchmarks.harness import Options, Processes, Servers
from benchmarks.starts import Starts
from benchmarks.table import Row, milliseconds, percentile, within
from benchmarks.usage import cpu_seconds
from tests.support.processes import Process

CPU_GOAL = 1.0  # percent of a core


def run(servers: Servers, options: Options) -> Iterable[Row]:
    seconds = options.size(20, 5)
    ours, ours_cpu = trial(servers, sides.this_project, options.size(100, 25), gap=0.25, idle=seconds)
    stock, stock_cpu = trial(servers, sides.stock_dramatiq, options.size(40, 8), gap=1.0, idle=seconds)
    for percent, goal in ((50, 0.004), (99, 0.02)):
        theirs = percentile(stock, percent)
        ratio = f"{theirs / percentile(ours, percent):.0f} x sooner"
        yield within("idle start", ours, percent, goal, peer="stock Dramatiq", theirs=milliseconds(theirs), ratio=ratio)
    yield Row(
        f"an idle worker's share of a core over {seconds} s",
        f"{ours_cpu:.2f} %",
        "stock Dramatiq",
        f"{stock_cpu:.2f} %",
        goal=f"< {CPU_GOAL:g} %",
        met=ours_cpu < CPU_GOAL,
    )


def trial(servers: Servers, opened: sides.Opened, count: int, *, gap: float, idle: float) -> tuple[list[float], float]:
    """Seconds from publishing to the task's first line, about gap seconds apart; and percent of a core when idle."""
    with Starts() as starts, opened(servers, starts) as side, Processes() as processes:
        side.start_worker(processes)
        times = [_start(side, starts, number, gap) for number in range(count)]
        time.sleep(2)
        return times, _cpu(processes[0], idle)


def _start(side: sides.Side, starts: Starts, number: int, gap: float) -> float:
    time.sleep(gap * random.uniform(0.5, 1.5))
    published = side.tell(number)
    [started] = starts.wait_for(range(number, number + 1), within=20)
    return started - published


def _cpu(process: Process, seconds: float) -> float:
    before = cpu_seconds(process.popen)
    time.sleep(seconds)
    return 100 * (cpu_seconds(process.popen) - before) / seconds
