"""Heartbeats, and what becomes of the attempts of lost workers. Time is passed in."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select, update

from scheduler_app.database import begin_write
from scheduler_app.extensions import db
from scheduler_app.models import Failure, Status, Task, Worker
from scheduler_app.services import attempts, control, listing, tasks, workers
from scheduler_app.services.attempts import Attempt, UnknownOperation
from scheduler_app.services.workers import Reaper, Strays
from tests.support.claims import claim, succeed

pytestmark = pytest.mark.usefixtures("context")

NOW = datetime(2040, 6, 1, 12, tzinfo=UTC)
DEAD = NOW + timedelta(seconds=workers.DEAD_AFTER + 1)


@dataclass
class Watch:
    """A reaper, and the monotonic time that it goes by."""

    seconds: float = 1000.0

    def __post_init__(self) -> None:
        self.reaper = Reaper(lambda: self.seconds)

    def scan(self, *, every: float = 1.0, over: float = workers.DEAD_AFTER, now: datetime = DEAD) -> int:
        """Looks at once, and again and again for so many seconds; returns how many attempts it failed."""
        lost = self.reaper.reap(now=now)
        for _ in range(ceil(over / every)):
            self.seconds += every
            lost += self.reaper.reap(now=now)
        return lost


@pytest.fixture
def watch() -> Watch:
    return Watch()


def beat(worker_id: str, now: datetime = NOW) -> None:
    worker: dict[str, Any] = {"host": "here", "pid": 1, "threads": 8, "queues": ["tasks.p5"], "started_at": NOW}
    workers.beat(worker | {"worker_id": worker_id}, clock_offset=0.0, now=now)


def claimed(worker_id: str, *, max_retries: int = 5) -> Attempt:
    request = {"operation": "calculate", "params": {"expression": "1+1"}, "priority": 5, "max_retries": max_retries}
    [row] = tasks.create([request], now=NOW)
    db.session.commit()
    attempt = claim(row.task_id, 0, worker_id=worker_id, now=NOW)
    assert attempt
    return attempt


def task_of(attempt: Attempt) -> Task:
    db.session.rollback()
    return tasks.get(attempt.task_id)


def test_the_attempts_of_a_silent_worker_wait_for_the_next_at_once(app: Flask, watch: Watch) -> None:
    beat("dead")
    attempt = claimed("dead")
    assert watch.scan(over=workers.DEAD_AFTER - 1) == 0
    assert watch.scan(over=1) == 1
    task = task_of(attempt)
    assert (task.status, task.attempts, task.run_at, task.enqueued_at) == (Status.RETRYING, 1, DEAD, None)
    assert task.error is not None
    assert task.error["type"] == "WorkerLost"
    assert [failure.attempt for failure in listing.failures(task.task_id)[0]] == [1]
    assert workers.find() == []


def test_a_worker_that_beats_keeps_its_attempts(app: Flask, watch: Watch) -> None:
    beat("alive")
    attempt = claimed("alive")
    for second in range(60):
        beat("alive", now=NOW + timedelta(seconds=second))
        assert watch.scan(over=workers.HEARTBEAT) == 0
    assert task_of(attempt).status == Status.STARTED


def test_the_second_loss_in_a_row_waits_for_its_backoff(app: Flask, watch: Watch) -> None:
    beat("dead")
    claimed_once = claimed("dead")
    watch.scan()
    again = claim(claimed_once.task_id, 1, worker_id="dead", now=DEAD)
    assert again
    assert watch.scan(now=DEAD + timedelta(minutes=1)) == 1
    assert task_of(again).run_at >= DEAD + timedelta(minutes=1, seconds=1)


def test_a_task_that_loses_its_worker_every_time_is_an_error(app: Flask, watch: Watch) -> None:
    attempt = claimed("dead", max_retries=0)
    assert watch.scan() == 1
    task = task_of(attempt)
    assert (task.status, task.finished_at) == (Status.ERROR, DEAD)
    assert task.error is not None
    assert "lost" in task.error["message"]


def test_a_lost_task_that_was_to_be_cancelled_is_cancelled(app: Flask, watch: Watch) -> None:
    attempt = claimed("dead")
    control.cancel(attempt.task_id, now=NOW)
    assert watch.scan() == 1
    task = task_of(attempt)
    assert (task.status, task.finished_at, task.cancel_requested) == (Status.CANCELLED, DEAD, False)


def test_the_late_result_of_a_worker_that_was_only_slow_is_dropped(app: Flask, watch: Watch) -> None:
    slow = claimed("slow")
    watch.scan()
    assert not succeed(slow, 1, now=DEAD)
    assert not attempts.fail(slow, RuntimeError(), now=DEAD)
    quick = claim(slow.task_id, 1, worker_id="quick", now=DEAD)
    assert quick
    assert not succeed(slow, 1, now=DEAD)
    assert succeed(quick, 2, now=DEAD)
    assert not attempts.fail(slow, RuntimeError(), now=DEAD)
    assert (task_of(slow).status, task_of(slow).result) == (Status.SUCCESS, 2)
    assert len(db.session.scalars(select(Failure)).all()) == 1


def test_a_late_result_finds_no_way_in_even_after_a_retry_by_hand(app: Flask, watch: Watch) -> None:
    slow = claimed("slow", max_retries=0)
    watch.scan()
    control.retry(slow.task_id, now=DEAD)
    again = claim(slow.task_id, task_of(slow).claims, worker_id="slow", now=DEAD)
    assert again
    assert again.number == slow.number == 1
    assert not succeed(slow, 1, now=DEAD)


def test_a_worker_that_comes_back_has_its_row_again(app: Flask, watch: Watch) -> None:
    beat("slow")
    watch.scan()
    beat("slow", now=DEAD)
    assert [worker["worker_id"] for worker in workers.find()] == ["slow"]


def test_an_attempt_that_has_just_begun_is_not_taken_from_a_worker_that_comes_back(app: Flask, watch: Watch) -> None:
    attempt = claimed("back")
    assert watch.scan(over=workers.SETTLED - 1) == 0
    assert task_of(attempt).status == Status.STARTED


def test_a_worker_that_leaves_hands_back_what_it_has_not_finished(app: Flask) -> None:
    beat("leaving")
    attempt = claimed("leaving")
    workers.leave("leaving", now=NOW)
    assert task_of(attempt).status == Status.RETRYING
    assert db.session.scalars(select(Worker)).all() == []


def test_what_stands_as_a_workers_without_running_there_is_begun_again(app: Flask) -> None:
    seconds = 1000.0
    strays = Strays("here", lambda: seconds)
    lost, kept, brief = claimed("here"), claimed("here"), claimed("here")
    running = [(kept.task_id, kept.claims)]
    assert strays.disown(running, now=NOW) == 0  # their claims may have been a moment ago
    seconds += workers.HEARTBEAT
    assert strays.disown([*running, (brief.task_id, brief.claims)], now=NOW) == 0
    seconds += workers.HEARTBEAT
    assert strays.disown(running, now=NOW) == 1
    statuses = [task_of(attempt).status for attempt in (lost, kept, brief)]
    assert statuses == [Status.RETRYING, Status.STARTED, Status.STARTED]


def test_an_earlier_attempt_that_still_runs_does_not_hide_a_later_one(app: Flask, watch: Watch) -> None:
    seconds = 1000.0
    strays = Strays("slow", lambda: seconds)
    earlier = claimed("slow")
    watch.scan()
    later = claim(earlier.task_id, earlier.claims, worker_id="slow", now=DEAD)
    assert later
    for _ in range(3):
        disowned = strays.disown([(earlier.task_id, earlier.claims)], now=DEAD)
        seconds += workers.HEARTBEAT
    assert disowned == 1


@pytest.mark.parametrize("every", [1.0, 3.1, 8.0])
def test_a_slow_scheduler_rescues_too(app: Flask, watch: Watch, every: float) -> None:
    beat("dead")
    claimed("dead")
    assert watch.scan(every=every, over=4 * max(every, 3)) == 1


def test_a_minute_in_which_everything_stood_still_kills_nobody(app: Flask, watch: Watch) -> None:
    beat("alive")
    attempt = claimed("alive")
    assert watch.scan(over=6) == 0
    watch.seconds += 60  # the scheduler or the database stood still: no heartbeat could be written or read
    assert watch.scan(over=2) == 0
    beat("alive", now=DEAD)
    assert watch.scan(over=6) == 0
    assert task_of(attempt).status == Status.STARTED


def test_a_worker_whose_heartbeats_tell_a_wrong_time_lives(app: Flask, watch: Watch) -> None:
    for hour in range(10):
        beat("wrong", now=NOW - timedelta(hours=hour))
        assert watch.scan(over=workers.HEARTBEAT) == 0
    assert len(workers.find()) == 1


@pytest.mark.parametrize("hours", [-1, 1, 24 * 30])
def test_an_attempt_without_worker_is_rescued_whatever_time_it_shows(app: Flask, watch: Watch, hours: int) -> None:
    attempt = claimed("gone")
    db.session.execute(update(Task).values(started_at=NOW + timedelta(hours=hours)))
    db.session.commit()
    assert watch.scan(over=workers.SETTLED, now=NOW) == 1
    assert task_of(attempt).status == Status.RETRYING


def test_a_heartbeat_at_the_last_moment_counts(app: Flask, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    beat("late")
    claimed("late")
    assert watch.scan(over=workers.DEAD_AFTER - 1) == 0

    def beat_first() -> None:
        beat("late", now=DEAD)
        begin_write()

    monkeypatch.setattr(workers, "begin_write", beat_first)  # between what the reaper reads and what it writes
    assert watch.scan(over=1) == 0
    assert [worker["worker_id"] for worker in workers.find()] == ["late"]


def test_a_task_waits_a_day_for_a_worker_that_knows_its_operation(app: Flask) -> None:
    attempt = claimed("old")
    assert attempts.wait_for_operation(attempt, now=NOW)
    task = task_of(attempt)
    assert (task.status, task.attempts, task.claims) == (Status.PENDING, 0, 2)
    assert task.run_at == NOW + timedelta(seconds=5)
    later = claim(attempt.task_id, 2, worker_id="old", now=NOW)
    assert later
    assert attempts.wait_for_operation(later, now=NOW + timedelta(hours=23))
    assert task_of(attempt).run_at == NOW + timedelta(hours=23, seconds=60)
    last = claim(attempt.task_id, 4, worker_id="old", now=NOW)
    assert last
    assert not attempts.wait_for_operation(last, now=NOW + timedelta(hours=25))
    assert attempts.fail(last, UnknownOperation("Nobody knows it."), now=NOW + timedelta(hours=25))
    assert (task_of(attempt).status, task_of(attempt).attempts) == (Status.ERROR, 1)


def test_what_is_given_back_after_its_cancellation_is_cancelled(app: Flask) -> None:
    attempt = claimed("old")
    control.cancel(attempt.task_id, now=NOW)
    assert attempts.wait_for_operation(attempt, now=NOW)
    assert task_of(attempt).status == Status.CANCELLED


def test_a_late_reply_finds_nothing_after_the_attempt_was_given_back(app: Flask) -> None:
    attempt = claimed("old")
    assert attempts.wait_for_operation(attempt, now=NOW)
    assert not succeed(attempt, 1, now=NOW)
    assert claim(attempt.task_id, 0, worker_id="other", now=NOW) is None


def test_a_task_that_waited_in_vain_waits_a_day_again_when_it_is_retried_by_hand(app: Flask) -> None:
    attempt = claimed("old")
    assert attempts.wait_for_operation(attempt, now=NOW)
    control.cancel(attempt.task_id, now=NOW)
    control.retry(attempt.task_id, now=NOW + timedelta(days=3))
    again = claim(attempt.task_id, 3, worker_id="old", now=NOW)
    assert again
    assert attempts.wait_for_operation(again, now=NOW + timedelta(days=3))
    assert task_of(attempt).error is None
