"""Heartbeats, and what becomes of the attempts of lost workers. Time is passed in."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select

from scheduler_app.extensions import db
from scheduler_app.models import Failure, Status, Task, Worker
from scheduler_app.services import attempts, control, tasks, workers
from scheduler_app.services.attempts import Attempt
from scheduler_app.services.workers import Reaper
from tests.support.claims import claim, succeed

pytestmark = pytest.mark.usefixtures("context")

NOW = datetime(2040, 6, 1, 12, tzinfo=UTC)
DEAD = NOW + workers.DEAD_AFTER + timedelta(seconds=1)


@pytest.fixture
def reaper(monkeypatch: pytest.MonkeyPatch) -> Reaper:
    """One that has watched for long enough to trust the heartbeats."""
    reaper = Reaper()
    monkeypatch.setattr(reaper, "_trusted", lambda: True)
    return reaper


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


def test_the_attempts_of_a_silent_worker_wait_for_the_next_at_once(app: Flask, reaper: Reaper) -> None:
    beat("dead")
    attempt = claimed("dead")
    assert reaper.reap(now=NOW + workers.DEAD_AFTER) == 0
    assert reaper.reap(now=DEAD) == 1
    task = task_of(attempt)
    assert (task.status, task.attempts, task.run_at, task.enqueued_at) == (Status.RETRYING, 1, DEAD, None)
    assert task.error is not None
    assert task.error["type"] == "WorkerLost"
    assert [failure.attempt for failure in task.failures] == [1]
    assert workers.find() == []


def test_a_worker_that_beats_keeps_its_attempts(app: Flask, reaper: Reaper) -> None:
    beat("alive")
    attempt = claimed("alive")
    beat("alive", now=DEAD)
    assert reaper.reap(now=DEAD) == 0
    assert task_of(attempt).status == Status.STARTED


def test_the_second_loss_in_a_row_waits_for_its_backoff(app: Flask, reaper: Reaper) -> None:
    beat("dead")
    claimed_once = claimed("dead")
    reaper.reap(now=DEAD)
    again = claim(claimed_once.task_id, 1, worker_id="dead", now=DEAD)
    assert again
    assert reaper.reap(now=DEAD + timedelta(minutes=1)) == 1
    assert task_of(again).run_at >= DEAD + timedelta(minutes=1, seconds=1)


def test_a_task_that_loses_its_worker_every_time_is_an_error(app: Flask, reaper: Reaper) -> None:
    attempt = claimed("dead", max_retries=0)
    assert reaper.reap(now=DEAD) == 1
    task = task_of(attempt)
    assert (task.status, task.finished_at) == (Status.ERROR, DEAD)
    assert task.error is not None
    assert "lost" in task.error["message"]


def test_a_lost_task_that_was_to_be_cancelled_is_cancelled(app: Flask, reaper: Reaper) -> None:
    attempt = claimed("dead")
    control.cancel(attempt.task_id, now=NOW)
    assert reaper.reap(now=DEAD) == 1
    task = task_of(attempt)
    assert (task.status, task.finished_at, task.cancel_requested) == (Status.CANCELLED, DEAD, False)


def test_the_late_result_of_a_worker_that_was_only_slow_is_dropped(app: Flask, reaper: Reaper) -> None:
    slow = claimed("slow")
    reaper.reap(now=DEAD)
    assert not succeed(slow, 1, now=DEAD)
    assert not attempts.fail(slow, RuntimeError(), now=DEAD)
    quick = claim(slow.task_id, 1, worker_id="quick", now=DEAD)
    assert quick
    assert not succeed(slow, 1, now=DEAD)
    assert succeed(quick, 2, now=DEAD)
    assert not attempts.fail(slow, RuntimeError(), now=DEAD)
    assert (task_of(slow).status, task_of(slow).result) == (Status.SUCCESS, 2)
    assert len(db.session.scalars(select(Failure)).all()) == 1


def test_a_late_result_finds_no_way_in_even_after_a_retry_by_hand(app: Flask, reaper: Reaper) -> None:
    slow = claimed("slow", max_retries=0)
    reaper.reap(now=DEAD)
    control.retry(slow.task_id, now=DEAD)
    again = claim(slow.task_id, task_of(slow).claims, worker_id="slow", now=DEAD)
    assert again
    assert again.number == slow.number == 1
    assert not succeed(slow, 1, now=DEAD)


def test_a_worker_that_comes_back_has_its_row_again(app: Flask, reaper: Reaper) -> None:
    beat("slow")
    reaper.reap(now=DEAD)
    beat("slow", now=DEAD)
    assert [worker["worker_id"] for worker in workers.find()] == ["slow"]


def test_an_attempt_that_has_just_begun_is_not_taken_from_a_worker_that_comes_back(app: Flask, reaper: Reaper) -> None:
    attempt = claimed("back")
    assert reaper.reap(now=NOW + workers.SETTLED) == 0
    assert task_of(attempt).status == Status.STARTED


def test_a_worker_that_leaves_hands_back_what_it_has_not_finished(app: Flask) -> None:
    beat("leaving")
    attempt = claimed("leaving")
    workers.leave("leaving", now=NOW)
    assert task_of(attempt).status == Status.RETRYING
    assert db.session.scalars(select(Worker)).all() == []


def test_what_stands_as_a_workers_without_running_there_is_begun_again(app: Flask) -> None:
    beat("here")
    lost, kept = claimed("here"), claimed("here")
    later = NOW + workers.SETTLED + timedelta(seconds=1)
    assert workers.disown("here", [kept.task_id], now=later) == 1
    assert task_of(lost).status == Status.RETRYING
    assert task_of(kept).status == Status.STARTED


def test_after_a_standstill_the_workers_get_time_to_beat(monkeypatch: pytest.MonkeyPatch, app: Flask) -> None:
    seconds = 1000.0
    monkeypatch.setattr(workers.time, "monotonic", lambda: seconds)
    reaper = Reaper()
    claimed("dead")
    assert reaper.reap(now=DEAD) == 0  # it has just begun to watch
    for _ in range(5):
        seconds += 1
        assert reaper.reap(now=DEAD) == 0
    seconds += workers.STALL + 0.1
    assert reaper.reap(now=DEAD) == 0  # it stood still itself
    for _ in range(6):
        seconds += 1
        if reaper.reap(now=DEAD):
            break
    assert seconds >= 1000 + 5 + workers.STALL + 2 * workers.HEARTBEAT
