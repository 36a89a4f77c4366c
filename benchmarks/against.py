"""This tree beside an earlier commit: python -m benchmarks.against COMMIT [--turns 20]

Both run at once, each with a database and a Valkey of its own, and work in turns. So whatever else the machine does
harms both alike: the ratios hold also where the figures do not.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import PIPE

import psycopg

from benchmarks import accept, post
from benchmarks.client import Client
from benchmarks.table import milliseconds
from benchmarks.usage import cpu_seconds
from tests.support.processes import ROOT, Process, free_port
from tests.support.servers import Postgres, Valkey
from tests.support.system import WEB, WEB_READY

HEAD = "| work | then | now | ratio | ratio of the process's own time |\n| --- | ---: | ---: | ---: | ---: |"
FIRED = 500  # schedules in one turn
FIRE = """
import sys
from datetime import UTC, datetime
from scheduler_app.services.firing import fire_due
from wsgi import app  # its place in the package is not the same in every commit
with app.app_context():
    for _ in sys.stdin:
        print(len(fire_due(now=datetime.now(UTC))), flush=True)
"""
DUE = """
    INSERT INTO task_schedule (operation, params, priority, max_retries, every_x_hours, cron, anchor_at,
                               times_scheduled, next_run_at, created_at)
    SELECT 'calculate', '{"expression": "4+7"}', 5, 5, CASE WHEN n %% 2 = 0 THEN 1 END,
           CASE WHEN n %% 2 = 1 THEN n / 2 %% 60 || ' * * * *' END, now(), 0, now(), now()
    FROM generate_series(1, %s) AS n
"""


class Side:
    """One tree, which serves and fires schedules."""

    def __init__(self, folder: Path, due: int, stack: ExitStack) -> None:
        postgres, valkey = Postgres(), Valkey()
        stack.callback(postgres.close)
        stack.callback(valkey.close)
        postgres.sql("CREATE DATABASE backbeat")
        port = free_port()
        environ = {"DATABASE_URL": postgres.url("backbeat"), "REDIS_URL": valkey.url, "PORT": str(port)}
        upgrade = [sys.executable, "-m", "flask", "--app", "wsgi", "db", "upgrade"]
        subprocess.run(upgrade, cwd=folder, env=os.environ | environ, check=True, stderr=subprocess.DEVNULL)
        with psycopg.connect(environ["DATABASE_URL"]) as connection:
            connection.execute(DUE, (due,))
        self.web = Process(WEB, environ, WEB_READY, folder=folder)
        stack.callback(self.web.kill)
        self.firing = subprocess.Popen(
            [sys.executable, "-c", FIRE],
            cwd=folder,
            env=os.environ | environ,
            stdin=PIPE,
            stdout=PIPE,
            text=True,
            start_new_session=True,
        )
        stack.callback(self.firing.kill)
        self.web.wait_until_ready()
        self.client = Client(port)

    def own_seconds(self) -> float:
        """That its processes have computed."""
        return cpu_seconds(self.web.popen) + cpu_seconds(self.firing)

    def post(self) -> None:
        self.client.post("/tasks/", post.BODY)

    def post_after_pause(self) -> None:
        self.post()

    def post_batch(self) -> None:
        self.client.post("/tasks/batch-request/", accept.BODY)

    def fire(self) -> None:
        assert self.firing.stdin
        assert self.firing.stdout
        print(file=self.firing.stdin, flush=True)
        assert int(self.firing.stdout.readline()) == FIRED


# Each work, and how often a side does it in one turn.
WORKS: dict[str, tuple[Callable[[Side], None], int]] = {
    "post one": (Side.post, 25),
    "post one on an idle system": (Side.post_after_pause, 5),
    f"accept a batch of {accept.BATCH}": (Side.post_batch, 5),
    f"fire {FIRED} schedules": (Side.fire, 1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="What the work costs beside an earlier commit.")
    parser.add_argument("commit")
    parser.add_argument("--turns", type=int, default=30)
    options = parser.parse_args()
    with ExitStack() as stack, checked_out(options.commit) as earlier:
        sides = [Side(folder, FIRED * (options.turns + 1), stack) for folder in (earlier, ROOT)]
        print(HEAD)
        for name in WORKS:
            print(measure(name, sides, options.turns), flush=True)


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """A folder with the files of the commit."""
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, stdout=PIPE).stdout
        subprocess.run(["tar", "--extract", "--directory", folder], input=archive, check=True)
        yield Path(folder)


def measure(name: str, sides: list[Side], turns: int) -> str:
    """A line of the table; the first turn does not count."""
    work, times = WORKS[name]
    took: list[list[float]] = [[] for _ in sides]
    before: list[float] = []
    for turn in range(turns + 1):
        for side, kept in zip(sides, took, strict=True):
            kept.extend(timed(work, side) for _ in range(times))
        before = before if turn else [side.own_seconds() for side in sides]
    then, now = (statistics.median(kept[times:]) for kept in took)
    own = [side.own_seconds() - seconds for side, seconds in zip(sides, before, strict=True)]
    cells = name, milliseconds(then), milliseconds(now), f"{now / then:.2f}", f"{own[1] / own[0]:.2f}"
    return f"| {' | '.join(cells)} |"


def timed(work: Callable[[Side], None], side: Side) -> float:
    time.sleep(post.GAP if work is Side.post_after_pause else 0)
    began = time.perf_counter()
    work(side)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
