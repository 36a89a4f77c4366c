"""GET /tasks/{id}/ says what a task waits for."""

import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from scheduler_app.broker import MAX_AHEAD
from scheduler_app.config import Settings
from scheduler_app.extensions import db
from scheduler_app.models import Status
from scheduler_app.services import workers
from scheduler_app.web import create_web_app
from tests.support.processes import Process, eventually
from tests.support.servers import Valkey
from tests.test_tasks_api import post, set_status


def waiting_for(client: FlaskClient, task_id: int) -> Any:
    answer = client.get(f"/tasks/{task_id}/")
    assert answer.status_code == 200, answer.json
    return answer.json["waiting_for"]


def register_worker(app: Flask, *queues: str, **fields: Any) -> None:
    now = datetime.now(UTC)
    worker = {"worker_id": "a", "host": "b", "pid": 1, "threads": 1, "queues": queues, "started_at": now} | fields
    with app.app_context():
        workers.beat(worker, clock_offset=0.0, now=now)


@pytest.mark.parametrize("status", [Status.PENDING, Status.RETRYING])
def test_a_task_whose_time_has_not_come_waits_for_it(client: FlaskClient, status: Status) -> None:
    task_id = post(client, run_at="2040-01-01T00:00:00Z")["task_id"]
    set_status(client, task_id, status)
    assert waiting_for(client, task_id) == {"reason": "time", "run_at": "2040-01-01T00:00:00Z"}


@pytest.mark.parametrize("status", [Status.STARTED, Status.SUCCESS, Status.ERROR, Status.CANCELLED])
def test_a_task_that_does_not_wait_waits_for_nothing(client: FlaskClient, status: Status) -> None:
    task_id = post(client)["task_id"]
    set_status(client, task_id, status)
    assert waiting_for(client, task_id) is None


def test_the_list_does_not_say_it(client: FlaskClient) -> None:
    post(client)
    assert "waiting_for" not in client.get("/tasks/").json[0]


def test_a_task_waits_for_a_worker_of_its_queue_and_then_no_longer(
    client: FlaskClient, worker: Callable[..., Process]
) -> None:
    worker("-Q", "tasks.p0")
    task_id = post(client, priority=3)["task_id"]
    assert waiting_for(client, task_id) == {"reason": "worker", "queue": "tasks.p3"}
    worker("-Q", "tasks.p3")
    eventually(lambda: client.get(f"/tasks/{task_id}/").json["status"] == "SUCCESS")
    assert waiting_for(client, task_id) is None


def test_a_task_waits_for_a_worker_that_knows_its_operation(app: Flask, client: FlaskClient) -> None:
    register_worker(app, "tasks.p5", operations=["http_request"])
    due, later = (post(client, priority=5, **fields)["task_id"] for fields in ({}, {"run_at": "2040-01-01T00:00:00Z"}))
    for task_id in (due, later):
        waiting = waiting_for(client, task_id)
        assert (waiting["reason"], waiting["operation"]) == ("operation", "calculate")
    register_worker(app, "tasks.p5", operations=["calculate"], worker_id="another")
    assert waiting_for(client, due)["reason"] == "turn"
    assert waiting_for(client, later)["reason"] == "time"


def test_a_worker_that_does_not_say_what_it_knows_may_know_it(app: Flask, client: FlaskClient) -> None:
    register_worker(app, "tasks.p5", operations=None)
    assert waiting_for(client, post(client, priority=5)["task_id"])["reason"] == "turn"


def test_a_task_waits_for_its_turn_behind_so_many(app: Flask, client: FlaskClient) -> None:
    register_worker(app, "tasks.p3", "tasks.p5")
    first, _, third = (post(client, priority=5)["task_id"] for _ in range(3))
    post(client, priority=3)
    turn = {"reason": "turn", "priority": 5, "more_urgent": 1}
    assert waiting_for(client, first) == turn | {"ahead": 0}
    assert waiting_for(client, third) == turn | {"ahead": 2}


def test_what_is_looked_through_for_its_turn_is_bounded(app: Flask, client: FlaskClient, valkey: Any) -> None:
    register_worker(app, "tasks.p5")
    pulled, last = post(client)["task_id"], post(client)["task_id"]
    valkey.client.delete("dramatiq:tasks.p5")
    assert waiting_for(client, pulled)["ahead"] == 0
    valkey.client.rpush("dramatiq:tasks.p5", *(f"{number}.0" for number in range(10**6, 10**6 + MAX_AHEAD)))
    valkey.client.rpush("dramatiq:tasks.p5", f"{last}.0")
    assert waiting_for(client, last)["ahead"] == MAX_AHEAD


def test_a_due_task_that_redis_does_not_have_waits_for_the_relay(app: Flask, client: FlaskClient, valkey: Any) -> None:
    register_worker(app, "tasks.p5")
    task_id = post(client)["task_id"]
    valkey.client.flushall()
    assert waiting_for(client, task_id) == {"reason": "relay"}


@pytest.fixture
def own_client(environ: dict[str, str], own_valkey: Valkey) -> Iterator[FlaskClient]:
    app = create_web_app(Settings.from_env(environ | {"REDIS_URL": own_valkey.url}))
    yield app.test_client()
    with app.app_context():
        for engine in db.engines.values():
            engine.dispose()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("harm", [signal.SIGKILL, signal.SIGSTOP])
def test_a_task_waits_for_a_redis_that_is_gone_or_frozen_and_the_answer_comes_soon(
    own_client: FlaskClient, own_valkey: Valkey, harm: signal.Signals
) -> None:
    task_id = post(own_client)["task_id"]
    own_valkey.process.send_signal(harm)
    began = time.monotonic()
    assert waiting_for(own_client, task_id) == {"reason": "redis"}
    assert time.monotonic() - began < 3
