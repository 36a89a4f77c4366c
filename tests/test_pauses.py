"""A paused priority: no task of it begins, in any worker, whatever becomes of Redis, until it is resumed."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from redis import RedisError

import scheduler
from scheduler_app.application import create_app
from scheduler_app.config import Settings
from scheduler_app.extensions import broker, db
from scheduler_app.models import Status
from scheduler_app.services import pauses
from tests.support.processes import Process, eventually
from tests.support.servers import Valkey
from tests.support.tasks import finished, get, set_status, submit

NOTE = {"note": "the partner's API is down"}
SOON = 1.0  # seconds within which a pause is effective


def task(**fields: Any) -> dict[str, Any]:
    return {"operation": "4+7", "priority": 7} | fields


def done(client: FlaskClient) -> int:
    return len(client.get("/tasks/?status=SUCCESS&limit=200").json)


def stays(look: Callable[[], Any], seconds: float) -> Any:
    """The value, which does not change for so long."""
    first, until = look(), time.monotonic() + seconds
    while time.monotonic() < until:
        assert look() == first
        time.sleep(0.05)
    return first


def test_a_pause_is_shown_wherever_one_looks_until_it_is_resumed(client: FlaskClient) -> None:
    paused = client.post("/queues/7/pause/", json=NOTE)
    assert (paused.status_code, paused.json["paused"]) == (200, True)
    queues = client.get("/queues/").json
    assert [queue["priority"] for queue in queues if queue["paused"]] == [7]
    assert (queues[7]["pause_note"], queues[7]["paused_by"]) == (NOTE["note"], "local")
    assert abs(datetime.fromisoformat(queues[7]["paused_at"]) - datetime.now(UTC)) < timedelta(seconds=20)
    assert (queues[6]["pause_note"], queues[6]["paused_at"], queues[6]["paused_by"]) == (None, None, None)
    assert 'backbeat_queue_paused{priority="7"} 1.0' in client.get("/metrics").text
    assert 'backbeat_queue_paused{priority="6"} 0.0' in client.get("/metrics").text
    ready = client.get("/readyz")
    assert ready.json["checks"]["priorities"].startswith("paused: 7 since 20")
    assert (ready.status_code, NOTE["note"] in ready.text) == (200, False)
    resumed = client.post("/queues/7/resume/").json
    assert (resumed["paused"], resumed["pause_note"], resumed["paused_at"]) == (False, None, None)
    assert not any(queue["paused"] for queue in client.get("/queues/").json)
    assert client.get("/readyz").json["checks"]["priorities"] == "ok"


def test_a_second_pause_changes_the_note_and_not_the_time(client: FlaskClient) -> None:
    first = client.post("/queues/7/pause/").json
    second = client.post("/queues/7/pause/", json=NOTE).json
    assert (first["pause_note"], second["pause_note"]) == (None, NOTE["note"])
    assert first["paused_at"] == second["paused_at"]


def test_what_is_done_to_a_priority_is_in_the_audit_log(client: FlaskClient) -> None:
    submit(client, *[task()] * 2)
    for call in ("pause", "purge", "resume", "resume", "purge"):
        client.post(f"/queues/7/{call}/")
    entries = [(one["action"], one["target"], one["count"]) for one in client.get("/audit/").json]
    assert entries == [("queue.resume", "7", 1), ("queue.purge", "7", 2), ("queue.pause", "7", 1)]


@pytest.mark.parametrize("call", ["pause", "resume", "purge"])
def test_there_are_ten_priorities(client: FlaskClient, call: str) -> None:
    answer = client.post(f"/queues/10/{call}/")
    assert (answer.status_code, answer.json["message"]) == (404, "There is no priority 10.")


def test_a_task_waits_for_its_paused_priority_and_the_note_says_why(client: FlaskClient) -> None:
    later = "2999-12-31T23:00:00Z"
    due, future, other = submit(client, task(), task(run_at=later), task(priority=6))
    paused = client.post("/queues/7/pause/", json=NOTE).json
    waiting = get(client, due)["waiting_for"]
    assert waiting == {"reason": "paused", "priority": 7, "paused_at": paused["paused_at"]} | NOTE
    assert get(client, future)["waiting_for"]["reason"] == "time"
    assert get(client, other)["waiting_for"]["reason"] == "worker"


def test_a_pause_holds_in_every_worker_and_a_resume_is_heard_at_once(
    client: FlaskClient, worker: Callable[..., Process]
) -> None:
    client.post("/queues/7/pause/")
    for _ in range(2):
        worker()
    held = submit(client, *[task()] * 20)
    others = submit(client, *[task(priority=priority) for priority in (0, 9)] * 5)
    assert {one["status"] for one in finished(client, others)} == {"SUCCESS"}
    assert stays(lambda: done(client), 1.5) == 10
    resumed_at = datetime.now(UTC)
    client.post("/queues/7/resume/")
    begun = [datetime.fromisoformat(one["started_at"]) for one in finished(client, held)]
    assert resumed_at < min(begun) < resumed_at + timedelta(seconds=0.7), "sooner than a poll"


def test_what_runs_at_a_pause_finishes_and_what_was_fetched_ahead_does_not_begin(
    client: FlaskClient, worker: Callable[..., Process]
) -> None:
    client.post("/queues/7/pause/")
    for _ in range(3):
        submit(client, *[task()] * 1_000)
    worker(threads=1)
    client.post("/queues/7/resume/")
    eventually(lambda: done(client) > 20)
    client.post("/queues/7/pause/")
    time.sleep(SOON)
    begun = {status: len(client.get(f"/tasks/?status={status}&limit=200").json) for status in ("STARTED", "RETRYING")}
    assert begun == {"STARTED": 0, "RETRYING": 0}
    ended = stays(lambda: client.get("/tasks/?status=SUCCESS&limit=1").json[0]["task_id"], 1.0)
    assert ended < 3_000, "it was paused in their midst"
    client.post("/queues/7/resume/")
    eventually(lambda: get(client, 3_000)["status"] == "SUCCESS", within=60)


@pytest.mark.parametrize("calls", [("pause", "resume"), ("resume", "pause")])
def test_who_has_read_the_table_too_early_and_writes_last_reads_it_again(
    client: FlaskClient, app: Flask, valkey: Valkey, calls: tuple[str, str]
) -> None:
    before, during = calls
    client.post(f"/queues/7/{before}/")
    changes = [during]

    def read_too_early() -> set[str] | None:
        read = pauses.ask(app)
        if changes:
            assert client.post(f"/queues/7/{changes.pop()}/").status_code == 200
        return read

    with app.app_context():
        assert broker.pauses.copy(read_too_early)
    expected = {b"", b"tasks.p7"} if during == "pause" else {b""}
    assert valkey.client.smembers("dramatiq:__paused__") == expected


def test_a_paused_level_with_messages_does_not_make_idle_workers_spin(
    client: FlaskClient, worker: Callable[..., Process], valkey: Valkey
) -> None:
    client.post("/queues/7/pause/")
    submit(client, *[task()] * 100)
    worker()
    [before] = finished(client, submit(client, task(priority=0)))
    assert before["status"] == "SUCCESS"

    def calls() -> int:
        return int(valkey.client.info("commandstats")["cmdstat_evalsha"]["calls"])

    first = calls()
    time.sleep(3)
    assert calls() - first <= 12, "a poll a second, and a heartbeat"


def test_a_flush_of_redis_ends_no_pause(
    client: FlaskClient, worker: Callable[..., Process], scheduler: Callable[..., Process], valkey: Valkey
) -> None:
    client.post("/queues/7/pause/")
    worker()
    scheduler()
    held = submit(client, *[task()] * 5)
    for _ in range(3):
        valkey.client.flushall()
        held += submit(client, *[task()] * 5)
        stays(lambda: done(client), 0.5)
    eventually(lambda: client.get("/queues/").json[7]["waiting"] == 20)
    assert done(client) == 0
    client.post("/queues/7/resume/")
    assert {one["status"] for one in finished(client, held)} == {"SUCCESS"}


@pytest.fixture
def fragile(environ: dict[str, str], own_valkey: Valkey) -> dict[str, str]:
    """The settings of a system whose Redis can be killed."""
    environ["REDIS_URL"] = own_valkey.url
    return environ


def test_a_restart_of_redis_with_an_old_copy_ends_no_pause(
    fragile: dict[str, str], own_valkey: Valkey, client: FlaskClient, worker: Callable[..., Process]
) -> None:
    process = worker()
    own_valkey.kill()
    eventually(lambda: "Redis does not answer" in process.output)
    client.post("/queues/7/pause/")
    own_valkey.start()
    assert own_valkey.client.smembers("dramatiq:__paused__") <= {b""}, "it has not heard of the pause"
    eventually(lambda: client.get("/queues/").status_code == 200)
    submit(client, *[task()] * 5)
    assert stays(lambda: done(client), 2) == 0
    client.post("/queues/7/resume/")
    eventually(lambda: done(client) == 5)


def test_a_pause_that_redis_did_not_hear_of_is_told_by_the_scheduler(
    fragile: dict[str, str], own_valkey: Valkey, app: Flask, client: FlaskClient
) -> None:
    own_valkey.kill()
    assert client.post("/queues/7/pause/").status_code == 200
    with app.app_context(), pytest.raises(RedisError):
        pauses.renew(now=datetime.now(UTC))
    own_valkey.start()
    intervals = [interval for duty, interval in scheduler.duties(60.0) if duty is pauses.renew]
    assert intervals == [1.0]

    def told() -> set[bytes]:
        with app.app_context():
            pauses.renew(now=datetime.now(UTC))
        return own_valkey.client.smembers("dramatiq:__paused__")

    assert told() == {b"", b"tasks.p7"}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_no_worker_pulls_while_the_table_does_not_tell(environ: dict[str, str], valkey: Valkey) -> None:
    app = create_app(Settings.from_env(environ | {"DATABASE_URL": "sqlite:////proc/self/nothing.db"}), worker=True)
    assert pauses.ask(app) is None
    with app.app_context():
        valkey.client.sadd("dramatiq:__paused__", "")
        assert broker.pauses.renew() is False
        assert valkey.client.exists("dramatiq:__paused__") == 0
        db.engine.dispose()


def test_a_purge_cancels_what_is_due_and_waits_and_nothing_else(app: Flask, client: FlaskClient) -> None:
    later = "2999-12-31T23:00:00Z"
    waiting = submit(client, *[task()] * 5)
    future, other, running = submit(client, task(run_at=later), task(priority=6), task())
    set_status(client, [running], Status.STARTED)
    with app.app_context():
        assert pauses.purge(7, now=datetime.now(UTC), limit=3) == {"cancelled": 3, "remaining": 2}
    assert [get(client, task_id)["status"] for task_id in waiting] == ["CANCELLED"] * 3 + ["PENDING"] * 2
    assert client.get("/queues/").json[7]["waiting"] == 3, "their messages are gone"
    assert client.post("/queues/7/purge/").json == {"cancelled": 2, "remaining": 0}
    assert client.get("/queues/").json[7]["waiting"] == 1, "the message of what runs"
    assert [get(client, id_)["status"] for id_ in (future, other, running)] == ["PENDING", "PENDING", "STARTED"]
    assert get(client, waiting[0])["finished_at"]
