"""The times of a schedule that got no task, each with the reason.

What one schedule can write is bounded: it keeps KEPT rows, and a long row of times that are left out at once becomes
one row with their number.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import Integer, Row, String, select, true

from scheduler_app.database import as_table, insert, parameters
from scheduler_app.database.columns import ID, UTCDateTime
from scheduler_app.extensions import db
from scheduler_app.models import LeftOut, LeftOutTime, TaskSchedule

KEPT = 100  # rows of a schedule
SINGLE = 10  # of the times that are left out at once, the newest; each of them gets a row of its own

Omission = tuple[datetime, LeftOut]

COLUMNS = {
    "task_schedule_id": ID,
    "slot": Integer(),
    "scheduled_for": UTCDateTime(),
    "last_for": UTCDateTime(),
    "times": Integer(),
    "reason": String(),
    "recorded_at": UTCDateTime(),
}


class Stretch(NamedTuple):
    """Times in a row that were left out for one reason."""

    scheduled_for: datetime  # the first
    last_for: datetime
    times: int
    reason: LeftOut


def find(task_schedule_id: int, *, limit: int = KEPT) -> Sequence[LeftOutTime]:
    """Those that are kept, the latest time first."""
    query = select(LeftOutTime).where(LeftOutTime.task_schedule_id == task_schedule_id)
    return db.session.scalars(query.order_by(LeftOutTime.last_for.desc()).limit(limit)).all()


def record(omitted: Iterable[tuple[TaskSchedule | Row[Any], Sequence[Stretch]]], *, now: datetime) -> None:
    """Writes what schedules left out, oldest first.

    The caller has locked the schedules, adds the number of stretches to their `left_out_rows`, and commits.
    """
    rows = [
        (schedule.task_schedule_id, number % KEPT, *stretch, now)
        for schedule, stretches in omitted
        for number, stretch in enumerate(stretches, schedule.left_out_rows)
    ]
    if rows:
        new = as_table(COLUMNS)
        # SQLite needs a WHERE before ON CONFLICT.
        statement = insert(LeftOutTime.__table__).from_select(list(COLUMNS), select(*new.c).where(true()))
        replaced = {name: statement.excluded[name] for name in COLUMNS if name not in ("task_schedule_id", "slot")}
        statement = statement.on_conflict_do_update(index_elements=["task_schedule_id", "slot"], set_=replaced)
        db.session.execute(statement, parameters(COLUMNS, rows))


def stretches(omissions: Sequence[Omission]) -> list[Stretch]:
    """The newest SINGLE times one by one, those before them by reason."""
    split = max(len(omissions) - SINGLE, 0)
    groups = [list(group) for _, group in groupby(omissions[:split], key=lambda omission: omission[1])]
    groups += [[omission] for omission in omissions[split:]]
    return [Stretch(group[0][0], group[-1][0], len(group), group[0][1]) for group in groups]
