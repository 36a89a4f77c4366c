"""Schedules for the tests: made by the service, looked at in the database."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select

from scheduler_app.extensions import db
from scheduler_app.models import Task, TaskSchedule
from scheduler_app.services import task_schedules

NOON = datetime(2040, 6, 1, 12, tzinfo=UTC)  # a Friday
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def create(*, now: datetime = NOON, **fields: Any) -> int:
    work = {"operation": "calculate", "params": {"expression": "1+1"}, "priority": 5, "max_retries": 5}
    return task_schedules.create(now=now, **work | fields).task_schedule_id


def look(schedule_id: int) -> TaskSchedule:
    db.session.rollback()
    db.session.expire_all()
    return task_schedules.get(schedule_id)


def next_run_at(schedule_id: int) -> datetime | None:
    return look(schedule_id).next_run_at


def tasks_of(schedule_id: int) -> list[Task]:
    db.session.rollback()
    db.session.expire_all()
    query = select(Task).where(Task.task_schedule_id == schedule_id).order_by(Task.scheduled_for)
    return list(db.session.scalars(query))


def fired(schedule_id: int) -> list[datetime | None]:
    return [task.scheduled_for for task in tasks_of(schedule_id)]
