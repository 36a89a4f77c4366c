"""The policies of a schedule for times that are late (`catch_up`) and times that meet an earlier task (`overlap`).

Pure functions: no database.
"""

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Row

from scheduler_app import recurrence
from scheduler_app.models import CatchUp, LeftOut, Overlap
from scheduler_app.recurrence import Rule
from scheduler_app.services.task_schedules import remaining

ON_TIME = timedelta(seconds=60)  # later than this it is missed; rules fire once a minute at most
MAX_TIMES = 1_000  # of one schedule, looked at in one pass; the next pass goes on from there
MAX_TASKS = 20  # of one schedule, created in one pass

Omission = tuple[datetime, LeftOut]


class Decision(NamedTuple):
    create: list[datetime]  # the times that become tasks
    left_out: list[Omission]  # oldest first
    next_run_at: datetime | None
    problem: str | None = None  # why the schedule can't go on


def decide(schedule: Row[Any], rule: Rule, *, busy: bool, now: datetime) -> Decision:
    """For a schedule that is due; busy: a task of it has not finished."""
    due, following = _due(rule, schedule.next_run_at, now)
    wanted, missed = _catch_up(schedule, due, following, now)
    limit = min(MAX_TASKS, remaining(schedule) or MAX_TASKS)
    if len(wanted) > limit:
        wanted, following = wanted[:limit], wanted[limit]
    create, skipped = _overlap(schedule.overlap, wanted, busy)
    return Decision(create, missed + [(moment, LeftOut.OVERLAP) for moment in skipped], following)


def _due(rule: Rule, first: datetime, now: datetime) -> tuple[list[datetime], datetime | None]:
    """The times from first to now, and the one that follows on them."""
    due, following = [first], recurrence.next_after(rule, first)
    if following and following <= now:
        due += recurrence.between(rule, following, now + timedelta.resolution, MAX_TIMES)
        following = recurrence.next_after(rule, due[-1])
    return due, following


def _catch_up(
    schedule: Row[Any], due: list[datetime], following: datetime | None, now: datetime
) -> tuple[list[datetime], list[Omission]]:
    """The times that become tasks as far as catch-up is concerned, and those that it leaves out."""
    window = ON_TIME if schedule.catch_up == CatchUp.NONE else timedelta(seconds=schedule.catch_up_window)
    too_late = [moment for moment in due if moment < now - window]
    wanted = [moment for moment in due if moment >= now - window]
    superseded: list[datetime] = []
    if schedule.catch_up == CatchUp.LATEST:
        # While more times are due than one pass looks at, the newest of them is still to come.
        newest_is_here = following is None or following > now
        keep = 1 if newest_is_here and wanted else 0
        wanted, superseded = wanted[len(wanted) - keep :], wanted[: len(wanted) - keep]
    left_out = [(moment, LeftOut.TOO_LATE) for moment in too_late]
    return wanted, left_out + [(moment, LeftOut.SUPERSEDED) for moment in superseded]


def _overlap(overlap: str, wanted: list[datetime], busy: bool) -> tuple[list[datetime], list[datetime]]:
    """What is created and what is skipped, as if each time had come on its own."""
    if overlap == Overlap.SKIP:
        first = 0 if busy else 1
        return wanted[:first], wanted[first:]
    if overlap == Overlap.CANCEL_PREVIOUS:
        return wanted[-1:], wanted[:-1]
    return wanted, []
