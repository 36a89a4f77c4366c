"""What the history costs: the processor time of its roll-up while 5,000 tasks a second come in and end."""

import os
import random
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import String, cast, text

from benchmarks import ours
from benchmarks.harness import Environ, Options, Servers, application
from benchmarks.ours import N
from benchmarks.sqlite import database
from benchmarks.table import Row
from scheduler_app.extensions import db
from scheduler_app.models import Status
from scheduler_app.services import history

RATE = 5_000  # tasks a second
INTERVAL = 10  # seconds between two roll-ups, as the scheduler has them
PARTS = 20  # a second, with a time each
OPERATIONS = 20
GOAL = 0.02  # of a core


def run(servers: Servers, options: Options) -> Iterable[Row]:
    seconds = options.size(120, 30)
    with servers.fresh() as environ:
        yield row("PostgreSQL", measure(environ, seconds))
    with database(servers) as environ:
        yield row("SQLite", measure(environ, seconds))


def measure(environ: Environ, seconds: int) -> float:
    """The part of a core that the process and its server's session use."""
    begin = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    used = 0.0
    with application(environ):
        for past in range(0, seconds + 3 * INTERVAL, INTERVAL):
            for part in range(past * PARTS, min(past + INTERVAL, seconds + INTERVAL) * PARTS):
                load(begin + timedelta(seconds=part / PARTS))
            before = cpu_seconds()
            count(begin + timedelta(seconds=past + INTERVAL))
            used += cpu_seconds() - before if past else 0.0  # the first one also compiles the statements
    return used / seconds


def load(at: datetime) -> None:
    waited, ran = (timedelta(milliseconds=10 ** random.uniform(0, 4)) for _ in range(2))
    begun = at - ran
    ours.insert_tasks(
        RATE // PARTS,
        operation="shop.operation_" + cast(N % OPERATIONS, String),
        priority=N % 10,
        status=Status.ERROR if random.random() < 0.05 else Status.SUCCESS,
        created_at=at,
        run_at=begun - waited,
        started_at=begun,
        finished_at=at,
    )


def count(now: datetime) -> None:
    while history.roll_up(now=now):
        pass


def cpu_seconds() -> float:
    return time.process_time() + _of_session()


def _of_session() -> float:
    if db.engine.dialect.name == "sqlite":
        return 0.0
    pid = db.session.scalar(text("SELECT pg_backend_pid()"))
    db.session.rollback()
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def row(name: str, share: float) -> Row:
    work = f"history of {RATE:,} tasks a second on {name}"
    return Row(work, f"{100 * share:.2f} % of a core", goal=f"≤ {100 * GOAL:g} %", met=share <= GOAL)
