"""A list leaves long values out and says so; a task shows its latest failures and how many there are."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import insert, update

from scheduler_app.extensions import db
from scheduler_app.models import Failure, Task
from scheduler_app.services.listing import COLUMNS, COUNTED, LATEST, SHORT
from tests.support.tasks import get, submit

NOW = datetime(2040, 6, 1, 12, tzinfo=UTC)
URL = "http://127.0.0.1:1/"
HOUR = timedelta(hours=1)


def value(size: int, letter: str = "x") -> dict[str, str]:
    """JSON of so many characters."""
    return {"message": letter * (size - len(json.dumps({"message": ""})))}


def write(client: FlaskClient, task_id: int, **values: Any) -> None:
    with client.application.app_context():
        db.session.execute(update(Task).where(Task.task_id == task_id).values(**values))
        db.session.commit()


def fail(client: FlaskClient, task_id: int, times: int) -> None:
    row = {"task_id": task_id, "attempt": 1, "type": "E", "message": "no", "traceback": "t" * 20_000}
    rows = [row | {"claim": claim, "failed_at": NOW + HOUR * claim} for claim in range(1, times + 1)]
    with client.application.app_context():
        db.session.execute(insert(Failure), rows)
        db.session.commit()


@pytest.fixture
def task_id(client: FlaskClient) -> int:
    [task_id] = submit(client, {"operation": "1+1"})
    return task_id


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("size", [SHORT + 1, 60_000])
def test_a_long_value_is_left_out_of_the_list_and_in_the_single_task(
    client: FlaskClient, task_id: int, column: str, size: int
) -> None:
    long = value(size)  # which PostgreSQL compresses to less than SHORT
    write(client, task_id, **{column: long | {"type": "E", "percent": 1}})
    [listed] = client.get("/tasks/").json
    assert (listed[column], listed["truncated"]) == (None, True)
    single = get(client, task_id)
    assert single[column]["message"] == long["message"]
    changed = ("truncated", column)
    assert {name: single[name] for name in listed if name not in changed} == {
        name: listed[name] for name in listed if name not in changed
    }


@pytest.mark.parametrize("column", ["params", "result"])
def test_a_short_value_is_in_the_list(client: FlaskClient, task_id: int, column: str) -> None:
    write(client, task_id, **{column: value(SHORT)})
    [listed] = client.get("/tasks/").json
    assert (listed[column], listed["truncated"]) == (value(SHORT), False)


def test_a_page_has_at_most_about_a_mebibyte(client: FlaskClient) -> None:
    ids = submit(client, *[{"operation": "1+1"}] * 200)
    percent = {"percent": 1.0}
    for task_id in ids:
        short = {"params": value(SHORT), "result": value(SHORT), "error": {"type": "E"} | value(SHORT - 13)}
        write(client, task_id, **short, progress=percent | value(SHORT - 16))
    assert len(client.get("/tasks/?limit=200").data) < 1.05 * 2**20
    write(client, ids[0], result=value(1_000_000))
    assert len(client.get("/tasks/?limit=200").data) < 1.05 * 2**20


def long_request() -> dict[str, Any]:
    return {"operation": "http_request", "params": {"url": URL, "body": "b" * SHORT}}


def schedule(client: FlaskClient) -> int:
    body = long_request() | {"every_x_hours": 1, "start_at": "2026-01-01T00:00:00Z"}
    schedule_id: int = client.post("/task-schedules/", json=body).json["task_schedule_id"]
    return schedule_id


def backfill(client: FlaskClient) -> Any:
    stretch = {"start": "2026-01-01T00:00:00Z", "end": "2026-01-01T01:00:00Z"}
    return client.post(f"/task-schedules/{schedule(client)}/backfill/", json=stretch).json


def latest(client: FlaskClient) -> Any:
    schedule_id = schedule(client)
    client.post(f"/task-schedules/{schedule_id}/trigger/")
    return client.get(f"/task-schedules/{schedule_id}/").json["tasks"]


def dry_run(client: FlaskClient) -> Any:
    client.post("/tasks/", json=long_request())
    return client.post("/tasks/cancel/", json={"all": True, "dry_run": True}).json["tasks"]


def batch(client: FlaskClient) -> Any:
    return client.post("/tasks/batch-request/", json=[long_request()]).json["tasks"]


@pytest.mark.parametrize("answer", [batch, backfill, latest, dry_run])
def test_every_list_of_tasks_leaves_them_out(client: FlaskClient, answer: Callable[[FlaskClient], Any]) -> None:
    [listed] = answer(client)
    assert (listed["params"], listed["truncated"], listed["failure_count"]) == (None, True, 0)
    assert get(client, listed["task_id"])["params"]["body"] == "b" * SHORT


def test_the_single_answers_have_all(client: FlaskClient) -> None:
    posted = client.post("/tasks/", json=long_request()).json
    triggered = client.post(f"/task-schedules/{schedule(client)}/trigger/").json
    assert posted["params"] == triggered["params"] == long_request()["params"]


def test_a_task_shows_its_latest_failures_the_oldest_of_these_first(client: FlaskClient, task_id: int) -> None:
    fail(client, task_id, LATEST + 5)
    task = get(client, task_id)
    assert task["failure_count"] == client.get("/tasks/").json[0]["failure_count"] == LATEST + 5
    times = [failure["failed_at"] for failure in task["failures"]]
    expected = [NOW + HOUR * claim for claim in range(6, LATEST + 6)]
    assert times == [time.isoformat().replace("+00:00", "Z") for time in expected]


def test_failures_are_counted_up_to_a_thousand(client: FlaskClient, task_id: int) -> None:
    fail(client, task_id, COUNTED + 1)
    assert get(client, task_id)["failure_count"] == client.get("/tasks/").json[0]["failure_count"] == COUNTED
