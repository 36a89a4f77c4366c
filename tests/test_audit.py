"""The audit log: who changed what, in the transaction of the change."""

from datetime import UTC, datetime

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.exc import StatementError

from scheduler_app.extensions import db
from scheduler_app.services import audit, callers, control

LATER = "2999-12-31T23:00:00Z"


def actions(client: FlaskClient) -> list[tuple[str, str | None, int]]:
    """Oldest first."""
    return [(one["action"], one["target"], one["count"]) for one in reversed(client.get("/audit/").json)]


def test_every_change_but_posting_tasks_is_written_down(client: FlaskClient) -> None:
    for _ in range(2):
        client.post("/tasks/", json={"operation": "4+7", "run_at": LATER})
    assert actions(client) == []
    client.patch("/tasks/1/", json={"priority": 1})
    client.post("/tasks/1/cancel/")
    client.post("/tasks/1/retry/")
    client.post("/tasks/cancel/", json={"status": "PENDING", "created_after": "2001-01-01T00:00:00Z"})
    client.post("/tasks/retry/", json={"all": True})
    client.delete("/tasks/2/")
    client.post("/tasks/1/cancel/")
    client.post("/tasks/delete/", json={"task_ids": [1, 2]})
    client.post("/task-schedules/", json={"operation": "4+7", "cron": "0 0 * * *"})
    client.patch("/task-schedules/1/", json={"priority": 1})
    client.post("/task-schedules/1/pause/")
    client.post("/task-schedules/1/resume/")
    client.post("/task-schedules/1/trigger/")
    client.post("/task-schedules/1/backfill/", json={"start": "2026-01-01T00:00:00Z", "end": "2026-01-03T00:00:00Z"})
    client.delete("/task-schedules/1/")
    assert actions(client) == [
        ("task.change", "1", 1),
        ("task.cancel", "1", 1),
        ("task.retry", "1", 1),
        ("tasks.cancel", None, 2),
        ("tasks.retry", None, 2),
        ("task.delete", "2", 1),
        ("task.cancel", "1", 1),
        ("tasks.delete", None, 1),
        ("task-schedule.create", "1", 1),
        ("task-schedule.change", "1", 1),
        ("task-schedule.pause", "1", 1),
        ("task-schedule.resume", "1", 1),
        ("task-schedule.trigger", "1", 1),
        ("task-schedule.backfill", "1", 2),
        ("task-schedule.delete", "1", 1),
    ]
    entries = client.get("/audit/").json
    assert {(entry["caller"], entry["address"]) for entry in entries} == {("local", "127.0.0.1")}
    filters = next(entry["details"] for entry in entries if entry["action"] == "tasks.cancel")
    assert filters == {"status": ["PENDING"], "created_after": "2001-01-01T00:00:00+00:00"}


def test_what_changed_nothing_is_not_written_down(client: FlaskClient) -> None:
    client.post("/tasks/", json={"operation": "4+7", "run_at": LATER})
    assert client.post("/tasks/1/retry/").status_code == 409
    assert client.post("/tasks/9/cancel/").status_code == 404
    for call in ("retry", "delete"):
        assert client.post(f"/tasks/{call}/", json={"all": True}).json["task_ids"] == []
    assert actions(client) == []


def test_the_log_comes_in_pages(client: FlaskClient) -> None:
    for number in range(3):
        client.post("/task-schedules/", json={"operation": "4+7", "cron": f"{number} 0 * * *"})
    first = client.get("/audit/?limit=2")
    assert [entry["target"] for entry in first.json] == ["3", "2"]
    following = client.get(first.headers["Link"].split(">")[0][1:])
    assert [entry["target"] for entry in following.json] == ["1"]
    assert "Link" not in following.headers


def test_a_change_that_cannot_be_written_down_is_not_made(app: Flask, client: FlaskClient) -> None:
    client.post("/tasks/", json={"operation": "4+7", "run_at": LATER})
    with app.app_context():
        token = callers.current.set(callers.Caller("x", address=object()))  # type: ignore[arg-type]
        with pytest.raises(StatementError):
            control.cancel(1, now=datetime.now(UTC))
        callers.current.reset(token)
        db.session.rollback()
    assert client.get("/tasks/1/").json["status"] == "PENDING"


def test_what_nobody_outside_asked_for_is_not_written_down(app: Flask, client: FlaskClient) -> None:
    client.post("/tasks/", json={"operation": "4+7", "run_at": LATER})
    with app.app_context():
        control.cancel(1, now=datetime.now(UTC))
        assert audit.find(limit=10) == ([], None)
