"""A Redis that other programs have filled. Waiting tasks still run; posted tasks wait for the relay."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient

from scheduler_app.broker import Delivery, WorkerBroker
from scheduler_app.services import dispatch
from tests.support.processes import Process, eventually
from tests.support.servers import Valkey

FULL = "is full: it refuses writes; raise its maxmemory, or delete what fills it"


@pytest.fixture
def valkey(own_valkey: Valkey) -> Valkey:
    return own_valkey


@pytest.fixture
def broker(valkey: Valkey) -> WorkerBroker:
    """Of a worker that has pulled two messages of five, on a Redis that is full since."""
    broker = WorkerBroker(valkey.url, heartbeat_timeout=300)
    broker.publish(Delivery(task_id, 0, "calculate", 5) for task_id in range(1, 6))
    broker.pull(broker.weights, 2)
    valkey.limit(1)
    return broker


def keys(valkey: Valkey, kind: str = "acks") -> list[bytes]:
    return list(valkey.client.scan_iter(f"dramatiq:__{kind}__*"))


def test_messages_are_handed_out_and_acknowledged(broker: WorkerBroker, valkey: Valkey) -> None:
    done = [("tasks.p5", "1.0"), ("tasks.p5", "2.0")]
    assert [id_ for _, id_ in broker.pull(broker.weights, 10, done=done).messages] == ["3.0", "4.0", "5.0"]
    assert valkey.client.hlen("dramatiq:tasks.p5.msgs") == 3


def test_messages_are_given_back(broker: WorkerBroker, valkey: Valkey) -> None:
    broker.requeue("tasks.p5", "1.0", "2.0")
    assert broker.waiting()[5] == 5
    assert keys(valkey) == []


def test_a_message_goes_to_the_dead_letters(broker: WorkerBroker, valkey: Valkey) -> None:
    broker.nack("tasks.p5", "1.0")
    assert valkey.client.hkeys("dramatiq:tasks.p5.XQ.msgs") == valkey.client.zrange("dramatiq:tasks.p5.XQ", 0, -1)
    assert valkey.client.zcard("dramatiq:tasks.p5.XQ") == 1


def test_a_worker_shows_that_it_lives(broker: WorkerBroker, valkey: Valkey) -> None:
    valkey.client.delete("dramatiq:__heartbeats__")
    broker.beat()
    assert valkey.client.zcard("dramatiq:__heartbeats__") == 1


def test_what_a_dead_worker_had_pulled_comes_back(broker: WorkerBroker, valkey: Valkey) -> None:
    keeper = WorkerBroker(valkey.url, heartbeat_timeout=300)
    assert eventually(lambda: keeper.maintain() and keeper.waiting()[5] == 5)
    assert keys(valkey) == []


def test_a_list_that_was_lost_comes_back(broker: WorkerBroker, valkey: Valkey) -> None:
    valkey.client.delete("dramatiq:tasks.p5")
    assert broker.lists.restore() == 3


def test_nothing_is_published_until_there_is_room(broker: WorkerBroker, valkey: Valkey) -> None:
    with pytest.raises(redis.OutOfMemoryError):
        broker.publish([Delivery(6, 0, "calculate", 5)])
    assert broker.status() == FULL
    assert keys(valkey, "probe") == []
    valkey.limit(0)
    assert broker.status() == "ok"
    assert keys(valkey, "probe") == []
    assert broker.publish([Delivery(6, 0, "calculate", 5)]) == 1


def test_a_replica_that_is_read_only_is_named(valkey: Valkey) -> None:
    valkey.client.replicaof("127.0.0.1", "1")
    assert WorkerBroker(valkey.url).status().startswith("refuses writes: ")


def test_what_waits_runs_and_what_is_posted_waits_for_the_relay(
    app: Flask,
    client: FlaskClient,
    valkey: Valkey,
    worker: Callable[..., Process],
    caplog: pytest.LogCaptureFixture,
) -> None:
    early = _post(client, 20)
    valkey.limit(1)
    late = _post(client, 2)
    assert "2 tasks wait for the relay: command not allowed when used memory" in caplog.text
    assert "not answer" not in caplog.text
    assert client.get("/readyz").json["checks"]["broker"] == FULL
    worker()
    eventually(lambda: _statuses(client, early) == {"SUCCESS"})
    assert _statuses(client, late) == {"PENDING"}
    valkey.limit(0)
    with app.app_context():
        assert dispatch.relay(now=datetime.now(UTC) + timedelta(minutes=1)) == 2
    eventually(lambda: _statuses(client, late) == {"SUCCESS"})


def _post(client: FlaskClient, count: int) -> list[int]:
    answer = client.post("/tasks/batch-request/", json=[{"operation": "1+1"}] * count)
    return [task["task_id"] for task in answer.json["tasks"]]


def _statuses(client: FlaskClient, ids: list[int]) -> set[str]:
    return {client.get(f"/tasks/{task_id}/").json["status"] for task_id in ids}
