"""Whether tasks wait no longer after a quarter of an hour of steady load than in its first minute.

Tasks come in at a share of the rate at which they can be done, while a million old ones stand in the table and pass the
retention at an even pace, so that there is always something to remove.
"""

import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, func, literal, select

from benchmarks import drain, ours, wal
from benchmarks.accept import BATCH
from benchmarks.harness import PATIENCE, Options, Servers, application, progress
from benchmarks.ours import N
from benchmarks.table import Row, milliseconds, rate
from scheduler_app import database
from scheduler_app.extensions import db
from scheduler_app.models import Status, Task
from scheduler_app.services import tasks
from tests.support.processes import eventually
from tests.support.system import System

SHARE = 0.6  # of the rate at which waiting tasks are done
SLOWER = 1.2  # times the p99 of the first minute
WARM_UP = 10.0  # seconds before the first minute
KEPT = timedelta(days=1)
OLD = "old"  # the operation of the tasks that are there before


def run(servers: Servers, options: Options) -> Iterable[Row]:
    best = drain.drain_ours(servers, options.size(20_000, 5_000))
    pace, seconds, old = SHARE * best, options.size(900, 90), options.size(1_000_000, 50_000)
    progress(f"{rate(best)} can be done; {rate(pace)} come in for {seconds} s")
    with servers.fresh() as environ:
        environ |= {"BACKBEAT_RETENTION_DAYS": str(KEPT.days)}
        with application(environ):
            load_old(old, over=WARM_UP + seconds)
            servers.postgres.sql("CHECKPOINT")
            with System(environ, web=0, workers=drain.PROCESSES, schedulers=1):
                written, began = wal.written(), database.clock()
                posted = post(pace, WARM_UP + seconds)
                eventually(lambda: left(Task.finished_at.is_(None)) == 0, within=PATIENCE)
                each = (wal.written() - written) / posted
            minute = min(60, seconds // 3)
            first, last = (p99(began, WARM_UP + start, minute) for start in (0, seconds - minute))
            removed = old - left(Task.operation == OLD)
    work = f"{rate(posted / (WARM_UP + seconds))} for {seconds} s: p99 of waiting in the last {minute} s"
    yield Row(
        work,
        milliseconds(last),
        f"in the first {minute} s",
        milliseconds(first),
        f"{last / first:.2f}",
        f"≤ {SLOWER:g} x",
        last <= SLOWER * first,
    )
    work = f"WAL of a task meanwhile, with whole pages, and with {removed:,} old ones removed"
    yield Row(work, f"{each:.0f} bytes")


def load_old(count: int, *, over: float) -> None:
    """They pass the retention one after the other, over so many seconds from now."""
    passes = timedelta(seconds=1) * over / count
    finished = literal(datetime.now(UTC) - KEPT) + N * literal(passes)
    ours.insert_tasks(count, operation=OLD, status=Status.SUCCESS, attempts=1, finished_at=finished)
    ours.vacuum()


def post(pace: float, seconds: float) -> int:
    """So many tasks a second, in batches; returns how many. What is late is made up for."""
    request = {"operation": "calculate", "params": {"expression": "4+7"}, "priority": 5, "max_retries": 5}
    began, batches = time.monotonic(), int(pace * seconds / BATCH)
    for number in range(batches):
        time.sleep(max(0, began + number * BATCH / pace - time.monotonic()))
        tasks.submit([request] * BATCH, now=database.clock())
    progress(f"the last batch was {time.monotonic() - began - seconds:.1f} s late")
    return batches * BATCH


def left(condition: ColumnElement[bool]) -> int:
    number = db.session.scalar(select(func.count()).select_from(Task).where(condition)) or 0
    db.session.rollback()
    return number


def p99(began: datetime, start: float, seconds: float) -> float:
    """Seconds from when a task was accepted until it began, of those accepted in this time."""
    begin = began + timedelta(seconds=start)
    waited = func.percentile_cont(0.99).within_group(Task.started_at - Task.created_at)
    accepted = Task.created_at.between(begin, begin + timedelta(seconds=seconds)), Task.operation != OLD
    found: timedelta | None = db.session.scalar(select(waited).where(*accepted))
    db.session.rollback()
    assert found
    return found.total_seconds()
