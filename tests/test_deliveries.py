"""What the receiver of a callback sees, and what becomes of a delivery that is not taken. Time is passed in."""

import base64
import json
import random
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select
from standardwebhooks.webhooks import Webhook

from scheduler_app import outgoing
from scheduler_app.callback import RETRY
from scheduler_app.config import Settings
from scheduler_app.extensions import db
from scheduler_app.models import Status, Task
from scheduler_app.services import attempts
from scheduler_app.worker.execution import perform
from scheduler_app.worker.running import registered
from tests.support.callbacks import claimed, deliveries, post, succeed
from tests.support.http_server import Server, raw_server, serving
from tests.support.processes import Process, eventually, free_port
from tests.support.tasks import finished, get, submit

KEY = f"whsec_{base64.b64encode(bytes(32)).decode()}"
HOUR = timedelta(hours=1)
TRIALS = {"BACKBEAT_OPERATIONS": "actors,tests.support.trial_operations", "BACKBEAT_HTTP_ALLOW": "local"}


@pytest.fixture
def allowed(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    path.touch(0o600)
    path.write_text(json.dumps({"HOOK": {"value": KEY, "hosts": ["127.0.0.1"]}}))
    outgoing.configure(Settings.from_env({"BACKBEAT_HTTP_ALLOW": "local", "BACKBEAT_SECRETS_FILE": str(path)}))


def delivered(task_id: int, now: datetime) -> datetime:
    """One attempt at a delivery, as a worker makes it at this time. Returns when the next one is due."""
    attempt = claimed(task_id, now)
    with registered(attempt) as running:
        try:
            result = perform(running)
        except Exception as error:
            attempts.fail(attempt, error, now=now)
        else:
            task = db.session.get_one(Task, task_id)
            task.status, task.result, task.finished_at = Status.SUCCESS, json.loads(result), now
            db.session.commit()
    return db.session.scalars(select(Task.run_at).where(Task.task_id == task_id)).one()


def ended_with(client: FlaskClient, url: str, now: datetime, **more: Any) -> int:
    """A task has ended. Returns the id of its delivery."""
    succeed(post(client, callback={"url": url} | more), now)
    return int(deliveries(client)[-1]["task_id"])


@pytest.mark.usefixtures("context", "allowed")
def test_a_receiver_that_is_down_for_an_hour_hears_of_it_after_that(client: FlaskClient) -> None:
    now = began = datetime.now(UTC)
    port = free_port()
    delivery = ended_with(client, f"http://127.0.0.1:{port}/hello", now, sign_with="HOOK")
    while now < began + HOUR:
        now = delivered(delivery, now)
        assert get(client, delivery)["status"] == "RETRYING"
    failures = get(client, delivery)["failure_count"]
    assert 5 < failures < 30
    with serving(Server(port=port)) as server:
        delivered(delivery, now)
        assert len(server.requests) == 1
        Webhook(KEY).verify(server.requests[0][3], dict(server.requests[0][2]))
    assert get(client, delivery)["status"] == "SUCCESS"
    assert now < began + 4 * HOUR


@pytest.mark.usefixtures("context", "allowed")
def test_it_is_tried_for_about_a_day_with_growing_pauses_and_one_id(client: FlaskClient, server: Server) -> None:
    random.seed(1)
    now = began = datetime.now(UTC)
    delivery, moments = ended_with(client, f"{server.url}/status/500", now, sign_with="HOOK"), [now]
    while get(client, delivery)["status"] in ("PENDING", "RETRYING"):
        now = delivered(delivery, now)
        moments.append(now)
    assert get(client, delivery)["status"] == "ERROR"
    assert 20 * HOUR < now - began < 30 * HOUR
    assert {headers["webhook-id"] for _, _, headers, _ in server.requests} == {f"task_{delivery}"}
    assert len({body for _, _, _, body in server.requests}) == 1
    assert len(server.requests) == RETRY.max_retries + 1
    task_id = get(client, delivery)["params"]["task"]["task_id"]
    assert get(client, task_id)["status"] == "SUCCESS"
    assert get(client, task_id)["delivery"] == {"task_id": delivery, "status": "ERROR"}
    assert client.post(f"/tasks/{delivery}/retry/").status_code == 202
    db.session.remove()
    delivered(delivery, now)
    assert server.requests[-1][2]["webhook-id"] == f"task_{delivery}"


@pytest.mark.usefixtures("context", "allowed")
def test_410_ends_it_and_other_statuses_do_not(client: FlaskClient, server: Server) -> None:
    now = datetime.now(UTC)
    for status, then in ((410, "ERROR"), (404, "RETRYING"), (302, "RETRYING"), (503, "RETRYING"), (204, "SUCCESS")):
        delivery = ended_with(client, f"{server.url}/status/{status}", now)
        delivered(delivery, now)
        assert get(client, delivery)["status"] == then, status
        assert len(deliveries(client)) == len(server.requests)  # none has a callback of its own


@pytest.mark.usefixtures("context", "allowed")
def test_retry_after_is_kept_to(client: FlaskClient, server: Server) -> None:
    now = datetime.now(UTC)
    delivery = ended_with(client, f"{server.url}/busy/1800", now)
    assert delivered(delivery, now) == now + timedelta(minutes=30)


@pytest.mark.usefixtures("context")
def test_what_egress_does_not_allow_is_not_called(client: FlaskClient, server: Server, tmp_path: Path) -> None:
    outgoing.configure(Settings.from_env({}))
    now = datetime.now(UTC)
    delivery = ended_with(client, f"{server.url}/hello", now)
    delivered(delivery, now)
    task = get(client, delivery)
    assert (task["status"], server.requests) == ("ERROR", [])
    assert "BACKBEAT_HTTP_ALLOW" in task["error"]["message"]


@pytest.mark.usefixtures("context", "allowed")
def test_a_secret_goes_only_to_its_hosts(client: FlaskClient, server: Server) -> None:
    now = datetime.now(UTC)
    delivery = ended_with(client, server.url.replace("127.0.0.1", "localhost") + "/hello", now, sign_with="HOOK")
    delivered(delivery, now)
    task = get(client, delivery)
    assert (task["status"], server.requests) == ("ERROR", [])
    assert "is not for localhost" in task["error"]["message"]
    assert KEY not in json.dumps(task)


def test_a_delivery_that_is_cancelled_leaves_a_receiver_that_says_nothing(
    client: FlaskClient, worker: Callable[..., Process]
) -> None:
    def wait_for_hang_up(connection: socket.socket) -> None:
        connection.settimeout(20)
        while connection.recv(65_536):  # the body may come after the headers
            pass

    with raw_server(wait_for_hang_up) as address:
        worker(**TRIALS)
        post(client, callback={"url": f"http://{address}/"})
        task_id = eventually(lambda: [each["task_id"] for each in deliveries(client) if each["status"] == "STARTED"])[0]
        client.post(f"/tasks/{task_id}/cancel/")
        eventually(lambda: get(client, task_id)["status"] == "CANCELLED", within=10)  # its timeout is 20 s


def test_a_worker_delivers_at_once_and_the_receiver_can_verify_it(
    client: FlaskClient, server: Server, worker: Callable[..., Process], tmp_path: Path
) -> None:
    path = tmp_path / "secrets.json"
    path.touch(0o600)
    path.write_text(json.dumps({"HOOK": {"value": KEY, "hosts": ["127.0.0.1"]}}))
    worker(**TRIALS, BACKBEAT_SECRETS_FILE=str(path))
    hook = {"url": f"{server.url}/hello", "sign_with": "HOOK"}
    batch = [{"operation": "4+7", "callback": hook}, {"operation": "1/0", "callback": hook}, {"operation": "1+1"}]
    ids = submit(client, *batch)
    ended = finished(client, ids)
    [first, second] = [task["delivery"] for task in ended if task["callback"]]
    [one, two] = finished(client, [first["task_id"], second["task_id"]])
    assert (one["status"], two["status"], one["attempts"]) == ("SUCCESS", "SUCCESS", 1)
    assert one["result"]["status"] == 200
    said = {}
    for method, _, headers, body in server.requests:
        assert (method, headers["Content-Type"]) == ("POST", "application/json")
        task = Webhook(KEY).verify(body, dict(headers))
        said[task["task_id"]] = (task["status"], task["result"])
    assert said == {ids[0]: ("SUCCESS", 11), ids[1]: ("ERROR", None)}


@pytest.mark.parametrize(("killed", "then"), [("before_commit", "STARTED"), ("after_commit", "SUCCESS")])
def test_a_worker_that_is_killed_around_the_commit_leaves_both_or_neither(
    client: FlaskClient,
    server: Server,
    worker: Callable[..., Process],
    scheduler: Callable[..., Process],
    killed: str,
    then: str,
) -> None:
    operations = TRIALS | {"BACKBEAT_OPERATIONS": "actors,tests.support.deadly_operations", "KILLED": killed}
    victim = worker(**operations)
    task_id = post(client, callback={"url": f"{server.url}/hello"}, max_retries=1)
    eventually(lambda: victim.popen.poll() is not None)
    assert get(client, task_id)["status"] == then
    assert len(deliveries(client)) == (then == "SUCCESS")
    scheduler()
    worker(**TRIALS)
    [task] = finished(client, [task_id], within=60)
    finished(client, [task["delivery"]["task_id"]])
    assert task["status"] == "SUCCESS"
    assert len(deliveries(client)) == len(server.requests) == 1
