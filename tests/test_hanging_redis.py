"""A Redis that accepts connections and answers nothing: posts go on, and few threads wait for it."""

import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient

from scheduler_app.broker import Delivery, NotAsked, PriorityBroker, breaker
from scheduler_app.config import Settings
from scheduler_app.extensions import db
from scheduler_app.services import dispatch
from scheduler_app.web import create_web_app
from tests.support.processes import eventually
from tests.support.servers import Valkey

TASK = {"operation": "1+1"}


@pytest.fixture
def app(database_url: str, own_valkey: Valkey) -> Iterator[Flask]:
    """An application on a Redis that may be frozen."""
    app = create_web_app(Settings.from_env({"DATABASE_URL": database_url, "REDIS_URL": own_valkey.url}))
    with app.app_context():
        yield app
        for engine in db.engines.values():
            engine.dispose()


@pytest.fixture
def database_url(migrated: dict[str, str], tmp_path: Path) -> str:
    shutil.copy(migrated["sqlite"].removeprefix("sqlite:///"), tmp_path / "backbeat.db")
    return f"sqlite:///{tmp_path}/backbeat.db"


@pytest.fixture
def broker(own_valkey: Valkey) -> PriorityBroker:
    broker = PriorityBroker(own_valkey.url)
    broker.publish([delivery(0)])
    return broker


def delivery(task_id: int) -> Delivery:
    return Delivery(task_id, 0, "calculate", 5)


def outcomes(broker: PriorityBroker, count: int) -> list[str]:
    """The outcomes of `count` threads that publish at the same moment."""
    found: list[str] = []
    barrier = threading.Barrier(count)

    def publish(task_id: int) -> None:
        barrier.wait()
        try:
            broker.publish([delivery(task_id)])
            found.append("published")
        except redis.RedisError as error:
            found.append(type(error).__name__)

    threads = [threading.Thread(target=publish, args=(task_id,)) for task_id in range(1, count + 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


def test_posts_go_on_and_the_relay_sends_them(
    app: Flask, client: FlaskClient, own_valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    own_valkey.freeze()
    started = time.monotonic()
    answers = [client.post("/tasks/", json=TASK) for _ in range(50)]
    assert time.monotonic() - started < 25, "each of them waited"
    assert {answer.status_code for answer in answers} == {202}
    assert len(caplog.records) < 25, "each of them is in the log"
    own_valkey.thaw()
    later = datetime.now(UTC) + timedelta(minutes=1)
    assert eventually(lambda: dispatch.relay(now=later)) == 50
    assert own_valkey.client.llen("dramatiq:tasks.p5") == 50


def test_two_threads_wait_and_no_more(broker: PriorityBroker, own_valkey: Valkey) -> None:
    own_valkey.freeze()
    found = Counter(outcomes(broker, 16))
    assert found.keys() == {"TimeoutError", "NotAsked"}
    assert found["TimeoutError"] <= 2


def test_after_a_timeout_redis_is_left_alone_and_then_asked_again(broker: PriorityBroker, own_valkey: Valkey) -> None:
    own_valkey.freeze()
    with pytest.raises(redis.TimeoutError, match="Timeout reading"):
        broker.publish([delivery(1)])
    for call in (lambda: broker.publish([delivery(2)]), broker.waiting, broker.heads):
        with pytest.raises(NotAsked):
            call()
    own_valkey.thaw()
    assert eventually(lambda: _published(broker, 3)) == 1


def test_a_refused_connection_does_not_count(broker: PriorityBroker, own_valkey: Valkey) -> None:
    own_valkey.kill()
    for task_id in (1, 2):
        with pytest.raises(redis.ConnectionError):
            broker.publish([delivery(task_id)])
    own_valkey.start()
    assert broker.publish([delivery(3)]) == 1


def test_a_call_waits_for_its_turn_while_others_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "PATIENCE", 60)
    shared, answer, begun = breaker.Breaker(), threading.Semaphore(0), threading.Semaphore(0)

    def call() -> None:
        with shared.call():
            begun.release()
            answer.acquire(timeout=60)

    threads = [threading.Thread(target=call) for _ in range(breaker.AT_ONCE + 1)]
    for thread in threads:
        thread.start()
    assert all(begun.acquire(timeout=20) for _ in range(breaker.AT_ONCE))
    assert not begun.acquire(blocking=False), "one too many is under way"
    answer.release()
    assert begun.acquire(timeout=20)
    answer.release(breaker.AT_ONCE)
    for thread in threads:
        thread.join(20)


def test_probes_and_figures_say_so_in_bounded_time(app: Flask, client: FlaskClient, own_valkey: Valkey) -> None:
    assert client.get("/readyz").json["checks"]["broker"] == "ok"
    own_valkey.freeze()
    started = time.monotonic()
    assert client.get("/readyz").json["checks"]["broker"] == "does not answer (TimeoutError)"
    assert "backbeat_broker_up 0.0" in client.get("/metrics").text
    assert client.get("/livez").status_code == 200
    assert time.monotonic() - started < 4.5, "longer than a worker would wait"
    own_valkey.thaw()
    assert client.get("/readyz").json["checks"]["broker"] == "ok"


def _published(broker: PriorityBroker, task_id: int) -> int:
    try:
        return broker.publish([delivery(task_id)])
    except redis.RedisError:
        return 0
