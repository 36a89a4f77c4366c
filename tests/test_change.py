"""PATCH /tasks/{id}/ changes a waiting task but not one that has started. No task is lost or run twice."""

import threading
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from scheduler_app.models import Status
from scheduler_app.services import dispatch
from scheduler_app.services.attempts import Attempt
from scheduler_app.worker.status_writer import StatusWriter
from tests.support.claims import begun, message
from tests.support.processes import Process, eventually
from tests.support.tasks import finished, get, submit
from tests.test_tasks_api import post, set_status

Start = Callable[..., Process]
LATER = "2040-01-01T00:00:00Z"


@pytest.fixture
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | {"BACKBEAT_OPERATIONS": "actors,tests.support.trial_operations"}


def change(client: FlaskClient, task_id: int, **fields: Any) -> dict[str, Any]:
    answer = client.patch(f"/tasks/{task_id}/", json=fields)
    assert answer.status_code == 200, answer.json
    return answer.json


def messages(valkey: Any, priority: int) -> list[str]:
    return [data.decode() for data in valkey.client.lrange(f"dramatiq:tasks.p{priority}", 0, -1)]


def relayed(app: Flask, now: datetime) -> int:
    with app.app_context():
        return dispatch.relay(now=now)


@pytest.mark.parametrize("status", [Status.PENDING, Status.RETRYING])
def test_a_waiting_task_is_changed_and_keeps_what_is_not_named(client: FlaskClient, status: Status) -> None:
    task = post(client)
    set_status(client, task["task_id"], status)
    changed = change(client, task["task_id"], run_at="2040-01-01T02:00:00+02:00", priority=2, max_retries=0)
    retry = task["retry"] | {"max_retries": 0}
    assert changed == task | {"status": status, "run_at": LATER, "priority": 2, "max_retries": 0, "retry": retry}
    assert change(client, task["task_id"], priority=3) == changed | {"priority": 3}
    assert change(client, task["task_id"]) == changed | {"priority": 3}


def test_another_priority_is_sent_at_once_with_a_message_of_its_own(client: FlaskClient, valkey: Any) -> None:
    task_id = post(client)["task_id"]
    change(client, task_id, priority=1)
    assert (messages(valkey, 1), messages(valkey, 5)) == ([f"{task_id}.1"], [f"{task_id}.0"])


@pytest.mark.parametrize("run_at", ["2001-01-01T00:00:00Z", None])
def test_a_time_in_the_past_is_now(client: FlaskClient, valkey: Any, run_at: str | None) -> None:
    task_id = post(client, run_at=LATER)["task_id"]
    changed = change(client, task_id, run_at=run_at)
    age = datetime.now(UTC) - datetime.fromisoformat(changed["run_at"])
    assert abs(age) < timedelta(seconds=30)
    assert messages(valkey, 5) == [f"{task_id}.1"]


def test_a_later_time_is_kept_by_the_relay(app: Flask, client: FlaskClient, valkey: Any) -> None:
    task_id = post(client)["task_id"]
    change(client, task_id, run_at=LATER)
    due = datetime(2040, 1, 1, tzinfo=UTC)
    assert relayed(app, due - timedelta(seconds=1)) == 0
    assert relayed(app, due + timedelta(seconds=3)) == 1
    assert messages(valkey, 5) == [f"{task_id}.0", f"{task_id}.1"]


def test_fewer_retries_leave_a_task_its_place(client: FlaskClient, valkey: Any) -> None:
    task_id = post(client)["task_id"]
    change(client, task_id, max_retries=0)
    assert messages(valkey, 5) == [f"{task_id}.0"]


def test_what_was_changed_while_redis_was_away_is_sent_later(
    app: Flask, client: FlaskClient, valkey: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = post(client)["task_id"]
    valkey.client.config_set("maxclients", 1)
    valkey.client.client_kill_filter(_type="normal", skipme=True)
    try:
        change(client, task_id, priority=1)
    finally:
        valkey.client.config_set("maxclients", 1000)
    assert messages(valkey, 1) == []
    assert relayed(app, datetime.now(UTC) + timedelta(seconds=3)) == 1
    assert messages(valkey, 1) == [f"{task_id}.1"]


@pytest.mark.parametrize("status", [Status.STARTED, Status.SUCCESS, Status.ERROR, Status.CANCELLED])
def test_what_does_not_wait_is_not_changed(client: FlaskClient, status: Status) -> None:
    task = post(client)
    set_status(client, task["task_id"], status)
    answer = client.patch(f"/tasks/{task['task_id']}/", json={"priority": 0})
    assert (answer.status_code, status in answer.json["message"]) == (409, True)
    assert get(client, task["task_id"])["priority"] == 5


def test_a_task_that_is_not_there_is_not_found(client: FlaskClient) -> None:
    assert client.patch("/tasks/4711/", json={"priority": 0}).status_code == 404


@pytest.mark.parametrize(
    ("field", "value"),
    [("run_at", "tomorrow"), ("priority", 10), ("priority", None), ("max_retries", 101), ("max_retries", None),
     ("params", {}), ("operation", "1+1")],
)  # fmt: skip
def test_a_wrong_change_is_named_and_changes_nothing(client: FlaskClient, field: str, value: Any) -> None:
    task = post(client)
    answer = client.patch(f"/tasks/{task['task_id']}/", json={"priority": 0} | {field: value})
    assert (answer.status_code, list(answer.json["errors"]["json"])) == (422, [field])
    assert get(client, task["task_id"])["priority"] == 5


def test_of_a_change_and_a_claim_at_the_same_moment_one_wins(app: Flask, client: FlaskClient, valkey: Any) -> None:
    ids = submit(client, *[{"operation": "1+1"}] * 40)
    at_once = threading.Barrier(2, timeout=60)
    claimed: dict[int, Attempt | None] = {}
    answers: dict[int, int] = {}

    def claim() -> None:
        with app.app_context(), closing(StatusWriter("a worker")) as writer:
            for task_id in ids:
                at_once.wait()
                claimed[task_id] = begun(writer, message(task_id), now=datetime.now(UTC))

    def patch() -> None:
        for task_id in ids:
            at_once.wait()
            answers[task_id] = app.test_client().patch(f"/tasks/{task_id}/", json={"priority": 1}).status_code

    threads = [threading.Thread(target=act) for act in (claim, patch)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    changed = [task_id for task_id in ids if answers[task_id] == 200]
    assert sorted(answers.values()) == [200] * len(changed) + [409] * (40 - len(changed))
    assert [task_id for task_id in ids if claimed[task_id] is None] == changed
    assert messages(valkey, 1) == [f"{task_id}.1" for task_id in changed]
    statuses = {task_id: get(client, task_id)["status"] for task_id in ids}
    assert statuses == {task_id: "PENDING" if task_id in changed else "STARTED" for task_id in ids}


def test_tasks_that_are_changed_under_a_worker_run_once_each(client: FlaskClient, valkey: Any, worker: Start) -> None:
    ids = submit(client, *[{"operation": "trial.wait", "params": {"seconds": 0.02}}] * 60)

    def change(some: list[int]) -> list[int]:
        changes = ({"priority": 9}, {"priority": 0, "run_at": None})
        return [client.patch(f"/tasks/{id_}/", json=fields).status_code for id_ in some for fields in changes]

    assert set(change(ids[:30])) == {200}  # nobody has begun them
    worker(threads=2)
    assert set(change(ids[:29:-1])) <= {200, 409}  # which of the two depends on who is faster
    tasks = finished(client, ids, within=40)
    assert {(task["status"], task["attempts"]) for task in tasks} == {("SUCCESS", 1)}
    eventually(lambda: not any(valkey.client.hlen(f"dramatiq:tasks.p{priority}.msgs") for priority in range(10)))
