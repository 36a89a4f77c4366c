"""Scheduler processes: they are seen while they scan, a silent one is noticed, and any can be killed."""

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from flask import Flask
from flask.testing import FlaskClient
from redis import RedisError
from sqlalchemy import func, select

from scheduler import fire, perform
from scheduler_app import database
from scheduler_app.extensions import db
from scheduler_app.models import Scheduler, Task, TaskSchedule
from scheduler_app.services import schedulers, task_schedules, workers
from tests.support.processes import Process, eventually
from tests.support.schedules import HOUR, create
from tests.support.servers import Valkey

Start = Callable[..., Process]


def scan(client: FlaskClient, *, ago: float = 0) -> None:
    with client.application.app_context():
        fire(datetime.now(UTC) - timedelta(seconds=ago))


def readiness(client: FlaskClient) -> tuple[int, str, str]:
    """The status, the state beside a living worker, and what is said of schedulers."""
    with client.application.app_context():
        worker = {"worker_id": "alive", "host": "here", "pid": 1, "threads": 8, "queues": []}
        now = database.clock()
        workers.beat(worker | {"started_at": now}, clock_offset=0.0, now=now)
    answer = client.get("/readyz")
    return answer.status_code, answer.json["status"], answer.json["checks"]["scheduler"]


def figures(client: FlaskClient) -> dict[str, float]:
    """By name, with the labels left out."""
    lines = [line for line in client.get("/metrics").text.splitlines() if not line.startswith("#")]
    return {line.partition("{")[0].split()[0]: float(line.split()[-1]) for line in lines}


def test_without_a_scheduler_readyz_says_so_and_requests_are_still_welcome(client: FlaskClient) -> None:
    assert readiness(client) == (200, "degraded", "none is running")


def test_a_silent_scheduler_shows_in_readyz(client: FlaskClient) -> None:
    scan(client)
    assert readiness(client) == (200, "ok", "ok")
    scan(client, ago=40)
    status, state, outcome = readiness(client)
    assert (status, state) == (200, "degraded")
    assert outcome.startswith("no scan for 40 s; the latest was by process ")


def test_metrics_show_the_latest_scan_and_its_lag(client: FlaskClient) -> None:
    with client.application.app_context():
        create(every_x_hours=1, now=datetime.now(UTC) - timedelta(seconds=9.5))
    assert figures(client)["backbeat_schedules_due"] == 1
    assert figures(client)["backbeat_schedules_due_oldest_seconds"] >= 9.5
    scan(client)
    scan(client)  # that nothing is due does not wipe out the latest lag
    seen = figures(client)
    assert seen["backbeat_schedules_due"] == 0
    assert 9.5 <= seen["backbeat_scheduler_lag_seconds"] < 20
    assert 0 < seen["backbeat_scheduler_scan_seconds"] < 5
    assert abs(seen["backbeat_scheduler_last_scan_timestamp_seconds"] - datetime.now(UTC).timestamp()) < 10
    assert (seen["backbeat_broker_up"], seen["backbeat_workers"]) == (1, 0)
    assert seen["backbeat_queue_waiting"] == 0


@pytest.fixture
def environ(environ: dict[str, str], request: pytest.FixtureRequest) -> dict[str, str]:
    if "own_valkey" in request.fixturenames:
        own: Valkey = request.getfixturevalue("own_valkey")
        return environ | {"REDIS_URL": own.url}
    return environ


def test_metrics_say_when_redis_does_not_answer(client: FlaskClient, own_valkey: Valkey) -> None:
    own_valkey.kill()
    seen = figures(client)
    assert seen["backbeat_broker_up"] == 0
    assert "backbeat_queue_waiting" not in seen


def test_a_scheduler_process_is_seen_until_it_stops(client: FlaskClient, scheduler: Start) -> None:
    process = scheduler()
    assert eventually(lambda: readiness(client) == (200, "ok", "ok"))
    assert process.stop() == 0
    assert readiness(client) == (200, "degraded", "none is running")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_scheduler_that_is_stopped_while_its_first_duties_begin_ends(scheduler: Start) -> None:
    assert [scheduler().stop() for _ in range(10)] == [0] * 10


def test_a_scheduler_that_was_killed_is_forgotten_after_an_hour(client: FlaskClient) -> None:
    with client.application.app_context():
        long_ago = datetime.now(UTC) - timedelta(hours=2)
        db.session.add(Scheduler(host="gone", pid=1, scanned_at=long_ago, scan_seconds=0.1))
        db.session.commit()
        fire(datetime.now(UTC))
        assert [scheduler.host == "gone" for scheduler in schedulers.find()] == [False]


def test_schedulers_that_are_killed_at_random_create_each_task_exactly_once(app: Flask, scheduler: Start) -> None:
    with app.app_context():
        db.session.add_all(due_within_seconds(count=400))
        db.session.commit()
        running = [scheduler(), scheduler()]
        for threshold in sorted(random.sample(range(400 * 11), 2)):
            eventually(partial(has_created, threshold))
            running.pop(random.randrange(2)).kill()
            running.append(scheduler())
        eventually(partial(has_created, 400 * 11))
        per_schedule = select(func.count()).select_from(Task).group_by(Task.task_schedule_id)
        assert list(db.session.scalars(per_schedule)) == [11] * 400
        assert set(db.session.scalars(select(TaskSchedule.times_scheduled))) == {11}
        assert set(db.session.scalars(select(TaskSchedule.missed))) == {0}


def due_within_seconds(*, count: int) -> Iterator[TaskSchedule]:
    """Each has missed ten times, and the eleventh comes in the next four seconds."""
    work = {"operation": "calculate", "params": {"expression": "1+1"}, "priority": 5, "max_retries": 5}
    for number in range(count):
        begin = datetime.now(UTC) - 10 * HOUR + timedelta(seconds=number % 4)
        schedule = task_schedules.draft(now=begin, every_x_hours=1, catch_up="all", **work)
        schedule.next_run_at = schedule.anchor_at
        yield schedule


def has_created(count: int) -> bool:
    db.session.rollback()
    return (db.session.scalar(select(func.count()).select_from(Task)) or 0) >= count


def test_a_duty_that_fails_is_logged_once_and_once_more_when_it_works_again(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    errors: list[Exception] = [RedisError("away"), RedisError("away"), ValueError("a bug"), ValueError("a bug")]

    def trial(now: datetime) -> int:
        if errors:
            raise errors.pop(0)
        return 0

    with caplog.at_level("INFO", logger="scheduler"):
        for _ in range(6):
            perform(app, trial)
    assert [record.message for record in caplog.records] == [
        "trial failed; it is tried again at each scan: away",
        "trial failed; it is tried again at each scan: a bug",
        "trial works again",
    ]
