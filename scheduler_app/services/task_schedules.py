"""Schedules: kept here, and fired when their time has come."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Row, bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite

from scheduler_app import recurrence
from scheduler_app.database import begin_write
from scheduler_app.errors import Invalid, TaskScheduleNotFound
from scheduler_app.extensions import db
from scheduler_app.models import Status, Task, TaskSchedule
from scheduler_app.recurrence import Rule
from scheduler_app.services import dispatch

RULE_FIELDS = ("every_x_days", "every_x_hours", "start_at")
LATEST_TASKS = 10


def create(*, now: datetime, **fields: Any) -> TaskSchedule:
    """The first task is due at start_at, or at once."""
    schedule = TaskSchedule(created_at=now, anchor_at=fields.get("start_at") or now, times_scheduled=0, **fields)
    _check(schedule)
    schedule.next_run_at = recurrence.next_after(_rule(schedule), schedule.anchor_at - timedelta.resolution)
    db.session.add(schedule)
    db.session.commit()
    return schedule


def get(task_schedule_id: int) -> TaskSchedule:
    schedule = db.session.get(TaskSchedule, task_schedule_id)
    if schedule is None:
        raise TaskScheduleNotFound(task_schedule_id)
    return schedule


def latest_tasks(task_schedule_id: int) -> Sequence[Task]:
    """The tasks that it created last, newest first."""
    query = select(Task).where(Task.task_schedule_id == task_schedule_id)
    return db.session.scalars(query.order_by(Task.scheduled_for.desc()).limit(LATEST_TASKS)).all()


def find(*, limit: int, cursor: int | None = None) -> tuple[Sequence[TaskSchedule], int | None]:
    """A page of schedules, newest first, and the cursor of the next page if there is one."""
    query = select(TaskSchedule).order_by(TaskSchedule.task_schedule_id.desc()).limit(limit + 1)
    if cursor is not None:
        query = query.where(TaskSchedule.task_schedule_id < cursor)
    schedules = db.session.scalars(query).all()
    return schedules[:limit], schedules[limit - 1].task_schedule_id if len(schedules) > limit else None


def change(task_schedule_id: int, *, now: datetime, **fields: Any) -> TaskSchedule:
    """A changed rule counts from now: it neither makes up for the past nor fires twice."""
    begin_write()
    schedule = get(task_schedule_id)
    before = [getattr(schedule, name) for name in RULE_FIELDS]
    for name, value in fields.items():
        setattr(schedule, name, value)
    _check(schedule)
    rule_changed = before != [getattr(schedule, name) for name in RULE_FIELDS]
    if rule_changed:
        schedule.anchor_at = max(now, schedule.start_at or now)
    if rule_changed or schedule.next_run_at is None:
        schedule.next_run_at = recurrence.next_after(_rule(schedule), now)
    if _is_over(schedule):
        schedule.next_run_at = None
    db.session.commit()
    return schedule


def remove(task_schedule_id: int) -> None:
    """Its tasks stay, without schedule."""
    db.session.delete(get(task_schedule_id))
    db.session.commit()


def fire_due(*, now: datetime, limit: int = 500) -> int:
    """Creates the tasks of the schedules that are due, in one transaction; returns how many schedules it fired.

    Any number of schedulers may do so at once: each takes schedules that no other has locked, and an occurrence that
    has its task already gets no second one.
    """
    begin_write()
    schedules = db.session.execute(_due(now, limit)).all()
    if not schedules:
        db.session.rollback()
        return 0
    occurrences = [_occurrence(schedule, now) for schedule in schedules]
    tasks = _create_tasks(occurrences, now)
    _advance(occurrences, now)
    db.session.commit()
    dispatch.publish(tasks)
    return len(schedules)


class Occurrence(NamedTuple):
    """The time for which a schedule fires now, and when it fires next."""

    schedule: Row[Any]
    scheduled_for: datetime
    next_run_at: datetime | None


def _due(now: datetime, limit: int) -> Any:
    query = select(*TaskSchedule.__table__.c).where(TaskSchedule.next_run_at <= now)
    return query.order_by(TaskSchedule.next_run_at).limit(limit).with_for_update(skip_locked=True)


def _occurrence(schedule: Row[Any], now: datetime) -> Occurrence:
    # Of the times that were missed only the newest becomes a task.
    rule = _rule(schedule)
    newest, _ = recurrence.latest(rule, schedule.next_run_at, now)
    used_up = schedule.schedule_x_times is not None and schedule.times_scheduled + 1 >= schedule.schedule_x_times
    return Occurrence(schedule, newest or schedule.next_run_at, None if used_up else recurrence.next_after(rule, now))


def _create_tasks(occurrences: Sequence[Occurrence], now: datetime) -> list[Row[Any]]:
    insert = postgresql.insert if db.engine.dialect.name == "postgresql" else sqlite.insert
    statement = insert(Task).on_conflict_do_nothing(index_elements=["task_schedule_id", "scheduled_for"])
    rows = [_task(occurrence, now) for occurrence in occurrences]
    returned = (Task.task_id, Task.claims, Task.operation, Task.priority)
    return list(db.session.execute(statement.returning(*returned), rows))


def _task(occurrence: Occurrence, now: datetime) -> dict[str, Any]:
    copied = {name: getattr(occurrence.schedule, name) for name in ("operation", "params", "priority", "max_retries")}
    return copied | {
        "task_schedule_id": occurrence.schedule.task_schedule_id,
        "scheduled_for": occurrence.scheduled_for,
        "status": Status.PENDING,
        "run_at": now,
        "created_at": now,
    }


def _advance(occurrences: Sequence[Occurrence], now: datetime) -> None:
    statement = (
        update(TaskSchedule.__table__)  # type: ignore[arg-type]
        .where(TaskSchedule.task_schedule_id == bindparam("fired_id"))
        .values(
            next_run_at=bindparam("next_time"),
            last_run_at=bindparam("fired_for"),
            times_scheduled=TaskSchedule.times_scheduled + 1,
            checked_scheduling_at=now,
        )
    )
    rows = [
        {"fired_id": o.schedule.task_schedule_id, "next_time": o.next_run_at, "fired_for": o.scheduled_for}
        for o in occurrences
    ]
    db.session.connection().execute(statement, rows)


def _rule(schedule: TaskSchedule | Row[Any]) -> Rule:
    every = recurrence.interval(schedule.every_x_days, schedule.every_x_hours)
    return Rule(every=every, anchor=schedule.anchor_at, until=schedule.end_at)


def _check(schedule: TaskSchedule) -> None:
    if schedule.every_x_days is None and schedule.every_x_hours is None:
        message = "Needed: every_x_days, every_x_hours or both."
        raise Invalid("A schedule needs a rule.", {"json": {"every_x_hours": [message]}})
    if schedule.end_at and schedule.end_at < (schedule.start_at or schedule.end_at):
        raise Invalid("A schedule ends after it starts.", {"json": {"end_at": ["Must not be before start_at."]}})


def _is_over(schedule: TaskSchedule) -> bool:
    used_up = schedule.schedule_x_times is not None and schedule.times_scheduled >= schedule.schedule_x_times
    past_end = bool(schedule.end_at and schedule.next_run_at and schedule.next_run_at > schedule.end_at)
    return used_up or past_end
