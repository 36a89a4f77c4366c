"""Creates the tasks of the schedules that are due. The scheduler calls this."""

import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import Integer, Row, Select, Update, bindparam, select, update

from scheduler_app.database import as_table, begin_write, parameters
from scheduler_app.database.columns import ID, UTCDateTime
from scheduler_app.extensions import db
from scheduler_app.models import LeftOut, Overlap, Task, TaskSchedule
from scheduler_app.services import control, dispatch, left_out
from scheduler_app.services.occurrences import create_tasks
from scheduler_app.services.schedule_policies import Decision, decide
from scheduler_app.services.task_schedules import remaining, rule_of

log = logging.getLogger(__name__)

READ = (  # what a decision depends on, and what it changes
    *("task_schedule_id", "timezone", "every_x_days", "every_x_hours", "every_x_minutes", "cron", "rrule", "anchor_at"),
    *("end_at", "schedule_x_times", "times_scheduled", "overlap", "catch_up", "catch_up_window", "next_run_at"),
    *("last_run_at", "missed", "skipped", "left_out_rows", "expires_in", "jitter", "overlap_max"),
)
ADVANCED = {"id": ID, "next_run_at": UTCDateTime(), "last_run_at": UTCDateTime(), "times_scheduled": Integer()}

Decided = Sequence[tuple[Row[Any], Decision]]


def fire_due(*, now: datetime, limit: int = 500) -> list[timedelta]:
    """Creates the tasks of due schedules, in one transaction. Returns how late each of these schedules was.

    Any number of schedulers may do so at once. Each takes schedules that no other has locked, and a time that already
    has its task gets no second one.
    """
    begin_write()
    schedules = db.session.connection().execute(_due(now, limit)).all()
    if not schedules:
        db.session.rollback()
        return []
    unfinished = _unfinished(schedules)
    decided = [(schedule, _decide(schedule, unfinished, now)) for schedule in schedules]
    _cancel_previous(decided, unfinished, now)
    occurrences = [(schedule, moment) for schedule, decision in decided for moment in decision.create]
    jittered = any(schedule.jitter for schedule, _ in occurrences)
    tasks = create_tasks(occurrences, now=now, jittered=jittered)
    _advance(decided, Counter(task.task_schedule_id for task in tasks), now)
    _record(decided, now)
    db.session.commit()
    dispatch.publish([task for task in tasks if task.run_at <= now] if jittered else tasks)
    return [now - schedule.next_run_at for schedule in schedules]


def _due(now: datetime, limit: int) -> Select[Any]:
    columns = TaskSchedule.__table__.c
    query = select(*(columns[name] for name in READ)).where(TaskSchedule.next_run_at <= now)
    return query.order_by(TaskSchedule.next_run_at).limit(limit).with_for_update(skip_locked=True)


def _unfinished(schedules: Sequence[Row[Any]]) -> dict[int, list[int]]:
    """The unfinished tasks, by schedule, of those schedules whose `overlap` depends on them."""
    caring = [schedule.task_schedule_id for schedule in schedules if schedule.overlap != Overlap.ALLOW]
    found: dict[int, list[int]] = defaultdict(list)
    if caring:
        query = select(Task.task_schedule_id, Task.task_id).where(Task.task_schedule_id.in_(caring))
        for task in db.session.execute(query.where(Task.finished_at.is_(None))):
            found[task.task_schedule_id].append(task.task_id)
    return found


def _decide(schedule: Row[Any], unfinished: dict[int, list[int]], now: datetime) -> Decision:
    """Pauses a schedule whose rule can't be evaluated, so that it does not delay the others."""
    try:
        count = len(unfinished.get(schedule.task_schedule_id, ()))
        return decide(schedule, rule_of(schedule), unfinished=count, now=now)
    except Exception as error:
        log.exception("task schedule %d is paused: its rule cannot be evaluated", schedule.task_schedule_id)
        held = [(schedule.next_run_at, LeftOut.PAUSED)]
        return Decision([], held, None, f"Its rule cannot be evaluated: {error!r}"[:500])


def _cancel_previous(decided: Decided, unfinished: dict[int, list[int]], now: datetime) -> None:
    previous = [
        task_id
        for schedule, decision in decided
        if schedule.overlap == Overlap.CANCEL_PREVIOUS and decision.create
        for task_id in unfinished.get(schedule.task_schedule_id, ())
    ]
    if previous:
        control.cancel_all(previous, now=now)


def _advance(decided: Decided, created: Counter[int], now: datetime) -> None:
    rows = [_advanced(schedule, decision, created[schedule.task_schedule_id]) for schedule, decision in decided]
    statement = _advancement(db.engine.dialect.name)
    db.session.connection().execute(statement, parameters(ADVANCED, rows) | {"now": now})


@cache
def _advancement(dialect: str) -> Update:
    new = as_table(ADVANCED)
    values = {name: new.c[name] for name in ADVANCED if name != "id"}
    table = update(TaskSchedule.__table__)  # type: ignore[arg-type]
    now = bindparam("now", type_=UTCDateTime())
    return table.where(TaskSchedule.task_schedule_id == new.c.id).values(checked_scheduling_at=now, **values)


def _advanced(
    schedule: Row[Any], decision: Decision, created: int
) -> tuple[int, datetime | None, datetime | None, int]:
    left = remaining(schedule)
    over = left is not None and created >= left
    return (
        schedule.task_schedule_id,
        None if over else decision.next_run_at,
        max(decision.create, default=schedule.last_run_at),
        schedule.times_scheduled + created,
    )


def _record(decided: Decided, now: datetime) -> None:
    """Records what did not go as planned: times left out, and rules that can't be evaluated."""
    unplanned = [(schedule, decision) for schedule, decision in decided if decision.left_out or decision.problem]
    if not unplanned:
        return
    stretches = [left_out.stretches(decision.left_out) for _, decision in unplanned]
    left_out.record(zip((schedule for schedule, _ in unplanned), stretches, strict=True), now=now)
    names = ("missed", "skipped", "left_out_rows", "paused", "pause_note")
    statement = (
        update(TaskSchedule.__table__)  # type: ignore[arg-type]
        .where(TaskSchedule.task_schedule_id == bindparam("id"))
        .values({name: bindparam(f"new_{name}") for name in names})
    )
    rows = [
        _recorded(schedule, decision, len(written))
        for (schedule, decision), written in zip(unplanned, stretches, strict=True)
    ]
    db.session.connection().execute(statement, rows)


def _recorded(schedule: Row[Any], decision: Decision, written: int) -> dict[str, Any]:
    reasons = Counter(reason for _, reason in decision.left_out)
    return {
        "id": schedule.task_schedule_id,
        "new_missed": schedule.missed + reasons[LeftOut.SUPERSEDED] + reasons[LeftOut.TOO_LATE],
        "new_skipped": schedule.skipped + reasons[LeftOut.OVERLAP],
        "new_left_out_rows": schedule.left_out_rows + written,
        "new_paused": decision.problem is not None,
        "new_pause_note": decision.problem,
    }
