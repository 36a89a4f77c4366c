"""With BACKBEAT_MAX_WAITING tasks that have not finished, nobody can add more from outside."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event

from scheduler_app.extensions import db
from scheduler_app.models import Status
from scheduler_app.services import backlog
from scheduler_app.services.backlog import Backlog
from scheduler_app.services.firing import fire_due
from tests.support.tasks import set_status, submit

MOST = 5
TASK = {"operation": "1+1"}
HOURLY = TASK | {"every_x_hours": 1, "start_at": "2026-01-01T00:00:00Z"}


@pytest.fixture
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | {"BACKBEAT_MAX_WAITING": str(MOST)}


@pytest.fixture
def later(app: Flask) -> Callable[[], None]:
    """Lets the time pass until the number is looked up again."""
    seconds = 1000.0
    app.extensions["backbeat.backlog"] = Backlog(app, most=MOST, monotonic=lambda: seconds)

    def later() -> None:
        nonlocal seconds
        seconds += backlog.LOOK_EVERY

    return later


@pytest.fixture
def full(client: FlaskClient, later: Callable[[], None]) -> list[int]:
    ids = submit(client, *[TASK] * MOST)
    set_status(client, ids[:1], Status.STARTED)
    set_status(client, ids[1:2], Status.RETRYING)
    later()
    return ids


CALLS: dict[str, tuple[str, Any]] = {
    "post": ("/tasks/", TASK),
    "batch": ("/tasks/batch-request/", [TASK]),
    "retry": ("/tasks/{finished}/retry/", None),
    "retry many": ("/tasks/retry/", {"all": True}),
    "trigger": ("/task-schedules/1/trigger/", None),
    "backfill": ("/task-schedules/1/backfill/", {"start": "2026-01-01T00:00:00Z", "end": "2026-01-01T02:00:00Z"}),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_call_that_adds_tasks_is_refused_while_too_many_wait(
    client: FlaskClient, later: Callable[[], None], call: str
) -> None:
    client.post("/task-schedules/", json=HOURLY)
    finished, *waiting = submit(client, *[TASK] * (MOST + 1))
    set_status(client, [finished], Status.ERROR)
    later()
    path, body = CALLS[call][0].format(finished=finished), CALLS[call][1]
    answer = client.post(path, json=body)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
    assert answer.json["message"].startswith("BACKBEAT_MAX_WAITING: 5 tasks have not finished")
    assert {task["status"] for task in client.get("/tasks/").json} == {"ERROR", "PENDING"}
    assert len(client.get("/tasks/").json) == MOST + 1
    set_status(client, waiting[:1], Status.SUCCESS)
    later()
    assert client.post(path, json=body).status_code == 202


@pytest.mark.usefixtures("full")
def test_what_adds_no_task_is_answered_as_ever(client: FlaskClient) -> None:
    assert client.post("/tasks/", json=TASK).status_code == 503
    assert client.post("/tasks/", json={"operation": "1+"}).status_code == 422
    assert client.post("/tasks/batch-request/", json=[]).status_code == 202
    assert client.post("/task-schedules/", json=HOURLY).status_code == 201
    assert client.post("/tasks/retry/", json={"all": True, "dry_run": True}).status_code == 202
    assert client.post("/tasks/cancel/", json={"all": True}).json["remaining"] == 0


def test_a_repeated_request_is_answered_again_while_too_many_wait(
    client: FlaskClient, later: Callable[[], None]
) -> None:
    once = {"Idempotency-Key": "one"}
    first = client.post("/tasks/batch-request/", json=[TASK] * MOST, headers=once)
    later()
    assert client.post("/tasks/", json=TASK, headers=once | {"Idempotency-Key": "two"}).status_code == 503
    assert client.post("/tasks/batch-request/", json=[TASK] * MOST, headers=once).json == first.json


@pytest.mark.usefixtures("full")
def test_a_schedule_fires_all_the_same(app: Flask, client: FlaskClient) -> None:
    client.post("/task-schedules/", json=TASK | {"every_x_hours": 1})
    with app.app_context():
        assert len(fire_due(now=datetime.now(UTC))) == 1


def test_a_finished_task_between_those_that_wait_does_not_count(client: FlaskClient, later: Callable[[], None]) -> None:
    ids = submit(client, *[TASK] * (MOST + 3))
    set_status(client, ids[1:-1], Status.SUCCESS)
    later()
    assert client.post("/tasks/", json=TASK).status_code == 202


def test_the_number_is_looked_up_once_in_ten_seconds_and_counted_only_when_it_can_be_reached(
    app: Flask, client: FlaskClient, later: Callable[[], None]
) -> None:
    statements: list[str] = []
    with app.app_context():
        engine = db.engines["direct"]
    event.listen(engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))

    def looks() -> list[str]:
        found = ["count" if "count(*)" in one else "ends" for one in statements if "min(" in one or "count(*)" in one]
        statements.clear()
        return found

    for _ in range(MOST):
        client.post("/tasks/", json=TASK)
    assert looks() == ["ends"]
    later()
    client.post("/tasks/", json=TASK)
    client.post("/tasks/", json=TASK)
    assert looks() == ["ends", "count"]


@pytest.mark.usefixtures("full")
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_count_that_takes_long_delays_one_request_for_a_moment_and_then_counts(
    app: Flask, client: FlaskClient, database_url: str
) -> None:
    known = app.extensions["backbeat.backlog"]
    counted = threading.Event()

    with psycopg.connect(database_url) as other, app.app_context():
        ends = backlog.span()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(backlog, "span", lambda: ends)  # the ends of the indexes are found, the count has to wait
            other.execute("LOCK TABLE task IN ACCESS EXCLUSIVE MODE")
            assert not known.is_full()  # by what was known before
            assert not known._count.done()
        other.rollback()
        known._count.add_done_callback(lambda _: counted.set())
        assert counted.wait(30)
        assert known.is_full()
    assert client.post("/tasks/", json=TASK).status_code == 503
