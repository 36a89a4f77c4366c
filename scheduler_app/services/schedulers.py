"""The scheduler processes. Each records its last scan, so that a silent one is noticed."""

import os
import socket
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Delete, Row, delete, func, select, tuple_

from scheduler_app.database import insert
from scheduler_app.extensions import db, settings
from scheduler_app.models import Scheduler, TaskSchedule

SILENT_AFTER = timedelta(seconds=30)
LATE_AFTER = timedelta(seconds=10)
MOST_LATE = 1_000  # schedules that are counted as late
FORGOTTEN_AFTER = timedelta(hours=1)


def record_scan(*, now: datetime, seconds: float, lags: list[timedelta], clock_offset: float) -> None:
    """Records how long this process's last scan took, and how late the schedules were that it fired."""
    latest: dict[str, Any] = {"scanned_at": now, "scan_seconds": seconds, "clock_offset": clock_offset}
    if lags:
        latest["lag_seconds"] = max(lags).total_seconds()
    statement = insert(Scheduler).values(**_identity(), **latest)
    db.session.execute(statement.on_conflict_do_update(index_elements=["host", "pid"], set_=latest))
    db.session.execute(_forget(now - FORGOTTEN_AFTER))
    db.session.commit()


def _forget(silent_since: datetime) -> Delete:
    # Only this process's own row is locked here. It must not wait for the row of another.
    key = tuple_(Scheduler.host, Scheduler.pid)
    silent = select(Scheduler.host, Scheduler.pid).where(Scheduler.scanned_at < silent_since)
    forgotten = delete(Scheduler).where(key.in_(silent.with_for_update(skip_locked=True)))
    return forgotten.execution_options(synchronize_session=False)


def leave() -> None:
    """Deletes the row of this scheduler. Call it when the scheduler ends."""
    db.session.execute(delete(Scheduler).filter_by(**_identity()))
    db.session.commit()


def find() -> Sequence[Scheduler]:
    """The schedulers that have scanned within the last hour. The one that scanned last comes first."""
    return db.session.scalars(select(Scheduler).order_by(Scheduler.scanned_at.desc())).all()


def due(*, now: datetime) -> tuple[int, float]:
    """How many schedules are due, and how many seconds the one that has waited longest has been due."""
    query = select(func.count(), func.min(TaskSchedule.next_run_at)).where(TaskSchedule.next_run_at <= now)
    count, oldest = db.session.execute(query).one()
    return count, (now - oldest).total_seconds() if oldest else 0.0


def late(*, now: datetime) -> Sequence[Row[int, datetime]]:
    """The schedules that should have fired by now, the latest first; `task_schedule_id` and `next_run_at`."""
    columns: Any = TaskSchedule.task_schedule_id, TaskSchedule.next_run_at
    query = select(*columns).where(TaskSchedule.next_run_at < late_before(now))
    return db.session.execute(query.order_by(TaskSchedule.next_run_at).limit(MOST_LATE)).all()


def late_before(now: datetime) -> datetime:
    """A schedule that was due before this is late."""
    return now - LATE_AFTER - timedelta(seconds=settings.scan_interval)


def _identity() -> dict[str, Any]:
    return {"host": socket.gethostname()[:255], "pid": os.getpid()}
