"""Tasks with callbacks, and their ends as a worker writes them, without a worker."""

import json
from datetime import datetime
from typing import Any

from flask.testing import FlaskClient
from sqlalchemy import select

from scheduler_app.extensions import db
from scheduler_app.models import Task
from scheduler_app.services import attempts
from scheduler_app.services.attempts import Attempt
from tests.support.claims import claim
from tests.support.tasks import get

URL = "https://shop.example.com/hooks?for=tasks"
CALLBACK = {"url": URL, "on": ["SUCCESS", "ERROR", "CANCELLED", "EXPIRED"]}


def post(client: FlaskClient, **fields: Any) -> int:
    answer = client.post("/tasks/", json={"operation": "4+7", "callback": CALLBACK} | fields)
    assert answer.status_code == 202, answer.json
    return int(answer.json["task_id"])


def deliveries(client: FlaskClient) -> list[dict[str, Any]]:
    """All that there are, the oldest first, each with its long parameters."""
    return [get(client, one["task_id"]) for one in client.get("/tasks/?operation=callback").json][::-1]


def claimed(task_id: int, now: datetime) -> Attempt:
    db.session.rollback()
    claims = db.session.scalars(select(Task.claims).where(Task.task_id == task_id)).one()
    db.session.rollback()
    attempt = claim(task_id, claims, worker_id="w", now=now)
    assert attempt
    return attempt


def succeed(task_id: int, now: datetime, result: Any = 11) -> None:
    assert attempts.succeed(claimed(task_id, now), json.dumps(result), started_at=now, now=now)
