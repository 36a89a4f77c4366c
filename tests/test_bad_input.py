"""Bad input gets a clear answer that names the field. It creates nothing, and never causes a 500."""

import json
from typing import Any

import pytest
from flask.testing import FlaskClient

DEEP = "[" * 100_000 + "]" * 100_000

FIELDS: list[tuple[str, Any, str]] = [
    ("operation", None, "operation"),
    ("operation", 7, "operation"),
    ("operation", "", "operation"),
    ("operation", "nonsense", "operation"),
    ("operation", "NOT_A_NAME", "operation"),
    ("operation", "4+", "operation"),
    ("operation", "1" * 100_000, "operation"),
    ("operation", "(" * 10_000 + "1" + ")" * 10_000, "operation"),
    ("operation", "__import__('os')", "operation"),
    ("params", [], "params"),
    ("params", {"unknown": 1}, "params"),
    ("params", {"x": "y" * 70_000}, "params"),
    ("priority", 10, "priority"),
    ("priority", -1, "priority"),
    ("priority", "high", "priority"),
    ("priority", "5", "priority"),
    ("priority", True, "priority"),
    ("priority", 5.5, "priority"),
    ("priority", None, "priority"),
    ("priority", 2**70, "priority"),
    ("run_at", "2040-01-01T00:00:00", "run_at"),
    ("run_at", "tomorrow", "run_at"),
    ("run_at", 1735689600, "run_at"),
    ("run_at", "9999-12-31T23:59:59-14:00", "run_at"),
    ("run_at", "0001-01-01T00:00:00+14:00", "run_at"),
    ("max_retries", -1, "max_retries"),
    ("max_retries", 101, "max_retries"),
    ("max_retries", False, "max_retries"),
    ("colour", "red", "colour"),
]


@pytest.mark.parametrize(("field", "value", "named"), FIELDS)
def test_a_wrong_field_of_a_task_is_named(client: FlaskClient, field: str, value: Any, named: str) -> None:
    answer = client.post("/tasks/", json={"operation": "1+1"} | {field: value})
    assert (answer.status_code, answer.json["code"]) == (422, 422)
    assert list(answer.json["errors"]["json"]) == [named]
    assert client.get("/tasks/").json == []


SCHEDULE_FIELDS: list[tuple[str, Any, str]] = [
    ("every_x_hours", 0, "every_x_hours"),
    ("every_x_hours", 1.5, "every_x_hours"),
    ("every_x_hours", None, "every_x_hours"),
    ("every_x_days", 10**6, "every_x_days"),
    ("schedule_x_times", 0, "schedule_x_times"),
    ("schedule_x_times", 2**31, "schedule_x_times"),
    ("start_at", "2040-01-01", "start_at"),
    ("end_at", "2001-01-01T00:00:00", "end_at"),
    ("name", "x" * 201, "name"),
    ("name", "a\0b", "name"),
    ("times_scheduled", 7, "times_scheduled"),
]


@pytest.mark.parametrize(("field", "value", "named"), SCHEDULE_FIELDS)
def test_a_wrong_field_of_a_schedule_is_named(client: FlaskClient, field: str, value: Any, named: str) -> None:
    answer = client.post("/task-schedules/", json={"operation": "1+1", "every_x_hours": 1} | {field: value})
    assert answer.status_code == 422
    assert list(answer.json["errors"]["json"]) == [named]
    assert client.get("/task-schedules/").json == []


BODIES: list[tuple[bytes, int]] = [
    (b"{", 400),
    (b"\xff\xfe", 400),
    (b'{"operation": "1+1", "priority": NaN}', 400),
    (b'{"operation": "1+1", "params": {"x": Infinity}}', 400),
    (b'{"operation": "1+1", "params": {"x": 1e999}}', 400),
    (b'{"operation": "\\ud800"}', 400),
    (b'{"operation": "1+1", "params": {"\\ud800": 1}}', 400),
    (b'{"operation": "1+1", "priority": ' + b"9" * 5_000 + b"}", 400),
    (DEEP.encode(), 400),
    (b'{"operation": "1+1", "params": {"x": ' + b"[" * 50 + b"]" * 50 + b"}}", 400),
    (b'"' + b"x" * 10_000_000 + b'"', 413),
    (b'{"operation": "a\\u0000b"}', 422),
    (b"[]", 422),
    (b"null", 422),
    (b"", 422),
]


@pytest.mark.parametrize(("body", "status"), BODIES, ids=lambda value: repr(value)[:40])
@pytest.mark.parametrize("path", ["/tasks/", "/task-schedules/"])
def test_a_body_that_cannot_be_a_request_is_refused(client: FlaskClient, path: str, body: bytes, status: int) -> None:
    answer = client.post(path, data=body, content_type="application/json")
    assert answer.status_code == status, answer.json
    assert answer.json["message"]
    assert client.get(path).json == []


def test_a_body_of_another_type_is_refused(client: FlaskClient) -> None:
    answer = client.post("/tasks/", data=json.dumps({"operation": "1+1"}), content_type="text/plain")
    assert answer.status_code == 415
    assert client.post("/tasks/", data={"operation": "1+1"}).status_code == 415


@pytest.mark.parametrize("resource", ["tasks", "task-schedules"])
@pytest.mark.parametrize("bad", ["-1", "0", "abc", str(2**63), str(2**70), "1.5", "%00", "é"])
def test_an_id_that_cannot_be_is_not_found(client: FlaskClient, resource: str, bad: str) -> None:
    for method in ("GET", "DELETE"):
        answer = client.open(f"/{resource}/{bad}/", method=method)
        assert (answer.status_code, answer.json["code"]) == (404, 404)


def test_an_id_that_is_not_there_is_named(client: FlaskClient) -> None:
    assert client.get("/tasks/123456/").json["message"] == "There is no task 123456."
    assert client.delete("/task-schedules/9/").json["message"] == "There is no task schedule 9."


def test_a_method_that_is_not_there_says_which_are(client: FlaskClient) -> None:
    answer = client.put("/tasks/", json={})
    assert answer.status_code == 405
    assert {"GET", "POST"} <= set(answer.headers["Allow"].split(", "))
    assert answer.json["status"] == "Method Not Allowed"


def test_a_path_that_is_not_there_answers_in_the_one_shape(client: FlaskClient) -> None:
    assert set(client.get("/nothing").json) == {"code", "status", "message"}
