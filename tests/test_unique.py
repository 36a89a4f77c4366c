"""Of tasks with one key of `unique` there is only one at a time, whoever posts, retries and runs at the same moment."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, select, update

from scheduler_app.access_models import Scope
from scheduler_app.extensions import db
from scheduler_app.models import Task
from scheduler_app.services import attempts, expiry, unique
from tests.support.claims import claim, succeed
from tests.support.pages import new_key
from tests.support.processes import Process
from tests.support.tasks import finished, get

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)
LATER = "2040-01-01T00:00:00Z"
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # one kind is enough there


def body(until: Any = "finished", then: str = "keep", key: str = "report-17", **fields: Any) -> dict[str, Any]:
    return {"operation": "4+7", "unique": {"key": key, "until": until, "then": then}} | fields


def post(client: FlaskClient, until: Any = "finished", then: str = "keep", **fields: Any) -> tuple[int, Any]:
    answer = client.post("/tasks/", json=body(until, then, **fields))
    return answer.status_code, answer.json


def new(client: FlaskClient, *args: Any, **fields: Any) -> int:
    status, task = post(client, *args, **fields)
    assert status == 202, task
    return int(task["task_id"])


def begin(app: Flask, task_id: int, claims: int = 0) -> Any:
    with app.app_context():
        attempt = claim(task_id, claims, worker_id="w", now=datetime.now(UTC))
        assert attempt
        return attempt


def end(app: Flask, attempt: Any, error: Exception | None = None) -> None:
    with app.app_context():
        if error:
            attempts.fail(attempt, error, now=datetime.now(UTC))
        else:
            succeed(attempt, 11, now=datetime.now(UTC))


def messages(valkey: Any) -> list[str]:
    return [data.decode() for data in valkey.client.lrange("dramatiq:tasks.p5", 0, -1)]


def test_a_second_post_answers_200_with_the_task_that_is_there(client: FlaskClient, valkey: Any) -> None:
    status, first = post(client)
    assert (status, first["unique"]) == (202, {"key": "report-17", "until": "finished"})
    answer = client.post("/tasks/", json=body(operation="5+8", priority=1))
    assert (answer.status_code, answer.json) == (200, first)
    assert answer.headers["Location"] == f"/tasks/{first['task_id']}/"
    assert messages(valkey) == [f"{first['task_id']}.0"]
    assert get(client, new(client, key="report-18"))["unique"]["key"] == "report-18"
    assert client.get("/tasks/").json[1]["unique"] == first["unique"]
    assert client.post("/tasks/", json={"operation": "4+7"}).json["unique"] is None


def test_a_key_counts_within_its_operation(client: FlaskClient) -> None:
    new(client)
    new(client, operation="http_request", params={"url": "http://localhost/"})


@pytest.mark.parametrize(
    ("until", "held"),
    [
        ("begun", {"waiting"}),
        ("finished", {"waiting", "running", "retrying"}),
        (3_600, {"waiting", "running", "retrying", "done", "cancelled", "expired"}),
    ],
)
def test_a_key_is_held_until_the_time_that_is_given(
    app: Flask, client: FlaskClient, until: Any, held: set[str]
) -> None:
    def is_held(state: str) -> bool:
        key = f"{until}-{state}"
        first = new(client, until, key=key)
        if state in ("running", "retrying", "done"):
            attempt = begin(app, first)
            if state != "running":
                end(app, attempt, RuntimeError("no") if state == "retrying" else None)
        if state == "cancelled":
            client.post(f"/tasks/{first}/cancel/")
        if state == "expired":
            client.patch(f"/tasks/{first}/", json={"expires_at": "2020-01-01T00:00:00Z"})
            with app.app_context():
                expiry.expire(now=datetime.now(UTC))
        status, task = post(client, until, key=key)
        assert (task["task_id"] == first) == (status == 200)
        return status == 200

    states = ("waiting", "running", "retrying", "done", "cancelled", "expired")
    assert {state for state in states if is_held(state)} == held


def test_seconds_count_from_the_post(app: Flask, client: FlaskClient) -> None:
    first = new(client, 60)
    assert post(client, 60)[0] == 200
    with app.app_context():
        db.session.execute(update(Task).values(created_at=datetime.now(UTC) - timedelta(seconds=61)))
        db.session.commit()
    assert new(client, 60) != first


def test_a_deleted_task_holds_no_key(client: FlaskClient) -> None:
    client.delete(f"/tasks/{new(client)}/")
    new(client)


def test_the_task_that_has_a_key_is_found_by_it(app: Flask, client: FlaskClient) -> None:
    def found(**query: str) -> list[int]:
        return [task["task_id"] for task in client.get("/tasks/", query_string=query).json]

    first, other = new(client), new(client, key="report-18")
    elsewhere = new(client, operation="http_request", params={"url": "http://localhost/"})
    assert found(unique_key="report-17", operation="calculate") == [first]
    assert found(unique_key="report-17") == [elsewhere, first]
    assert found(unique_key="report-17", status="ERROR") == found(unique_key="report-1") == []
    end(app, begin(app, first))
    assert found(unique_key="report-17", operation="calculate") == [first], "it had it last"
    second = new(client)
    assert found(unique_key="report-17", operation="calculate") == [second]
    reached = client.post("/tasks/cancel/", json={"unique_key": "report-17", "operation": "calculate"}).json
    assert reached == {"task_ids": [second], "remaining": 0, "next_cursor": None}
    assert get(client, other)["status"] == get(client, elsewhere)["status"] == "PENDING"
    page = client.get(f"/dashboard/tasks/{other}").text
    assert 'href="/dashboard/tasks?q=operation:calculate+unique:report-18"' in page
    shown = client.get("/dashboard/tasks?q=operation:calculate+unique:report-18").text
    assert [f'<tr id="t-{task_id}"' in shown for task_id in (first, other, elsewhere)] == [False, True, False]


def test_replacing_gives_the_waiting_task_new_parameters_and_times(client: FlaskClient, valkey: Any) -> None:
    """A debounce: each post moves the task on."""
    first = new(client, then="replace", run_at=LATER, labels={"a": "b"}, priority=3)
    status, task = post(client, then="replace", operation="5+8", run_at="2040-01-02T00:00:00Z", expires_in=60)
    assert (status, task["task_id"]) == (200, first)
    assert (task["params"], task["run_at"]) == ({"expression": "5+8"}, "2040-01-02T00:00:00Z")
    assert (task["expires_at"], task["labels"], task["priority"]) == ("2040-01-02T00:01:00Z", {"a": "b"}, 3)
    assert get(client, first)["params"] == {"expression": "5+8"}
    assert valkey.client.keys("dramatiq:tasks.p3") == []
    status, task = post(client, then="replace")
    assert (status, task["task_id"], task["expires_at"]) == (200, first, None)
    assert valkey.client.lrange("dramatiq:tasks.p3", 0, -1) == [f"{first}.2".encode()]


@pytest.mark.parametrize("state", ["running", "retrying"])
def test_what_has_begun_is_not_replaced(app: Flask, client: FlaskClient, state: str) -> None:
    first = new(client)
    attempt = begin(app, first)
    if state == "retrying":
        end(app, attempt, RuntimeError("no"))
    status, answer = post(client, then="replace", operation="5+8")
    assert (status, answer["message"]) == (
        409,
        f"Task {first} has the key 'report-17', and has begun: it cannot be replaced.",
    )
    assert get(client, first)["params"] == {"expression": "4+7"}
    assert post(client)[0] == 200


def test_a_batch_has_for_each_entry_the_task_that_stands_for_it(app: Flask, client: FlaskClient, valkey: Any) -> None:
    there, begun = new(client, key="there"), new(client, key="begun")
    begin(app, begun)
    batch = [
        body(key="z"),
        {"operation": "1+1"},
        body(key="there"),
        body(key="a", labels={"n": "3"}),
        body(key="z", operation="9+9"),
        body(key="begun", then="replace"),
        {"operation": "2+2", "priority": 99},
        body(key="begun"),
        body(key="a", then="replace", operation="7+7"),
    ]
    answer = client.post("/tasks/batch-request/", json=batch)
    assert answer.status_code == 202
    errors = {error["index"]: error["errors"] for error in answer.json["errors"]}
    assert errors.keys() == {5, 6}
    assert "has begun" in errors[5]["unique"][0]
    ids = [task["task_id"] for task in answer.json["tasks"]]
    z, plain, kept, a, z_again, begun_kept, a_again = ids
    assert (z, kept, begun_kept, a) == (z_again, there, begun, a_again)
    assert len({z, plain, a, there, begun}) == 5
    assert sorted(answer.json["existing"]) == sorted({there, begun, z, a})
    assert get(client, z)["params"] == {"expression": "4+7"}
    assert (get(client, a)["params"], get(client, a)["labels"]) == ({"expression": "7+7"}, {"n": "3"})
    assert get(client, plain)["params"] == {"expression": "1+1"}
    assert f"{a}.1" in messages(valkey)


def test_an_atomic_batch_with_one_that_cannot_be_replaced_creates_nothing(app: Flask, client: FlaskClient) -> None:
    begun = new(client)
    begin(app, begun)
    batch = [{"operation": "1+1"}, body(then="replace")]
    answer = client.post("/tasks/batch-request/?atomic=true", json=batch)
    assert (answer.status_code, f"Task {begun}" in answer.json["message"]) == (409, True)
    assert len(client.get("/tasks/").json) == 1


def test_an_idempotency_key_repeats_the_answer_that_met_a_task(client: FlaskClient) -> None:
    first = new(client)
    answers = [client.post("/tasks/", json=body(), headers={"Idempotency-Key": "once"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert [answer.json["task_id"] for answer in answers] == [first, first]
    assert answers[1].headers["Idempotent-Replayed"] == "true"


def test_a_retry_by_hand_takes_its_key_again(app: Flask, client: FlaskClient) -> None:
    first = new(client)
    client.post(f"/tasks/{first}/cancel/")
    second = new(client)
    refused = client.post(f"/tasks/{first}/retry/")
    says = f"Task {first} cannot run again now: task {second} has its key 'report-17'."
    assert (refused.status_code, refused.json["message"]) == (409, says)
    client.post(f"/tasks/{second}/cancel/")
    assert client.post(f"/tasks/{first}/retry/").status_code == 202
    status, task = post(client)
    assert (status, task["task_id"]) == (200, first)
    assert client.post(f"/tasks/{second}/retry/").status_code == 409
    assert get(client, second)["status"] == "CANCELLED"


def test_a_retry_whose_key_nobody_took_meanwhile_keeps_it(client: FlaskClient) -> None:
    first = new(client)
    client.post(f"/tasks/{first}/cancel/")
    assert client.post(f"/tasks/{first}/retry/").status_code == 202
    assert post(client)[1]["task_id"] == first


def test_a_task_unique_for_seconds_that_are_over_is_retried_without_its_key(app: Flask, client: FlaskClient) -> None:
    first = new(client, 60)
    client.post(f"/tasks/{first}/cancel/")
    with app.app_context():
        db.session.execute(update(Task).values(created_at=datetime.now(UTC) - timedelta(seconds=61)))
        db.session.commit()
    second = new(client, 60)
    assert client.post(f"/tasks/{first}/retry/").status_code == 202
    assert post(client, 60)[1]["task_id"] == second


def test_a_retry_of_many_leaves_out_those_whose_key_is_held(client: FlaskClient) -> None:
    ids = []
    for _ in range(3):
        ids.append(new(client))
        client.post(f"/tasks/{ids[-1]}/cancel/")
    other = client.post("/tasks/", json={"operation": "1+1"}).json["task_id"]
    client.post(f"/tasks/{other}/cancel/")
    assert client.post("/tasks/retry/", json={"all": True}).json["task_ids"] == [ids[2], other], "it still had it"
    assert client.post("/tasks/retry/", json={"all": True}).json["task_ids"] == []
    client.post(f"/tasks/{ids[2]}/cancel/")
    last = new(client)
    client.post(f"/tasks/{last}/cancel/")
    client.delete(f"/tasks/{last}/")
    client.post("/tasks/delete/", json={"task_ids": [last]})
    assert client.post("/tasks/retry/", json={"all": True}).json["task_ids"] == [ids[0]], "only one can have it"


def test_a_retry_that_a_post_overtakes_is_refused(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its look and its write."""
    first = new(client)
    client.post(f"/tasks/{first}/cancel/")
    client.post(f"/tasks/{new(client)}/cancel/")
    real, posted = unique._holders, []

    def look(*args: Any) -> Any:
        found = real(*args)
        if not posted:
            posted.append(0)
            db.session.commit()  # the other one is another connection; SQLite lets only one write at a time
            posted[0] = new(app.test_client())
        return found

    monkeypatch.setattr(unique, "_holders", lambda *args: look(*args) if not args[1] else real(*args))
    assert client.post(f"/tasks/{first}/retry/").status_code == 409
    assert [task["task_id"] for task in client.get("/tasks/?status=PENDING").json] == posted


def test_many_at_once_create_exactly_one(app: Flask, another: Callable[..., Flask]) -> None:
    clients = [one.test_client() for one in (app, another())]
    barrier = threading.Barrier(8)

    def all_keys(number: int) -> list[int]:
        barrier.wait()
        keys = sorted(range(12), key=lambda key: key * number % 13)  # each in an order of its own
        answer = clients[number % 2].post("/tasks/batch-request/", json=[body(key=str(key)) for key in keys])
        assert answer.status_code == 202, answer.json
        found = {key: task["task_id"] for key, task in zip(keys, answer.json["tasks"], strict=True)}
        return [found[key] for key in range(12)]

    for _ in range(3):
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(all_keys, range(1, 9)))
        assert len({tuple(ids) for ids in answers}) == 1
        clients[0].post("/tasks/cancel/", json={"all": True})
    with app.app_context():
        assert db.session.scalar(select(func.count()).select_from(Task)) == 3 * 12


def test_posts_and_workers_at_once_leave_one_unfinished(
    app: Flask, client: FlaskClient, worker: Callable[..., Process]
) -> None:
    """Each task was posted after the one before had ended, and none of them overlap."""
    worker()

    def hammer(_: int) -> list[int]:
        own = app.test_client()
        return [own.post("/tasks/", json=body()).json["task_id"] for _ in range(40)]

    with ThreadPoolExecutor(4) as pool:
        ids = sorted({task_id for found in pool.map(hammer, range(4)) for task_id in found})
    tasks = finished(client, ids)
    assert {task["status"] for task in tasks} == {"SUCCESS"}
    for before, after in pairwise(tasks):
        assert before["finished_at"] <= after["started_at"]


@pytest.mark.parametrize(
    ("given", "errors"),
    [
        ({}, {"key": ["Missing data for required field."]}),
        ({"key": ""}, {"key": ["1 to 200 characters, no control characters."]}),
        ({"key": "a\0"}, {"key": ["1 to 200 characters, no control characters."]}),
        (
            {"key": "a", "until": "begin"},
            {"until": ["Must be 'begun', 'finished' or a whole number of seconds from 1 to 31622400."]},
        ),
        (
            {"key": "a", "until": 0.5},
            {"until": ["Must be 'begun', 'finished' or a whole number of seconds from 1 to 31622400."]},
        ),
        ({"key": "a", "then": "drop"}, {"then": ["Must be one of: keep, replace."]}),
    ],
)
@ON_SQLITE
def test_what_makes_no_sense_is_refused(client: FlaskClient, given: dict[str, Any], errors: dict[str, Any]) -> None:
    answer = client.post("/tasks/", json={"operation": "4+7", "unique": given})
    assert (answer.status_code, answer.json["errors"]["json"]) == (422, {"unique": errors})


@ON_SQLITE
def test_a_key_bound_to_other_operations_meets_nothing(app: Flask, client: FlaskClient) -> None:
    keys = new_key(app, "all", Scope.WRITE), new_key(app, "other", Scope.WRITE, "http_request")
    answers = [client.post("/tasks/", json=body(), headers={"Authorization": f"Bearer {key}"}) for key in keys]
    assert [answer.status_code for answer in answers] == [202, 403]


def test_the_dashboard_shows_the_key_and_the_log_who_replaced_what(app: Flask, client: FlaskClient) -> None:
    first = new(client, 3_600, then="replace", run_at=LATER)
    assert "report-17</a>, for 1 h" in client.get(f"/dashboard/tasks/{first}").text
    post(client, 3_600, then="replace", run_at=LATER)
    assert "replaced the parameters of task" in client.get("/dashboard/log").text
    assert client.get("/audit/").json[0]["action"] == "task.replace"
