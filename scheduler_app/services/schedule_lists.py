"""Schedules as the dashboard lists them: what fires next comes first, and each with its latest runs."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Row, TextualSelect, and_, or_, select, text, tuple_

from scheduler_app.extensions import db
from scheduler_app.models import Task, TaskSchedule
from scheduler_app.services import callers, counts, schedulers

RUNS = 10  # of each schedule

Cursor = tuple[datetime | None, int]  # next_run_at and id of the last schedule of the page before

SHOWN = ("task_id", "task_schedule_id", "operation", "status", "scheduled_for", "started_at", "finished_at")
NEXT, ID = TaskSchedule.next_run_at, TaskSchedule.task_schedule_id


class State(StrEnum):
    ALL = "all"
    LATE = "late"  # its time has passed, and no scheduler has acted on it
    PAUSED = "paused"
    ENDED = "ended"  # it never fires again


def find(
    *, now: datetime, limit: int, words: str = "", state: State = State.ALL, cursor: Cursor | None = None
) -> tuple[Sequence[TaskSchedule], Cursor | None]:
    """A page of schedules, the next to fire first and those without a next time last; and the next page's cursor.

    `words` are looked for in their names and operations; a number also as their id.
    """
    query = select(TaskSchedule).where(*_conditions(words, state, now))
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


def count(*, now: datetime, words: str = "", state: State = State.ALL) -> int:
    """How many there are, counts.MOST at most."""
    return counts.capped(select(ID).where(*_conditions(words, state, now)))


def late_by(schedule: TaskSchedule, now: datetime) -> timedelta | None:
    """For how long a schedule has been due; None when that is no longer than usual."""
    due = schedule.next_run_at
    return now - due if due is not None and due < schedulers.late_before(now) else None


def latest_runs(task_schedule_ids: Sequence[int]) -> dict[int, list[Row[Any]]]:
    """The latest tasks of each of these schedules, the newest first, in one statement.

    Of the latest RUNS of a schedule, those that the caller does not reach are left out.
    """
    runs: dict[int, list[Row[Any]]] = defaultdict(list)
    if task_schedule_ids:
        numbered = {f"id{number}": value for number, value in enumerate(task_schedule_ids)}
        found = db.session.execute(_latest(len(numbered)), numbered)
        for run in sorted(found, key=lambda run: run.scheduled_for, reverse=True):
            if not callers.wrong_reach(run.operation):
                runs[run.task_schedule_id].append(run)
    return runs


@cache
def _latest(number: int) -> TextualSelect:
    """A part for each schedule, which reads at most RUNS rows of the index. SQLite has no LATERAL.

    Written as text: to build as many parts from objects takes ten times as long as the database does.
    """
    parts = (
        f"SELECT * FROM (SELECT {', '.join(SHOWN)} FROM task WHERE task_schedule_id = :id{part}"  # noqa: S608
        f" ORDER BY scheduled_for DESC LIMIT {RUNS}) AS part{part}"
        for part in range(number)
    )
    return text(" UNION ALL ".join(parts)).columns(*(Task.__table__.c[name] for name in SHOWN))


def _conditions(words: str, state: State, now: datetime) -> list[ColumnElement[bool]]:
    conditions = callers.within_reach(TaskSchedule.operation)
    if words:
        either = [column.icontains(words, autoescape=True) for column in (TaskSchedule.name, TaskSchedule.operation)]
        if words.isdecimal() and words.isascii() and len(words) < 19:
            either.append(ID.in_([int(words)]))
        conditions.append(or_(*either))
    if state == State.LATE:
        conditions.append(schedulers.late_before(now) > NEXT)
    if state == State.PAUSED:
        conditions.append(TaskSchedule.paused.is_(True))
    if state == State.ENDED:
        conditions.append(and_(NEXT.is_(None), ~TaskSchedule.paused))
    return conditions
