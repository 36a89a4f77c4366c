"""Schedules: kept, changed, paused. Time is passed in."""

import threading
from datetime import timedelta

import pytest
from flask import Flask
from sqlalchemy import func, select

from scheduler_app.extensions import db
from scheduler_app.models import Task, TaskSchedule
from scheduler_app.services import task_schedules
from scheduler_app.services.firing import fire_due
from tests.support.schedules import DAY, HOUR, MINUTE, NOON, create, fired, look, next_run_at

pytestmark = pytest.mark.usefixtures("context")


def test_the_first_task_is_due_at_once_and_the_next_an_interval_later(app: Flask) -> None:
    schedule = create(every_x_hours=1)
    assert len(fire_due(now=NOON)) == 1
    assert fire_due(now=NOON + HOUR - timedelta(seconds=1)) == []
    assert fired(schedule) == [NOON]
    assert next_run_at(schedule) == NOON + HOUR


def test_the_first_task_is_due_at_start_at(app: Flask) -> None:
    schedule = create(every_x_hours=1, start_at=NOON + 10 * HOUR)
    assert fire_due(now=NOON + 9 * HOUR) == []
    assert next_run_at(schedule) == NOON + 10 * HOUR


def test_late_scans_do_not_make_it_drift(app: Flask) -> None:
    schedule = create(every_x_hours=1)
    for hour in range(5):
        fire_due(now=NOON + hour * HOUR + timedelta(minutes=7, seconds=hour))
    assert fired(schedule) == [NOON + hour * HOUR for hour in range(5)]


def test_with_days_and_hours_the_longer_counts(app: Flask) -> None:
    for days, hours, expected in ((1, 5, 24), (1, 36, 36), (None, 7, 7), (2, None, 48)):
        schedule = create(every_x_days=days, every_x_hours=hours)
        fire_due(now=NOON)
        assert next_run_at(schedule) == NOON + expected * HOUR


def test_of_many_missed_times_only_the_newest_becomes_a_task(app: Flask) -> None:
    schedule = create(every_x_hours=1)
    assert len(fire_due(now=NOON + 5.5 * HOUR)) == 1
    assert fired(schedule) == [NOON + 5 * HOUR]
    assert next_run_at(schedule) == NOON + 6 * HOUR


def test_it_stops_after_schedule_x_times(app: Flask) -> None:
    schedule = create(every_x_hours=1, schedule_x_times=2)
    for hour in range(4):
        fire_due(now=NOON + hour * HOUR)
    assert fired(schedule) == [NOON, NOON + HOUR]
    assert next_run_at(schedule) is None
    assert task_schedules.get(schedule).times_scheduled == 2


def test_it_fires_at_end_at_and_not_later(app: Flask) -> None:
    schedule = create(every_x_hours=1, end_at=NOON + HOUR)
    for hour in range(4):
        fire_due(now=NOON + hour * HOUR)
    assert fired(schedule) == [NOON, NOON + HOUR]
    assert next_run_at(schedule) is None


def test_a_task_carries_what_the_schedule_says(app: Flask) -> None:
    schedule = create(every_x_hours=1, priority=2, max_retries=0)
    fire_due(now=NOON)
    [task] = task_schedules.latest_tasks(schedule, limit=10)
    assert (task.operation, task.params, task.priority, task.max_retries) == ("calculate", {"expression": "1+1"}, 2, 0)
    assert (task.scheduled_for, task.run_at, task.status) == (NOON, NOON, "PENDING")


def test_a_changed_interval_counts_from_now(app: Flask) -> None:
    schedule = create(every_x_hours=10)
    fire_due(now=NOON)
    later = NOON + 3.5 * HOUR
    task_schedules.change(schedule, now=later, every_x_hours=1)
    assert fire_due(now=later) == []
    assert next_run_at(schedule) == later + HOUR


def test_a_change_beside_the_rule_leaves_the_next_time(app: Flask) -> None:
    schedule = create(every_x_hours=10)
    fire_due(now=NOON)
    task_schedules.change(schedule, now=NOON + HOUR, priority=1, every_x_hours=10, schedule_x_times=5)
    assert next_run_at(schedule) == NOON + 10 * HOUR


def test_more_times_wake_a_schedule_that_was_over(app: Flask) -> None:
    schedule = create(every_x_hours=1, schedule_x_times=1)
    fire_due(now=NOON)
    task_schedules.change(schedule, now=NOON + 5.5 * HOUR, schedule_x_times=2)
    assert next_run_at(schedule) == NOON + 6 * HOUR


def test_an_end_that_has_passed_ends_it(app: Flask) -> None:
    schedule = create(every_x_hours=1)
    fire_due(now=NOON)
    task_schedules.change(schedule, now=NOON + timedelta(minutes=5), end_at=NOON + timedelta(minutes=10))
    assert next_run_at(schedule) is None


def test_two_schedulers_at_once_fire_each_time_once(app: Flask) -> None:
    for _ in range(200):
        create(every_x_hours=1)
    counts: list[int] = []

    def scan() -> None:
        with app.app_context():
            while fired := fire_due(now=NOON, limit=20):
                counts.append(len(fired))

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
    fire_due(now=NOON)
    db.session.execute(TaskSchedule.__table__.update().values(next_run_at=NOON))
    db.session.commit()
    fire_due(now=NOON)
    assert fired(schedule) == [NOON]


def test_cron_is_read_in_the_schedules_zone(app: Flask) -> None:
    schedule = create(cron="30 7 * * *", timezone="Europe/Bucharest")
    assert next_run_at(schedule) == NOON.replace(day=2, hour=4, minute=30)


def test_rrule_is_counted_from_start_at(app: Flask) -> None:
    schedule = create(rrule="FREQ=WEEKLY;INTERVAL=2;COUNT=2", start_at=NOON - 10 * DAY)
    assert next_run_at(schedule) == NOON + 4 * DAY
    fire_due(now=NOON + 4 * DAY)
    assert next_run_at(schedule) is None


def test_a_start_in_the_past_is_not_caught_up(app: Flask) -> None:
    schedule = create(every_x_hours=1, start_at=NOON - 100.5 * HOUR)
    assert next_run_at(schedule) == NOON + 0.5 * HOUR


def test_another_kind_of_rule_takes_effect_from_now(app: Flask) -> None:
    schedule = create(every_x_hours=1)
    fire_due(now=NOON)
    task_schedules.change(schedule, now=NOON + 90 * MINUTE, every_x_hours=None, cron="0 * * * *")
    assert next_run_at(schedule) == NOON + 2 * HOUR
    fire_due(now=NOON + 2 * HOUR)
    assert fired(schedule) == [NOON, NOON + 2 * HOUR]


def test_a_changed_rule_never_fires_a_time_twice(app: Flask) -> None:
    schedule = create(cron="0 * * * *")
    fire_due(now=NOON)
    # The clock of the web process is behind the scheduler's.
    task_schedules.change(schedule, now=NOON - MINUTE, cron="*/30 * * * *")
    assert next_run_at(schedule) == NOON + 30 * MINUTE


def test_a_changed_rule_never_fires_in_the_past(app: Flask) -> None:
    schedule = create(cron="0 * * * *", catch_up="all")
    fire_due(now=NOON)
    later = NOON + 5 * HOUR + MINUTE  # five times are due, and not yet fired
    task_schedules.change(schedule, now=later, timezone="Asia/Kathmandu")
    assert fire_due(now=later) == []
    assert next_run_at(schedule) == NOON + 5 * HOUR + 15 * MINUTE


def test_a_paused_schedule_does_not_fire_and_goes_on_from_its_resumption(app: Flask) -> None:
    schedule = create(every_x_hours=1, catch_up="all")
    fire_due(now=NOON)
    task_schedules.pause(schedule, note="a holiday", now=NOON)
    assert look(schedule).pause_note == "a holiday"
    assert fire_due(now=NOON + 5 * HOUR) == []
    task_schedules.resume(schedule, now=NOON + 5.5 * HOUR)
    fire_due(now=NOON + 6 * HOUR)
    assert fired(schedule) == [NOON, NOON + 6 * HOUR]
    assert (look(schedule).paused, look(schedule).pause_note, look(schedule).missed) == (False, None, 0)


def test_resuming_what_is_not_paused_changes_nothing(app: Flask) -> None:
    schedule = create(every_x_hours=1)
    task_schedules.resume(schedule, now=NOON + 3 * HOUR)
    assert next_run_at(schedule) == NOON


def test_a_change_does_not_wake_a_paused_schedule(app: Flask) -> None:
    schedule = create(every_x_hours=1)
    task_schedules.pause(schedule, now=NOON)
    task_schedules.change(schedule, now=NOON, every_x_hours=2)
    assert next_run_at(schedule) is None
    task_schedules.resume(schedule, now=NOON)
    assert next_run_at(schedule) == NOON + 2 * HOUR
