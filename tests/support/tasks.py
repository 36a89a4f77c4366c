"""Tasks as a test client of the application posts and reads them."""

from typing import Any

from flask.testing import FlaskClient
from sqlalchemy import update

from scheduler_app.extensions import db
from scheduler_app.models import Status, Task
from tests.support.processes import eventually

FINAL = ("SUCCESS", "ERROR", "CANCELLED", "EXPIRED")


def submit(client: FlaskClient, *batch: dict[str, Any]) -> list[int]:
    answer = client.post("/tasks/batch-request/", json=batch)
    assert answer.status_code == 202, answer.json
    assert "errors" not in answer.json, answer.json
    return [task["task_id"] for task in answer.json["tasks"]]


def get(client: FlaskClient, task_id: int) -> dict[str, Any]:
    return client.get(f"/tasks/{task_id}/").json


def finished(client: FlaskClient, ids: list[int], within: float = 20) -> list[dict[str, Any]]:
    waiting = [*ids]

    def look() -> list[dict[str, Any]]:
        while waiting and get(client, waiting[-1])["status"] in FINAL:
            waiting.pop()  # one that has ended is not asked for again and again, which costs much if there are many
        if waiting:
            return []
        tasks = [get(client, task_id) for task_id in ids]
        return tasks if all(task["status"] in FINAL for task in tasks) else []

    return eventually(look, within=within)


def started(client: FlaskClient, task_id: int) -> None:
    eventually(lambda: get(client, task_id)["status"] == "STARTED")


def set_status(client: FlaskClient, task_ids: list[int], status: Status) -> None:
    with client.application.app_context():
        db.session.execute(update(Task).where(Task.task_id.in_(task_ids)).values(status=status))
        db.session.commit()
