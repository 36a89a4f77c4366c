"""The policies of a schedule: for late times (`catch_up`) and for times at which a task still runs (`overlap`).

Pure functions: no database.
"""

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Row

from scheduler_app import recurrence
from scheduler_app.models import CatchUp, LeftOut, Overlap
from scheduler_app.recurrence import Rule
from scheduler_app.services.left_out import Omission
from scheduler_app.services.task_schedules import remaining

ON_TIME = timedelta(seconds=60)  # a time that is later than this is missed; rules fire at most once a minute
MAX_TIMES = 1_000  # times of one schedule that one pass looks at; the next pass goes on from there
MAX_TASKS = 20  # tasks of one schedule that one pass creates


class Decision(NamedTuple):
    create: list[datetime]  # the times that become tasks
    left_out: list[Omission]  # oldest first
    next_run_at: datetime | None
    problem: str | None = None  # why the schedule can't go on


def decide(schedule: Row[Any], rule: Rule, *, unfinished: int, now: datetime) -> Decision:
    """Decides for a schedule that is due. `unfinished` says how many of its tasks have not finished."""
    due, following = _due(rule, schedule.next_run_at, now)
    wanted, missed = _catch_up(schedule, due, following, now)
    limit = min(MAX_TASKS, remaining(schedule) or MAX_TASKS)
    if len(wanted) > limit:
        wanted, following = wanted[:limit], wanted[limit]
    create, skipped = _overlap(schedule, wanted, unfinished)
    return Decision(create, missed + [(moment, LeftOut.OVERLAP) for moment in skipped], following)


def _due(rule: Rule, first: datetime, now: datetime) -> tuple[list[datetime], datetime | None]:
    """The times from `first` to `now`, and the next one after them."""
    due, following = [first], recurrence.next_after(rule, first)
    if following and following <= now:
        due += recurrence.between(rule, following, now + timedelta.resolution, MAX_TIMES)
        following = recurrence.next_after(rule, due[-1])
    return due, following


def _catch_up(
    schedule: Row[Any], due: list[datetime], following: datetime | None, now: datetime
) -> tuple[list[datetime], list[Omission]]:
    """The times that catch-up lets become tasks, and those that it leaves out."""
    oldest = now - (ON_TIME if schedule.catch_up == CatchUp.NONE else timedelta(seconds=schedule.catch_up_window))
    too_late = [moment for moment in due if moment < oldest]
    wanted = due[len(too_late) :]
    superseded: list[datetime] = []
    if schedule.catch_up == CatchUp.LATEST:
        # While more times are due than one pass looks at, the newest of them is still to come.
        newest_is_here = following is None or following > now
        keep = 1 if newest_is_here and wanted else 0
        wanted, superseded = wanted[len(wanted) - keep :], wanted[: len(wanted) - keep]
    left_out = [(moment, LeftOut.TOO_LATE) for moment in too_late]
    return wanted, left_out + [(moment, LeftOut.SUPERSEDED) for moment in superseded]


def _overlap(schedule: Row[Any], wanted: list[datetime], unfinished: int) -> tuple[list[datetime], list[datetime]]:
    """The times to create and the times to skip, as if the times had come one by one."""
    if schedule.overlap in (Overlap.SKIP, Overlap.MAX):
        most = 1 if schedule.overlap == Overlap.SKIP else schedule.overlap_max
        room = max(most - unfinished, 0)
        return wanted[:room], wanted[room:]
    if schedule.overlap == Overlap.CANCEL_PREVIOUS:
        return wanted[-1:], wanted[:-1]
    return wanted, []
