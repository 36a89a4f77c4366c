"""A task is cancelled at the moment at which a worker begins it, or ends it."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select

from scheduler_app.extensions import db
from scheduler_app.models import Task
from scheduler_app.services import bulk, control, tasks
from scheduler_app.services.bulk import Chosen
from scheduler_app.services.firing import fire_due
from scheduler_app.worker.status_writer import StatusWriter
from tests.support.claims import begun, ended, message
from tests.support.row_locks import wait_until_blocked
from tests.support.schedules import HOUR, NOON, create, tasks_of

RACES = 1_000  # on each database
REQUEST = {"operation": "calculate", "params": {"expression": "1+1"}, "priority": 5, "max_retries": 3}
CLAIM = "UPDATE task SET status = 'STARTED', claims = claims + 1, attempts = 1 WHERE task_id = %s"

on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


def posted(count: int = 1) -> list[int]:
    rows = tasks.create([REQUEST] * count, now=NOON)
    db.session.commit()
    return [row.task_id for row in rows]


def fired() -> list[int]:
    schedule = create(every_x_hours=1, overlap="cancel_previous")
    fire_due(now=NOON)
    return [task.task_id for task in tasks_of(schedule)]


CANCELS: dict[str, tuple[Callable[[], list[int]], Callable[[int], Any]]] = {
    "one": (posted, lambda task_id: control.cancel(task_id, now=NOON)),
    "many": (posted, lambda _: bulk.cancel(Chosen({"operation": "calculate"}, limit=10), now=NOON)),
    "previous": (fired, lambda _: fire_due(now=NOON + HOUR)),
}


@on_postgresql
@pytest.mark.parametrize("kind", CANCELS)
def test_a_task_that_is_begun_while_it_is_cancelled_is_asked_to_stop(app: Flask, database_url: str, kind: str) -> None:
    make, cancel = CANCELS[kind]
    with app.app_context():
        [task_id] = make()

    def call() -> None:
        with app.app_context():
            cancel(task_id)

    with ThreadPoolExecutor() as pool:
        with psycopg.connect(database_url) as worker:  # commits at the end
            worker.execute(CLAIM, (task_id,))
            cancelling = pool.submit(call)
            wait_until_blocked(database_url)
        cancelling.result(30)
    with app.app_context():
        task = tasks.get(task_id)
        assert (task.status, task.cancel_requested, task.finished_at) == ("STARTED", True, None)


def test_a_racing_cancel_reaches_the_task_unless_it_has_finished(app: Flask) -> None:
    with app.app_context():
        task_ids = posted(RACES)
    gate = threading.Barrier(2, timeout=30)

    def work() -> set[int]:
        """Begins every task, and ends every other; returns the ids of those that succeeded."""
        with app.app_context(), closing(StatusWriter("worker")) as writer:
            return {task_id for task_id in task_ids if race(writer, task_id)}

    def race(writer: StatusWriter, task_id: int) -> bool:
        gate.wait()
        attempt = begun(writer, message(task_id), now=NOON)
        return attempt is not None and task_id % 2 == 1 and ended(writer, attempt, now=NOON)

    def cancel(client: FlaskClient, task_id: int) -> int:
        gate.wait()
        return client.post(f"/tasks/{task_id}/cancel/").status_code

    with ThreadPoolExecutor() as pool:
        working = pool.submit(work)
        client = app.test_client()
        answers = {task_id: cancel(client, task_id) for task_id in task_ids}
        succeeded = working.result(30)
    assert set(answers.values()) <= {200, 409}
    assert {task_id for task_id, answer in answers.items() if answer == 409} <= succeeded
    with app.app_context():
        query = select(Task.status, Task.cancel_requested).where(Task.task_id.not_in(succeeded))
        ends = {tuple(row) for row in db.session.execute(query)}
    assert ends <= {("CANCELLED", False), ("STARTED", True)}
