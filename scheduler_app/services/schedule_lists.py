"""Schedules as the dashboard lists them: what fires next comes first, and each with its latest runs."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, and_, or_, select, tuple_, union_all

from scheduler_app.extensions import db, settings
from scheduler_app.models import Task, TaskSchedule
from scheduler_app.services import callers, counts

RUNS = 10  # of each schedule
SCANS = 5  # a schedule is late when so many scans have passed it by
PATIENCE = timedelta(seconds=10)  # and at least this time
LONGEST = 200  # characters of text to search for

Cursor = tuple[datetime | None, int]  # next_run_at and id of the last schedule of the page before

SHOWN = ("task_id", "task_schedule_id", "operation", "status", "scheduled_for", "started_at", "finished_at")
NEXT, ID = TaskSchedule.next_run_at, TaskSchedule.task_schedule_id


class State(StrEnum):
    ALL = "all"
    LATE = "late"  # its time has passed, and no scheduler has acted on it
    PAUSED = "paused"
    ENDED = "ended"  # it never fires again


def find(
    *, now: datetime, limit: int, text: str = "", state: State = State.ALL, cursor: Cursor | None = None
) -> tuple[Sequence[TaskSchedule], Cursor | None]:
    """A page of schedules, the next to fire first and those without a next time last; and the next page's cursor.

    `text` is looked for in their names and operations; a number also as their id.
    """
    query = select(TaskSchedule).where(*_conditions(text, state, now))
    found: list[TaskSchedule] = []
    if cursor is None or cursor[0] is not None:
        timed = query.where(NEXT.is_not(None)).order_by(NEXT, ID)
        if cursor is not None:
            timed = timed.where(tuple_(NEXT, ID) > tuple_(*cursor))
        found += db.session.scalars(timed.limit(limit + 1))
    if len(found) <= limit:
        rest = query.where(NEXT.is_(None)).order_by(ID.desc())
        if cursor is not None and cursor[0] is None:
            rest = rest.where(cursor[1] > ID)
        found += db.session.scalars(rest.limit(limit + 1 - len(found)))
    last = found[limit - 1] if len(found) > limit else None
    return found[:limit], (last.next_run_at, last.task_schedule_id) if last else None


def count(*, now: datetime, text: str = "", state: State = State.ALL) -> int:
    """How many there are, counts.MOST at most."""
    return counts.capped(select(ID).where(*_conditions(text, state, now)))


def late_by(schedule: TaskSchedule, now: datetime) -> timedelta | None:
    """For how long a schedule has been due; None when that is no longer than usual."""
    due = schedule.next_run_at
    return now - due if due is not None and due < _late_before(now) else None


def latest_runs(task_schedule_ids: Iterable[int]) -> dict[int, list[Row[Any]]]:
    """The latest tasks of each of these schedules, the newest first, in one statement.

    Of the latest RUNS of a schedule, those that the caller does not reach are left out.
    """
    each = [_latest(task_schedule_id) for task_schedule_id in task_schedule_ids]
    runs: dict[int, list[Row[Any]]] = defaultdict(list)
    if each:
        # Each part reads at most RUNS rows of the index, however many tasks there are. SQLite has no LATERAL.
        together = union_all(*(select(part.subquery()) for part in each)).subquery()
        query = select(together).where(*callers.within_reach(together.c.operation))
        for run in db.session.execute(query.order_by(together.c.scheduled_for.desc())):
            runs[run.task_schedule_id].append(run)
    return runs


def _latest(task_schedule_id: int) -> Select[Any]:
    columns = [Task.__table__.c[name] for name in SHOWN]
    mine = select(*columns).where(Task.task_schedule_id == task_schedule_id)
    return mine.order_by(Task.scheduled_for.desc()).limit(RUNS)


def _conditions(text: str, state: State, now: datetime) -> list[ColumnElement[bool]]:
    conditions = callers.within_reach(TaskSchedule.operation)
    if text:
        either = [column.icontains(text, autoescape=True) for column in (TaskSchedule.name, TaskSchedule.operation)]
        if text.isdecimal() and text.isascii() and len(text) < 19:
            either.append(ID.in_([int(text)]))
        conditions.append(or_(*either))
    if state == State.LATE:
        conditions.append(_late_before(now) > NEXT)
    if state == State.PAUSED:
        conditions.append(TaskSchedule.paused.is_(True))
    if state == State.ENDED:
        conditions.append(and_(NEXT.is_(None), ~TaskSchedule.paused))
    return conditions


def _late_before(now: datetime) -> datetime:
    return now - max(SCANS * timedelta(seconds=settings.scan_interval), PATIENCE)
