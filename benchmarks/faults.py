"""Harms a whole system again and again while tasks are posted, and counts what that cost.

`python -m benchmarks.faults --faults 1000` prints a table in Markdown. Each task counts for the first fault after it
was accepted. Recovery is the time from a fault's beginning until all tasks that were accepted before it have finished.
A tenth of the faults last long or need a rescue; they come at the end of each round. For the other faults, only short
tasks count for the recovery. A final task is wrong if its attempts contradict it: it ran to its end, but is an ERROR.
"""

import argparse
import os
import random
import signal
import statistics
import tempfile
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from pathlib import Path

from sqlalchemy import select

from scheduler_app.models import Task
from tests.support.account import Account, account, unfinished
from tests.support.harms import Harm, bends, last
from tests.support.posting import Client
from tests.support.processes import Process
from tests.support.target import Target

ROUND = 50  # faults
PAUSE = (0.6, 1.6)  # seconds between two of them
WORKER_PAUSE = (0.5, 2.5)  # seconds between the faults of two workers
BENT = (1.0, 4.0)  # seconds that a bend lasts
LONG = 15.0  # seconds that a long one lasts: longer than it takes for a worker to be taken for dead
STUCK = 60.0  # seconds after which a task that is not final counts as stuck
WORKERS = 4
ALL = "all"

Faults = dict[str, Callable[[], object]]


@dataclass(frozen=True)
class Done:
    """A fault that was done."""

    name: str
    at: float  # as time.time()
    quick: bool  # only short tasks tell how long it took to recover


@dataclass
class Run:
    target: Target
    client: Client
    harms: list[Done] = field(default_factory=list)
    stuck: set[int] = field(default_factory=set)

    def round(self, faults: int) -> None:
        """Short faults, one at a time; then a long one; then one per worker, some before another is noticed."""
        for _ in range(faults - WORKERS - 1):
            quick = self._quick_faults()
            name = random.choice(list(quick))
            self._harm(name, quick[name], quick=True)
            time.sleep(random.uniform(*PAUSE))
        self.settle()
        name, harm = random.choice(list(self._long_bends().items()))
        self._harm(name, partial(last, harm, LONG), quick=False)
        self.settle()
        for process in random.sample(self.target.system.workers, WORKERS):
            worker = self._worker_faults(process)
            name = random.choice(list(worker))
            self._harm(name, worker[name], quick=False)
            time.sleep(random.uniform(*WORKER_PAUSE))
        self.settle()

    def settle(self) -> None:
        """Until all that has been accepted is final, or counts as stuck."""
        accepted = set(self.client.accepted) - self.stuck
        deadline = time.monotonic() + STUCK
        while waiting := [row for row in unfinished(self.target) if row.task_id in accepted]:
            if time.monotonic() > deadline:
                print(f"stuck: {waiting}", flush=True)
                self.stuck.update(row.task_id for row in waiting)
                return
            time.sleep(0.1)

    def _harm(self, name: str, do: Callable[[], object], *, quick: bool) -> None:
        self.harms.append(Done(name, time.time(), quick))
        do()

    def _quick_faults(self) -> Faults:
        first, second = self.target.system.schedulers
        redis = self.target.valkey

        def stop_redis(seconds: float = 0, *, lose_data: bool = False) -> None:
            redis.kill()
            if lose_data:
                redis.lose_data()
            time.sleep(seconds)
            redis.start()

        faults: Faults = {
            "web killed": self.target.system.web.kill,
            "a scheduler killed": first.kill,
            "both schedulers killed": lambda: [scheduler.kill() for scheduler in (first, second)],
            "a worker stopped (SIGTERM)": random.choice(self.target.system.workers).popen.terminate,
            "Redis killed": stop_redis,
            "Redis away for 2 s": lambda: stop_redis(2),
            "Redis restarted without its data": lambda: stop_redis(lose_data=True),
            "Redis flushed": redis.client.flushall,
        }
        if self.target.postgres:
            faults["PostgreSQL away for 2 s"] = self._stop_postgres
        return faults | {name: partial(last, harm, random.uniform(*BENT)) for name, harm in bends(self.target).items()}

    def _long_bends(self) -> dict[str, Harm]:
        return {f"{name} for {LONG:.0f} s": harm for name, harm in bends(self.target).items()}

    def _stop_postgres(self) -> None:
        postgres = self.target.postgres
        assert postgres
        postgres.stop()
        time.sleep(2)
        postgres.start()

    def _worker_faults(self, process: Process) -> Faults:
        def kill_child() -> None:
            if row := self.target.worker_of(process):
                with suppress(ProcessLookupError):
                    os.kill(row.pid, signal.SIGKILL)

        def freeze() -> None:
            self.target.freeze(process)
            threading.Timer(LONG, process.signal, (signal.SIGCONT,)).start()

        return {
            "worker killed": process.kill,
            "the worker's child killed": kill_child,
            "worker frozen for 15 s": freeze,
        }


def main() -> None:
    options = arguments()
    random.seed(options.seed)
    with running(options.database) as run:
        print(f"seed {options.seed}, logs in {run.target.folder}", flush=True)
        with run.client.posting():
            began = time.monotonic()
            while (left := options.faults - len(run.harms)) > 0 and time.monotonic() - began < options.seconds:
                run.round(max(WORKERS + 1, min(left, ROUND)))
                progress = f"{len(run.harms)} faults, {len(run.client.accepted)} tasks, {len(run.stuck)} stuck"
                print(f"{time.monotonic() - began:.0f} s: {progress}", flush=True)
        run.settle()
        print(table(run, account(run.target, run.client.accepted)), flush=True)
        print(f"\nanswers to the posts: {dict(run.client.answers)}; the slowest took {run.client.slowest:.1f} s")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=3600, help="no further round after so many")
    parser.add_argument("--database", choices=("postgresql", "sqlite"), default="postgresql")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    return parser.parse_args()


@contextmanager
def running(database: str) -> Iterator[Run]:
    """A system on new servers."""
    target = Target(database, Path(tempfile.mkdtemp(prefix="faults-")), workers=WORKERS)
    try:
        yield Run(target, Client(target.system.url, random.Random(random.random()), pause=0.08))
    finally:
        target.close()


def table(run: Run, result: Account) -> str:
    """A Markdown table with one row per fault, and one for all of them."""
    counts = {
        "tasks": run.client.accepted,
        "lost": result.lost,
        "stuck": run.stuck,
        "wrong": result.wrong,
        "run twice": result.run_twice,
    }
    attributed = {name: by_fault(run, tasks) for name, tasks in counts.items()}
    seconds = recoveries(run, result)
    lines = [
        "| fault | times | tasks | lost | stuck | wrong | run twice | recovery p50 (s) | max (s) |",
        "| --- |" + " ---: |" * 8,
    ]
    for name in [*sorted(seconds), ALL]:
        own = [recovery for fault in (seconds if name == ALL else [name]) for recovery in seconds[fault]]
        cells = [len(own), *(counter.total() if name == ALL else counter[name] for counter in attributed.values())]
        lines.append(f"| {name} | {' | '.join(map(str, cells))} | {statistics.median(own):.1f} | {max(own):.1f} |")
    return "\n".join([*lines, *(f"wrong: {problem}" for problem in result.wrong.values())])


def by_fault(run: Run, tasks: Iterable[int]) -> Counter[str]:
    times = [harm.at for harm in run.harms]
    names = [*(harm.name for harm in run.harms), "after the last"]
    return Counter(names[bisect_left(times, run.client.accepted[task_id])] for task_id in tasks)


def recoveries(run: Run, result: Account) -> dict[str, list[float]]:
    """Seconds from each harm until the end of the last task that was accepted before it."""
    rows = run.target.rows(select(Task.task_id, Task.params).where(Task.operation == "fault.work"))
    ends = {row.task_id: (row.params["seconds"], result.finished.get(row.task_id)) for row in rows}
    found: dict[str, list[float]] = {}
    for quick in (True, False):
        considered = [
            (run.client.accepted[task_id], end.timestamp())
            for task_id, (seconds, end) in ends.items()
            if end and task_id in run.client.accepted and (seconds < 1 or not quick)
        ]
        considered.sort()
        accepted = [at for at, _ in considered]
        latest = [0.0, *accumulate((end for _, end in considered), max)]
        for harm in run.harms:
            if harm.quick == quick:
                end = latest[bisect_left(accepted, harm.at)]
                found.setdefault(harm.name, []).append(max(0.0, end - harm.at))
    return found


if __name__ == "__main__":
    main()
