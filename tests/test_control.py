"""Tasks are cancelled and retried."""

from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from scheduler_app.models import Status
from tests.support.processes import Process, eventually
from tests.support.tasks import finished, get, set_status, started, submit

Start = Callable[..., Process]


@pytest.fixture
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | {"BACKBEAT_OPERATIONS": "actors,tests.support.trial_operations"}


@pytest.mark.parametrize("status", [Status.PENDING, Status.RETRYING])
def test_a_waiting_task_is_cancelled_at_once_and_does_not_run(
    client: FlaskClient, worker: Start, status: Status
) -> None:
    cancelled, other = submit(client, {"operation": "1+1"}, {"operation": "2+2"})
    set_status(client, [cancelled], status)
    answer = client.post(f"/tasks/{cancelled}/cancel/")
    assert (answer.status_code, answer.json["status"]) == (200, "CANCELLED")
    assert answer.json["finished_at"]
    worker()
    finished(client, [other])
    detail = {"failures": [], "failure_count": 0, "waiting_for": None, "delivery": None}
    assert get(client, cancelled) == answer.json | detail


@pytest.mark.parametrize("operation", ["trial.ask", "trial.spin_for_ever"])
def test_a_running_task_stops_within_two_seconds(client: FlaskClient, worker: Start, operation: str) -> None:
    worker()
    [task_id] = submit(client, {"operation": operation})
    started(client, task_id)
    answer = client.post(f"/tasks/{task_id}/cancel/")
    assert (answer.status_code, answer.json["status"], answer.json["cancel_requested"]) == (200, "STARTED", True)
    [task] = finished(client, [task_id], within=4)
    assert (task["status"], task["cancel_requested"]) == ("CANCELLED", False)
    assert task["error"]["type"] == "Cancelled"


def test_success_wins_over_a_cancellation(client: FlaskClient, worker: Start) -> None:
    worker()
    [task_id] = submit(client, {"operation": "trial.shield", "params": {"seconds": 1.5}})
    started(client, task_id)
    client.post(f"/tasks/{task_id}/cancel/")
    [task] = finished(client, [task_id])
    assert (task["status"], task["result"], task["cancel_requested"]) == ("SUCCESS", "done", False)


def test_a_cancelled_task_that_fails_is_not_retried(client: FlaskClient, worker: Start) -> None:
    worker()
    [task_id] = submit(client, {"operation": "trial.fail_late", "params": {"seconds": 0.4}})
    started(client, task_id)
    client.post(f"/tasks/{task_id}/cancel/")
    [task] = finished(client, [task_id])
    assert (task["status"], task["attempts"]) == ("CANCELLED", 1)
    assert len(task["failures"]) == 1


@pytest.mark.parametrize("status", [Status.SUCCESS, Status.ERROR, Status.CANCELLED])
def test_what_has_finished_cannot_be_cancelled(client: FlaskClient, status: Status) -> None:
    [task_id] = submit(client, {"operation": "1+1"})
    set_status(client, [task_id], status)
    answer = client.post(f"/tasks/{task_id}/cancel/")
    assert answer.status_code == 409
    assert status in answer.json["message"]


def test_a_failed_task_is_retried_with_all_its_attempts_before_it(client: FlaskClient, worker: Start) -> None:
    worker()
    [task_id] = submit(client, {"operation": "trial.give_up"})
    [failed] = finished(client, [task_id])
    assert client.post(f"/tasks/{task_id}/retry/").status_code == 202
    eventually(lambda: len(get(client, task_id)["failures"]) == 2)
    [again] = finished(client, [task_id])
    assert (again["status"], again["attempts"]) == ("ERROR", 1)
    assert [failure["attempt"] for failure in again["failures"]] == [1, 1]
    assert again["failures"][0] == failed["failures"][0]


@pytest.mark.parametrize("status", [Status.ERROR, Status.CANCELLED])
def test_a_retried_task_is_as_if_newly_posted(client: FlaskClient, status: Status) -> None:
    [task_id] = submit(client, {"operation": "1+1"})
    posted = get(client, task_id)
    set_status(client, [task_id], status)
    answer = client.post(f"/tasks/{task_id}/retry/")
    assert answer.status_code == 202
    assert get(client, task_id) == posted | {"run_at": answer.json["run_at"]}


@pytest.mark.parametrize("status", [Status.PENDING, Status.RETRYING, Status.STARTED, Status.SUCCESS])
def test_only_what_has_failed_or_was_cancelled_can_be_retried(client: FlaskClient, status: Status) -> None:
    [task_id] = submit(client, {"operation": "1+1"})
    set_status(client, [task_id], status)
    answer = client.post(f"/tasks/{task_id}/retry/")
    assert answer.status_code == 409
    assert status in answer.json["message"]


def test_a_retry_has_a_message_of_its_own_beside_one_that_is_about_to_go(client: FlaskClient, valkey: Any) -> None:
    [task_id] = submit(client, {"operation": "1+1"})
    client.post(f"/tasks/{task_id}/cancel/")
    client.post(f"/tasks/{task_id}/retry/")
    messages = [f"{task_id}.0".encode(), f"{task_id}.1".encode()]
    assert valkey.client.lrange("dramatiq:tasks.p5", 0, -1) == messages


@pytest.mark.parametrize("call", ["cancel", "retry"])
def test_a_task_that_is_not_there_is_not_found(client: FlaskClient, call: str) -> None:
    assert client.post(f"/tasks/4711/{call}/").status_code == 404


def test_many_are_retried_by_filter_the_oldest_first_and_so_many_at_most(client: FlaskClient, valkey: Any) -> None:
    ids = submit(client, *[{"operation": "1+1", "priority": n % 2} for n in range(10)])
    set_status(client, ids[:8], Status.ERROR)
    valkey.client.flushall()
    answer = client.post("/tasks/retry/", json={"priority": 1, "limit": 3})
    assert (answer.status_code, answer.json["task_ids"]) == (202, [ids[1], ids[3], ids[5]])
    assert valkey.client.llen("dramatiq:tasks.p1") == 3
    assert client.post("/tasks/retry/", json={"status": "CANCELLED"}).json["task_ids"] == []
    assert client.post("/tasks/retry/", json={"all": True}).json["task_ids"] == [ids[0], ids[2], ids[4], ids[6], ids[7]]


def test_many_are_cancelled_by_filter(client: FlaskClient) -> None:
    ids = submit(client, *[{"operation": "1+1"}] * 5)
    set_status(client, ids[:1], Status.SUCCESS)
    set_status(client, ids[1:2], Status.STARTED)
    answer = client.post("/tasks/cancel/", json={"operation": "calculate", "limit": 3})
    assert answer.json["task_ids"] == ids[1:4]
    assert [get(client, task_id)["status"] for task_id in ids] == [
        "SUCCESS",
        "STARTED",
        "CANCELLED",
        "CANCELLED",
        "PENDING",
    ]
    assert get(client, ids[1])["cancel_requested"]
