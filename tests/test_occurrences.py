"""Trigger, upcoming, preview and backfill. Time is passed in."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text, update

from scheduler_app import recurrence
from scheduler_app.database import DIRECT
from scheduler_app.errors import Invalid
from scheduler_app.extensions import db
from scheduler_app.models import TaskSchedule
from scheduler_app.services import occurrences, task_schedules
from scheduler_app.services.firing import fire_due
from scheduler_app.services.occurrences import Time
from tests.support.schedules import DAY, HOUR, MINUTE, NOON, create, fired, look

pytestmark = pytest.mark.usefixtures("context")


def backfill(schedule_id: int, start: datetime, end: datetime, now: datetime = NOON) -> list[datetime | None]:
    tasks = occurrences.backfill(schedule_id, start=start, end=end, now=now)
    return [task.scheduled_for for task in tasks]


def utc(times: list[Time]) -> list[datetime]:
    return [time.utc for time in times]


def test_a_trigger_creates_a_task_beside_the_schedules_own(app: Flask) -> None:
    schedule = create(every_x_hours=1, schedule_x_times=1, overlap="skip")
    tasks = [occurrences.trigger(schedule, now=NOON) for _ in range(2)]
    assert [task.run_at for task in tasks] == [NOON, NOON]
    assert look(schedule).times_scheduled == 0
    assert look(schedule).next_run_at == NOON


def test_a_trigger_never_takes_the_place_of_a_due_time(app: Flask) -> None:
    schedule = create(every_x_hours=1)
    occurrences.trigger(schedule, now=NOON)
    fire_due(now=NOON)
    assert fired(schedule) == [NOON, NOON + timedelta(microseconds=1)]


def test_a_paused_schedule_can_be_triggered(app: Flask) -> None:
    schedule = create(every_x_hours=1)
    task_schedules.pause(schedule, now=NOON)
    assert occurrences.trigger(schedule, now=NOON).status == "PENDING"


def test_upcoming_shows_what_will_fire(app: Flask) -> None:
    schedule = create(cron="0 */6 * * *", schedule_x_times=4)
    shown = utc(occurrences.upcoming(schedule, limit=10))
    assert shown == [NOON + 6 * hour * HOUR for hour in range(4)]
    for time in shown:
        fire_due(now=time)
    assert fired(schedule) == shown
    assert occurrences.upcoming(schedule, limit=10) == []


def test_a_paused_schedule_has_nothing_upcoming(app: Flask) -> None:
    schedule = create(every_x_hours=1)
    task_schedules.pause(schedule, now=NOON)
    assert occurrences.upcoming(schedule, limit=10) == []


def test_a_preview_shows_both_clocks_across_their_change(app: Flask) -> None:
    before = datetime.fromisoformat("2030-03-29T12:00:00Z")
    times = occurrences.preview(now=before, limit=3, cron="30 3 * * *", timezone="Europe/Bucharest")
    assert [time.local.isoformat() for time in times] == [
        "2030-03-30T03:30:00+02:00",
        "2030-03-31T04:00:00+03:00",  # 03:30 does not exist
        "2030-04-01T03:30:00+03:00",
    ]
    assert utc(times)[0].isoformat() == "2030-03-30T01:30:00+00:00"
    assert [time.clock_change and time.clock_change.kind for time in times] == [None, "gap", None]


def compared(schedule: int, now: datetime, **change: Any) -> list[tuple[float, str | None]]:
    """Hours after noon, and what happens to each time."""
    times = occurrences.compare(schedule, now=now, limit=4, **change)
    return [((time.utc - NOON) / HOUR, fate) for time, fate in times]


def test_a_change_shows_which_times_go_and_which_come(app: Flask) -> None:
    schedule = create(cron="0 */2 * * *")
    shown = compared(schedule, NOON - MINUTE, cron="0 */3 * * *")
    assert shown == [(0, None), (2, "goes"), (3, "comes"), (4, "goes"), (6, None), (8, "goes"), (9, "comes")]
    assert compared(schedule, NOON - MINUTE, name="new") == [(0, None), (2, None), (4, None), (6, None)]
    assert look(schedule).cron == "0 */2 * * *"


def test_a_change_that_ends_a_schedule_shows_what_goes(app: Flask) -> None:
    schedule = create(every_x_hours=2)
    shown = compared(schedule, NOON, end_at=NOON + 3 * HOUR)
    assert shown == [(0, None), (2, None), (4, "goes"), (6, "goes")]
    task_schedules.pause(schedule, now=NOON)
    shown = compared(schedule, NOON, every_x_hours=4)
    assert shown == [(hour, "goes" if hour % 4 else None) for hour in range(2, 17, 2)]


def test_a_change_that_is_not_valid_is_refused(app: Flask) -> None:
    with pytest.raises(Invalid):
        compared(create(every_x_hours=2), NOON, start_at=NOON, end_at=NOON - HOUR)


def test_a_backfill_creates_the_times_that_have_no_task(app: Flask) -> None:
    schedule = create(every_x_hours=1, schedule_x_times=5)
    for hour in (0, 2):
        fire_due(now=NOON + hour * HOUR)
    later = NOON + 3 * HOUR
    assert backfill(schedule, NOON, later, now=later) == [NOON + HOUR]
    assert backfill(schedule, NOON, later, now=later) == []
    assert look(schedule).times_scheduled == 2
    assert look(schedule).next_run_at == later


def test_a_backfill_takes_the_start_and_not_the_end(app: Flask) -> None:
    schedule = create(every_x_hours=1, start_at=NOON - 10 * HOUR)
    assert backfill(schedule, NOON - 3 * HOUR, NOON) == [NOON - hour * HOUR for hour in (3, 2, 1)]


def test_a_backfill_computes_its_times_while_others_can_write(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = create(every_x_hours=1, start_at=NOON - DAY)
    between = recurrence.between

    def watched(*args: Any) -> list[datetime]:
        with db.engines[DIRECT].begin() as other:
            if other.dialect.name == "sqlite":
                other.exec_driver_sql("PRAGMA busy_timeout = 0")
            else:
                other.execute(text("SET lock_timeout = '1ms'"))
            other.execute(update(TaskSchedule).values(name="changed meanwhile"))
        return between(*args)

    monkeypatch.setattr(recurrence, "between", watched)
    assert len(backfill(schedule, NOON - 3 * HOUR, NOON)) == 3


def test_a_backfill_follows_a_rule_that_changes_while_its_times_are_computed(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = create(every_x_hours=1, start_at=NOON - DAY)
    between = recurrence.between
    changes = iter([True])

    def watched(*args: Any) -> list[datetime]:
        times = between(*args)
        if next(changes, False):
            with db.engines[DIRECT].begin() as other:
                other.execute(update(TaskSchedule).values(every_x_hours=2))
        return times

    monkeypatch.setattr(recurrence, "between", watched)
    assert len(backfill(schedule, NOON - 4 * HOUR, NOON)) == 2


def test_a_backfill_of_cron_may_reach_behind_the_schedules_creation(app: Flask) -> None:
    schedule = create(cron="0 0 * * *")
    assert backfill(schedule, NOON - 2 * DAY, NOON) == [NOON - 1.5 * DAY, NOON - 0.5 * DAY]
    started = create(cron="0 0 * * *", start_at=NOON - DAY)
    assert backfill(started, NOON - 2 * DAY, NOON) == [NOON - 0.5 * DAY]


@pytest.mark.parametrize(
    ("start", "end"),
    [(NOON - HOUR, NOON + MINUTE), (NOON, NOON), (NOON, NOON - HOUR), (NOON - 1000 * DAY, NOON)],
    ids=["in the future", "empty", "backwards", "too many"],
)
def test_a_backfill_is_of_a_bounded_stretch_of_the_past(app: Flask, start: datetime, end: datetime) -> None:
    schedule = create(cron="0 * * * *")
    with pytest.raises(Invalid) as refused:
        backfill(schedule, start, end)
    errors: dict[str, Any] = refused.value.errors or {}
    assert list(errors["json"]) == ["end"]
    assert fired(schedule) == []


def test_a_backfill_that_is_too_long_can_be_done_in_parts(app: Flask) -> None:
    schedule = create(cron="* * * * *")
    start = NOON - 1001 * MINUTE
    with pytest.raises(Invalid) as refused:
        backfill(schedule, start, NOON)
    middle = NOON - MINUTE
    assert f"{middle:%Y-%m-%dT%H:%M:%SZ}" in str(refused.value.errors)
    assert len(backfill(schedule, start, middle)) == occurrences.MAX_BACKFILL
    assert backfill(schedule, middle, NOON) == [middle]
