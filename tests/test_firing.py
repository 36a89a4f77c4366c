"""Due times become tasks, under each policy for overlap, catch-up and failures. Time is passed in."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import update

from scheduler_app.extensions import db
from scheduler_app.models import Task, TaskSchedule
from scheduler_app.operations import PermanentError
from scheduler_app.services import attempts, control, dispatch, occurrences, schedule_policies, task_schedules
from scheduler_app.services.attempts import Attempt
from scheduler_app.services.firing import fire_due
from tests.support import claims
from tests.support.schedules import DAY, HOUR, MINUTE, NOON, create, fired, look, next_run_at, tasks_of

pytestmark = pytest.mark.usefixtures("context")


def fire_all(now: datetime) -> None:
    while fire_due(now=now):
        pass


def finish(schedule_id: int) -> None:
    done = update(Task).where(Task.task_schedule_id == schedule_id).values(status="SUCCESS", finished_at=NOON)
    db.session.execute(done)
    db.session.commit()


def claim(schedule_id: int) -> Attempt:
    """A worker begins the newest task of the schedule."""
    task_id = tasks_of(schedule_id)[-1].task_id
    db.session.rollback()
    attempt = claims.claim(task_id, 0, worker_id="here", now=NOON)
    assert attempt
    return attempt


def left_out(schedule_id: int) -> list[tuple[datetime, str]]:
    db.session.rollback()
    return [(entry.scheduled_for, entry.reason) for entry in task_schedules.left_out_times(schedule_id)]


def counters(schedule_id: int) -> tuple[int, int, int]:
    schedule = look(schedule_id)
    return schedule.times_scheduled, schedule.missed, schedule.skipped


def hours(*numbers: float) -> list[datetime]:
    return [NOON + number * HOUR for number in numbers]


def test_latest_catches_up_the_newest_time_and_records_the_others(app: Flask) -> None:
    schedule = create(every_x_hours=1)
    fire_all(NOON + 3.5 * HOUR)
    assert fired(schedule) == hours(3)
    assert left_out(schedule) == [(time, "superseded") for time in hours(2, 1, 0)]
    assert counters(schedule) == (1, 3, 0)
    assert next_run_at(schedule) == NOON + 4 * HOUR


def test_all_catches_up_every_time(app: Flask) -> None:
    schedule = create(every_x_hours=1, catch_up="all", catch_up_window=100 * 3600)
    fire_all(NOON + 49.5 * HOUR)
    assert fired(schedule) == hours(*range(50))
    assert counters(schedule) == (50, 0, 0)
    assert next_run_at(schedule) == NOON + 50 * HOUR


def test_none_catches_up_nothing(app: Flask) -> None:
    schedule = create(every_x_hours=1, catch_up="none")
    fire_all(NOON + 2 * HOUR + MINUTE * 2)
    assert fired(schedule) == []
    assert left_out(schedule) == [(time, "too_late") for time in hours(2, 1, 0)]
    assert counters(schedule) == (0, 3, 0)
    fire_all(NOON + 3 * HOUR + MINUTE / 2)
    assert fired(schedule) == hours(3)


@pytest.mark.parametrize(("catch_up", "expected"), [("all", (4, 5)), ("latest", (5,))])
def test_times_outside_the_window_are_not_caught_up(app: Flask, catch_up: str, expected: tuple[int, ...]) -> None:
    schedule = create(every_x_hours=1, catch_up=catch_up, catch_up_window=7_200)
    fire_all(NOON + 5.5 * HOUR)
    assert fired(schedule) == hours(*expected)
    assert left_out(schedule)[-4:] == [(time, "too_late") for time in hours(3, 2, 1, 0)]
    assert look(schedule).missed == 6 - len(expected)


def test_when_even_the_newest_time_is_outside_the_window_there_is_no_task(app: Flask) -> None:
    schedule = create(every_x_hours=24, catch_up_window=3_600)
    fire_all(NOON + 2 * HOUR)
    assert (fired(schedule), counters(schedule)) == ([], (0, 1, 0))
    assert next_run_at(schedule) == NOON + DAY


def test_of_thousands_of_missed_times_all_are_counted_and_the_newest_shown(app: Flask) -> None:
    schedule = create(cron="* * * * *")
    fire_all(NOON + 2 * DAY)
    assert fired(schedule) == [NOON + 2 * DAY]
    assert counters(schedule) == (1, 2 * 1440, 0)
    assert left_out(schedule)[0] == (NOON + 2 * DAY - MINUTE, "superseded")
    kept = task_schedules.left_out_times(schedule)
    assert sum(entry.times for entry in kept) == 2 * 1440
    assert len(kept) < 40


def test_one_pass_looks_at_a_bounded_number_of_times(app: Flask) -> None:
    later = NOON + 1000 * DAY
    backlog, other = create(cron="* * * * *", catch_up="all"), create(every_x_hours=1, now=later)
    fire_due(now=later)
    assert look(backlog).missed == schedule_policies.MAX_TIMES + 1
    assert len(fired(other)) == 1


def test_skip_leaves_a_time_out_while_a_task_has_not_finished(app: Flask) -> None:
    schedule, other = create(every_x_hours=1, overlap="skip"), create(every_x_hours=1)
    for hour in (0, 1):
        fire_all(NOON + hour * HOUR)
    finish(schedule)
    fire_all(NOON + 2 * HOUR)
    assert (fired(schedule), fired(other)) == (hours(0, 2), hours(0, 1, 2))
    assert (left_out(schedule), counters(schedule)) == ([(NOON + HOUR, "overlap")], (2, 0, 1))


def test_a_skipped_time_does_not_use_up_schedule_x_times(app: Flask) -> None:
    schedule = create(every_x_hours=1, overlap="skip", schedule_x_times=2)
    for hour in (0, 1, 2):
        fire_all(NOON + hour * HOUR)
    finish(schedule)
    fire_all(NOON + 3 * HOUR)
    assert (fired(schedule), next_run_at(schedule)) == (hours(0, 3), None)


def test_cancel_previous_cancels_what_waits_and_asks_what_runs_to_stop(app: Flask) -> None:
    schedule = create(every_x_hours=1, overlap="cancel_previous")
    fire_all(NOON)
    fire_all(NOON + HOUR)
    [first, second] = tasks_of(schedule)
    assert (first.status, second.status) == ("CANCELLED", "PENDING")
    claim(schedule)
    fire_all(NOON + 2 * HOUR)
    [_, second, third] = tasks_of(schedule)
    assert (second.status, second.cancel_requested, third.status) == ("STARTED", True, "PENDING")


@pytest.mark.parametrize(("overlap", "expected"), [("skip", 0), ("cancel_previous", 3)])
def test_caught_up_times_overlap_as_if_each_had_come_on_its_own(app: Flask, overlap: str, expected: int) -> None:
    schedule = create(every_x_hours=1, overlap=overlap, catch_up="all")
    fire_all(NOON + 3.5 * HOUR)
    assert fired(schedule) == hours(expected)
    assert counters(schedule) == (1, 0, 3)


def test_catching_up_stops_at_schedule_x_times(app: Flask) -> None:
    schedule = create(every_x_hours=1, catch_up="all", schedule_x_times=3)
    fire_all(NOON + 9 * HOUR)
    assert (fired(schedule), next_run_at(schedule)) == (hours(0, 1, 2), None)
    assert counters(schedule) == (3, 0, 0)


def test_a_rule_that_cannot_be_evaluated_pauses_its_schedule_and_no_other(app: Flask) -> None:
    poison, other = create(cron="* * * * *"), create(every_x_hours=1)
    broken = update(TaskSchedule).where(TaskSchedule.task_schedule_id == poison).values(timezone="Atlantis/Capital")
    db.session.execute(broken)
    db.session.commit()
    fire_all(NOON)
    assert (fired(poison), fired(other)) == ([], [NOON])
    assert look(poison).paused
    assert "cannot be evaluated" in (look(poison).pause_note or "")
    assert (left_out(poison), counters(poison)) == ([(NOON, "paused")], (0, 0, 0))
    task_schedules.change(poison, timezone="UTC", now=NOON + MINUTE / 2)
    task_schedules.resume(poison, now=NOON + 2 * MINUTE)
    assert left_out(poison) == [(NOON + minute * MINUTE, "paused") for minute in (2, 1, 0)]


@pytest.mark.parametrize(
    ("fields", "paused"),
    [
        ({"pause_on_failure": True, "max_retries": 0}, True),
        ({"pause_on_failure": True, "max_retries": 1}, False),
        ({"max_retries": 0}, False),
    ],
)
def test_a_task_that_ends_in_error_pauses_its_schedule_if_asked_to(
    app: Flask, fields: dict[str, Any], paused: bool
) -> None:
    schedule = create(every_x_hours=1, **fields)
    fire_all(NOON)
    attempt = claim(schedule)
    attempts.fail(attempt, RuntimeError("broken"), now=NOON)
    note = f"Task {attempt.task_id} ended in ERROR." if paused else None
    assert (look(schedule).paused, look(schedule).pause_note) == (paused, note)
    assert (next_run_at(schedule) is None) is paused


def test_a_cancelled_task_that_fails_does_not_pause_its_schedule(app: Flask) -> None:
    schedule = create(every_x_hours=1, overlap="cancel_previous", pause_on_failure=True)
    fire_all(NOON)
    attempt = claim(schedule)
    fire_all(NOON + HOUR)
    attempts.fail(attempt, PermanentError("stopped"), now=NOON + HOUR)
    assert tasks_of(schedule)[0].status == "CANCELLED"
    assert not look(schedule).paused


def stretches(schedule_id: int) -> list[tuple[datetime, datetime, int, str]]:
    db.session.rollback()
    kept = task_schedules.left_out_times(schedule_id)
    return [(entry.scheduled_for, entry.last_for, entry.times, entry.reason) for entry in kept]


def test_times_during_a_pause_are_recorded_when_it_ends(app: Flask) -> None:
    schedule = create(every_x_hours=1)
    fire_all(NOON)
    task_schedules.pause(schedule, now=NOON + 1.5 * HOUR)  # 13:00 was due, and nobody had fired it
    task_schedules.pause(schedule, note="still", now=NOON + 2.5 * HOUR)
    assert left_out(schedule) == []
    task_schedules.resume(schedule, now=NOON + 3.5 * HOUR)
    assert left_out(schedule) == [(time, "paused") for time in hours(3, 2, 1)]
    task_schedules.resume(schedule, now=NOON + 3.5 * HOUR)
    assert (counters(schedule), len(left_out(schedule))) == ((1, 0, 0), 3)


def test_a_pause_after_a_failure_records_its_times_too(app: Flask) -> None:
    schedule = create(every_x_hours=1, pause_on_failure=True, max_retries=0)
    fire_all(NOON)
    attempts.fail(claim(schedule), RuntimeError("broken"), now=NOON)
    task_schedules.resume(schedule, now=NOON + HOUR)
    assert left_out(schedule) == [(NOON + HOUR, "paused")]


def test_a_pause_counts_no_time_that_schedule_x_times_or_end_at_forbids(app: Flask) -> None:
    limited = create(every_x_hours=1, schedule_x_times=2)
    ended = create(every_x_hours=1, end_at=NOON + HOUR)
    for schedule in (limited, ended):
        task_schedules.pause(schedule, now=NOON - MINUTE)
        task_schedules.resume(schedule, now=NOON + 9 * HOUR)
        assert left_out(schedule) == [(time, "paused") for time in hours(1, 0)]


def test_missed_times_that_a_changed_rule_gives_up_are_recorded(app: Flask) -> None:
    schedule = create(every_x_hours=1)
    task_schedules.change(schedule, every_x_hours=2, now=NOON + 1.5 * HOUR)
    assert left_out(schedule) == [(time, "changed") for time in hours(1, 0)]
    task_schedules.change(schedule, name="new", now=NOON + 9 * HOUR)
    assert len(left_out(schedule)) == 2


def test_a_rule_changed_during_a_pause_counts_the_times_of_both_rules(app: Flask) -> None:
    schedule = create(every_x_hours=1)
    task_schedules.pause(schedule, now=NOON - MINUTE)
    task_schedules.change(schedule, every_x_hours=24, now=NOON + 1.5 * HOUR)
    assert next_run_at(schedule) is None
    task_schedules.resume(schedule, now=NOON + 1.5 * HOUR + DAY)
    first = NOON + 1.5 * HOUR
    assert left_out(schedule) == [(time, "paused") for time in (first + DAY, NOON + HOUR, NOON)]


def test_a_long_pause_writes_one_row(app: Flask) -> None:
    schedule = create(cron="* * * * *")
    task_schedules.pause(schedule, now=NOON)
    task_schedules.resume(schedule, now=NOON + 1000 * DAY)
    assert stretches(schedule) == [(NOON, NOON + 1000 * DAY, task_schedules.COUNTED, "paused")]


def test_a_schedule_keeps_its_latest_hundred_entries(app: Flask) -> None:
    schedule = create(every_x_hours=1, overlap="skip")
    for hour in range(120):
        fire_all(NOON + hour * HOUR)
    assert left_out(schedule) == [(time, "overlap") for time in reversed(hours(*range(20, 120)))]
    task_schedules.remove(schedule, now=NOON)


def test_what_one_pass_leaves_out_is_a_few_rows(app: Flask) -> None:
    schedule = create(cron="* * * * *", catch_up="none")
    fire_due(now=NOON + 1000 * DAY)
    [*singles, stretch] = stretches(schedule)
    assert (len(singles), stretch[0], stretch[2]) == (10, NOON, schedule_policies.MAX_TIMES - 9)


def test_a_time_is_left_out_while_as_many_as_may_be_have_not_finished(app: Flask) -> None:
    schedule = create(every_x_hours=1, overlap="max", overlap_max=2)
    for hour in range(4):
        fire_due(now=NOON + hour * HOUR)
    assert fired(schedule) == [NOON, NOON + HOUR]
    assert left_out(schedule) == [(NOON + 3 * HOUR, "overlap"), (NOON + 2 * HOUR, "overlap")]
    control.cancel(tasks_of(schedule)[0].task_id, now=NOON)
    fire_due(now=NOON + 4 * HOUR)
    assert fired(schedule) == [NOON, NOON + HOUR, NOON + 4 * HOUR]


def test_caught_up_times_fill_what_room_there_is(app: Flask) -> None:
    schedule = create(every_x_hours=1, overlap="max", overlap_max=3, catch_up="all")
    fire_due(now=NOON)
    fire_due(now=NOON + 5 * HOUR)
    assert fired(schedule) == [NOON, NOON + HOUR, NOON + 2 * HOUR]


def test_jitter_delays_each_task_by_a_part_that_every_scheduler_knows(app: Flask, valkey: Any) -> None:
    schedule = create(every_x_hours=1, jitter=600)
    told = occurrences.upcoming(schedule, limit=20)
    plain = create(every_x_hours=1, expires_in=60)
    for hour in range(20):
        fire_due(now=NOON + hour * HOUR)
    delays = [task.run_at - task.scheduled_for for task in tasks_of(schedule) if task.scheduled_for]
    assert delays == [occurrences.jitter(look(schedule), NOON + hour * HOUR) for hour in range(20)]
    assert delays == [time.run_at - time.utc for time in told], "upcoming says so beforehand"
    assert all(timedelta(0) <= delay <= timedelta(minutes=10) for delay in delays)
    assert len(set(delays)) > 15
    assert max(delays) - min(delays) > timedelta(minutes=3)
    assert fired(schedule) == [NOON + hour * HOUR for hour in range(20)], "the rule's times stay what they are"
    assert [task.run_at for task in tasks_of(plain)] == [NOON + hour * HOUR for hour in range(20)]
    sent = {data.decode() for data in valkey.client.lrange("dramatiq:tasks.p5", 0, -1)}
    assert sent == {f"{task.task_id}.0" for task in tasks_of(plain)}, "only what is due"
    dispatch.relay(now=NOON + 21 * HOUR)
    sent = {data.decode() for data in valkey.client.lrange("dramatiq:tasks.p5", 0, -1)}
    assert len(sent) == 40, "the others when their time has come"


def test_a_late_task_is_not_delayed_any_more(app: Flask) -> None:
    schedule = create(every_x_hours=1, jitter=30)
    fire_due(now=NOON + timedelta(seconds=31))
    assert [task.run_at for task in tasks_of(schedule)] == [NOON + timedelta(seconds=31)]
    triggered = occurrences.trigger(schedule, now=NOON + timedelta(minutes=5))
    assert triggered.run_at == NOON + timedelta(minutes=5)
