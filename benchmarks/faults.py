"""Harms a whole system again and again while tasks are posted, and counts what that cost.

`python -m benchmarks.faults --faults 1000` prints a table in Markdown. Each task counts for the first fault after it
was accepted. Recovery is the time from a fault's beginning until all tasks that were accepted before it have finished.
A tenth of the faults last long, and some need a rescue; they come at the end of each round. For the other faults, only
short tasks count for the recovery. A post counts for the last fault before it, and for those done while it was under
way. A final task is wrong if its attempts contradict it: it ran to its end, but is an ERROR.
"""

import argparse
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.fault_table import Done, Record, posts, table
from tests.support.account import account, unfinished
from tests.support.fault_operations import AT_ONCE
from tests.support.harms import bends, last
from tests.support.limit_operations import most_at_once, short_spans
from tests.support.posting import Client
from tests.support.processes import Process
from tests.support.target import Target

ROUND = 50  # faults
LONG_ONES = 10  # one of so many faults lasts long
PAUSE = (0.6, 1.6)  # seconds between two faults
WORKER_PAUSE = (0.5, 2.5)  # seconds between the faults of two workers
BENT = (1.0, 4.0)  # seconds that a bend lasts
LONG = 15.0  # seconds that a long one lasts: longer than it takes for a worker to be taken for dead
STUCK = 60.0  # seconds after which a task that is not final counts as stuck
WORKERS = 4

Faults = dict[str, Callable[[], object]]


class Deck:
    """Draws faults at random. It draws each kind once before any kind comes again."""

    def __init__(self) -> None:
        self._left: list[str] = []

    def draw(self, faults: Faults) -> tuple[str, Callable[[], object]]:
        if not self._left:
            self._left = random.sample([*faults], len(faults))
        name = self._left.pop()
        return name, faults[name]


@dataclass
class Run(Record):
    quick: Deck = field(default_factory=Deck)
    long: Deck = field(default_factory=Deck)
    of_workers: Deck = field(default_factory=Deck)

    def round(self, faults: int) -> None:
        """Short faults, one at a time; then long ones; then one per worker, some before another is noticed."""
        long_ones = faults // LONG_ONES
        for _ in range(faults - long_ones - WORKERS):
            self._harm(*self.quick.draw(self._quick_faults()), quick=True)
            time.sleep(random.uniform(*PAUSE))
        for _ in range(long_ones):
            self.settle()
            self._harm(*self.long.draw(self._long_bends()), quick=False)
        self.settle()
        for process in random.sample(self.target.system.workers, WORKERS):
            self._harm(*self.of_workers.draw(self._worker_faults(process)), quick=False)
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

    def _long_bends(self) -> Faults:
        return {f"{name} for {LONG:.0f} s": partial(last, harm, LONG) for name, harm in bends(self.target).items()}

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
        signal.signal(signal.SIGINT, lambda *_: setattr(options, "seconds", 0))
        with run.client.posting():
            began = time.monotonic()
            while (left := options.faults - len(run.harms)) > 0 and time.monotonic() - began < options.seconds:
                run.round(max(WORKERS, min(left, ROUND)))
                progress = f"{len(run.harms)} faults, {len(run.client.accepted)} tasks, {len(run.stuck)} stuck"
                print(f"{time.monotonic() - began:.0f} s: {progress}", flush=True)
        run.settle()
        at_once = most_at_once(short_spans(run.target.limit_lines))
        print(f"{table(run, account(run.target, run.client.accepted))}\n\n{posts(run)}")
        print(f"at a limit of {AT_ONCE} ran {at_once} at once at most")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=7200, help="no further round after so many, or after Ctrl-C")
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


if __name__ == "__main__":
    main()
