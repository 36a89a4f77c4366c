"""Schedules by interval: kept, changed and fired. Time is passed in."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import func, select

from scheduler_app.extensions import db
from scheduler_app.models import Task, TaskSchedule
from scheduler_app.services import task_schedules

pytestmark = pytest.mark.usefixtures("context")

NOON = datetime(2040, 6, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def create(*, now: datetime = NOON, **fields: Any) -> int:
    work = {"operation": "calculate", "params": {"expression": "1+1"}, "priority": 5, "max_retries": 5}
    return task_schedules.create(now=now, **work | fields).task_schedule_id


def fired(schedule_id: int) -> list[datetime | None]:
    query = select(Task.scheduled_for).where(Task.task_schedule_id == schedule_id).order_by(Task.scheduled_for)
    return list(db.session.scalars(query))


def next_run_at(schedule_id: int) -> datetime | None:
    db.session.expire_all()
    return task_schedules.get(schedule_id).next_run_at


def test_the_first_task_is_due_at_once_and_the_next_an_interval_later(app: Flask) -> None:
    schedule = create(every_x_hours=1)
    assert task_schedules.fire_due(now=NOON) == 1
    assert task_schedules.fire_due(now=NOON + HOUR - timedelta(seconds=1)) == 0
    assert fired(schedule) == [NOON]
    assert next_run_at(schedule) == NOON + HOUR


def test_the_first_task_is_due_at_start_at(app: Flask) -> None:
    schedule = create(every_x_hours=1, start_at=NOON + 10 * HOUR)
    assert task_schedules.fire_due(now=NOON + 9 * HOUR) == 0
    assert next_run_at(schedule) == NOON + 10 * HOUR


def test_late_scans_do_not_make_it_drift(app: Flask) -> None:
    schedule = create(every_x_hours=1)
    for hour in range(5):
        task_schedules.fire_due(now=NOON + hour * HOUR + timedelta(minutes=7, seconds=hour))
    assert fired(schedule) == [NOON + hour * HOUR for hour in range(5)]


def test_with_days_and_hours_the_longer_counts(app: Flask) -> None:
    for days, hours, expected in ((1, 5, 24), (1, 36, 36), (None, 7, 7), (2, None, 48)):
        schedule = create(every_x_days=days, every_x_hours=hours)
        task_schedules.fire_due(now=NOON)
        assert next_run_at(schedule) == NOON + expected * HOUR


def test_of_many_missed_times_only_the_newest_becomes_a_task(app: Flask) -> None:
    schedule = create(every_x_hours=1)
    assert task_schedules.fire_due(now=NOON + 5.5 * HOUR) == 1
    assert fired(schedule) == [NOON + 5 * HOUR]
    assert next_run_at(schedule) == NOON + 6 * HOUR


def test_it_stops_after_schedule_x_times(app: Flask) -> None:
    schedule = create(every_x_hours=1, schedule_x_times=2)
    for hour in range(4):
        task_schedules.fire_due(now=NOON + hour * HOUR)
    assert fired(schedule) == [NOON, NOON + HOUR]
    assert next_run_at(schedule) is None
    assert task_schedules.get(schedule).times_scheduled == 2


def test_it_fires_at_end_at_and_not_later(app: Flask) -> None:
    schedule = create(every_x_hours=1, end_at=NOON + HOUR)
    for hour in range(4):
        task_schedules.fire_due(now=NOON + hour * HOUR)
    assert fired(schedule) == [NOON, NOON + HOUR]
    assert next_run_at(schedule) is None


def test_a_task_carries_what_the_schedule_says(app: Flask) -> None:
    schedule = create(every_x_hours=1, priority=2, max_retries=0)
    task_schedules.fire_due(now=NOON)
    [task] = task_schedules.latest_tasks(schedule)
    assert (task.operation, task.params, task.priority, task.max_retries) == ("calculate", {"expression": "1+1"}, 2, 0)
    assert (task.scheduled_for, task.run_at, task.status) == (NOON, NOON, "PENDING")


def test_a_changed_interval_counts_from_now(app: Flask) -> None:
    schedule = create(every_x_hours=10)
    task_schedules.fire_due(now=NOON)
    later = NOON + 3.5 * HOUR
    task_schedules.change(schedule, now=later, every_x_hours=1)
    assert task_schedules.fire_due(now=later) == 0
    assert next_run_at(schedule) == later + HOUR


def test_a_change_beside_the_rule_leaves_the_next_time(app: Flask) -> None:
    schedule = create(every_x_hours=10)
    task_schedules.fire_due(now=NOON)
    task_schedules.change(schedule, now=NOON + HOUR, priority=1, every_x_hours=10, schedule_x_times=5)
    assert next_run_at(schedule) == NOON + 10 * HOUR


def test_more_times_wake_a_schedule_that_was_over(app: Flask) -> None:
    schedule = create(every_x_hours=1, schedule_x_times=1)
    task_schedules.fire_due(now=NOON)
    task_schedules.change(schedule, now=NOON + 5.5 * HOUR, schedule_x_times=2)
    assert next_run_at(schedule) == NOON + 6 * HOUR


def test_an_end_that_has_passed_ends_it(app: Flask) -> None:
    schedule = create(every_x_hours=1)
    task_schedules.fire_due(now=NOON)
    task_schedules.change(schedule, now=NOON + timedelta(minutes=5), end_at=NOON + timedelta(minutes=10))
    assert next_run_at(schedule) is None


def test_two_schedulers_at_once_fire_each_time_once(app: Flask) -> None:
    for _ in range(200):
        create(every_x_hours=1)
    counts: list[int] = []

    def scan() -> None:
        with app.app_context():
            while count := task_schedules.fire_due(now=NOON, limit=20):
                counts.append(count)

    threads = [threading.Thread(target=scan) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    db.session.rollback()  # what it has read until now is older
    assert sum(counts) == 200
    assert db.session.scalar(select(func.count()).select_from(Task)) == 200
    assert db.session.scalar(select(func.sum(TaskSchedule.times_scheduled))) == 200


def test_a_time_that_has_its_task_gets_no_second_one(app: Flask) -> None:
    schedule = create(every_x_hours=1)
    task_schedules.fire_due(now=NOON)
    db.session.execute(TaskSchedule.__table__.update().values(next_run_at=NOON))
    db.session.commit()
    task_schedules.fire_due(now=NOON)
    assert fired(schedule) == [NOON]
