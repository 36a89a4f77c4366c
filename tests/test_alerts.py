"""Somebody elsewhere is told when something begins to need attention and when that ends; and that all is well."""

import base64
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from standardwebhooks.webhooks import Webhook

from scheduler_app import database, outgoing
from scheduler_app.config import Settings, SettingsError
from scheduler_app.services import alerts, pauses, schedulers, workers
from tests.support.http_server import Server
from tests.support.processes import Process, eventually

KEY = f"whsec_{base64.b64encode(bytes(32)).decode()}"
NOW = datetime(2040, 6, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
KINDS = ("paused_priority",)  # of the needs in most tests


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    path = tmp_path / "secrets.json"
    path.touch(0o600)
    path.write_text(json.dumps({alerts.SECRET: {"value": KEY, "hosts": ["127.0.0.1"]}}))
    return path


class Scheduler:
    """What a scheduler does about alerts, look after look, ten seconds apart."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.watch = alerts.Watch(monotonic=lambda: self.seconds)

    def look(self, now: datetime, times: int = 1) -> None:
        for _ in range(times):
            self.seconds += 10
            self.watch.alert(now=now)


@pytest.fixture
def told(another: Callable[..., Flask], server: Server, secrets: Path) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Reads what the receiver has got of the kinds in question, each verified."""
    settings = {"BACKBEAT_ALERT_URL": f"{server.url}/hello", "BACKBEAT_SECRETS_FILE": str(secrets)}
    with another(**settings).app_context():
        yield lambda: [message for message in received(server) if message["data"]["kind"] in KINDS]


def received(server: Server) -> list[dict[str, Any]]:
    return [
        Webhook(KEY).verify(body, dict(headers)) for method, _, headers, body in server.requests if method == "POST"
    ]


Told = Callable[[], list[dict[str, Any]]]


def test_what_begins_and_what_ends_is_told_once(told: Told) -> None:
    ours = Scheduler()
    ours.look(NOW, 4)
    assert told() == []
    pauses.pause(7, note="the partner's API is down", now=NOW)
    ours.look(NOW + MINUTE, 4)
    ours.look(NOW + 5 * MINUTE, 4)
    [began] = told()
    assert began["type"] == "attention.began"
    assert began["timestamp"] == (NOW + MINUTE).isoformat()
    [need] = began["data"]["began"]
    assert need["severity"] == "warning"
    assert need["text"].startswith("Priority 7 is paused")
    assert began["data"]["present"] == [need]
    pauses.resume(7, now=NOW + 6 * MINUTE)
    ours.look(NOW + 6 * MINUTE, 4)
    ended = told()[1:]
    assert [message["type"] for message in ended] == ["attention.ended"]
    assert (ended[0]["data"]["ended"], ended[0]["data"]["present"]) == ([need], [])


def test_what_is_over_at_once_is_not_told(told: Told) -> None:
    ours = Scheduler()
    pauses.pause(7, now=NOW)
    ours.look(NOW)
    pauses.resume(7, now=NOW)
    ours.look(NOW, 4)
    assert told() == []


def test_there_is_one_message_a_minute_for_each_kind_at_most(told: Told) -> None:
    ours = Scheduler()
    pauses.pause(7, now=NOW)
    ours.look(NOW, 4)
    pauses.resume(7, now=NOW)
    pauses.pause(8, now=NOW)
    ours.look(NOW + MINUTE / 2, 4)
    assert len(told()) == 1
    ours.look(NOW + MINUTE, 4)
    _, changed = told()
    assert changed["type"] == "attention.changed"
    texts = [[need["text"][:10] for need in changed["data"][name]] for name in ("began", "ended", "present")]
    assert texts == [["Priority 8"], ["Priority 7"], ["Priority 8"]]


def test_several_schedulers_tell_it_once(told: Told, another: Callable[..., Flask]) -> None:
    schedulers = [Scheduler() for _ in range(4)]
    pauses.pause(7, now=NOW)
    for one in schedulers:
        one.look(NOW - MINUTE, 0)
    for moment in (NOW, NOW + MINUTE / 6, NOW + MINUTE / 3):
        for one in schedulers:
            one.look(moment)
    for one in schedulers:
        one.look(NOW + MINUTE / 2)
    assert [message["type"] for message in told()] == ["attention.began"]


def test_a_message_that_is_not_taken_is_sent_again_with_its_id(
    another: Callable[..., Flask], server: Server, secrets: Path
) -> None:
    settings = {"BACKBEAT_ALERT_URL": f"{server.url}/status/503", "BACKBEAT_SECRETS_FILE": str(secrets)}
    with another(**settings).app_context():
        ours = Scheduler()
        pauses.pause(7, now=NOW)
        ours.look(NOW, 4)
        for minutes in range(1, 61):
            ours.look(NOW + minutes * MINUTE)
    ids = [h["webhook-id"] for _, _, h, body in server.requests if json.loads(body)["data"]["kind"] in KINDS]
    assert len(set(ids)) == 1
    assert 8 <= len(ids) <= 14
    server.requests.clear()
    with another(**settings | {"BACKBEAT_ALERT_URL": f"{server.url}/hello"}).app_context():
        for hours in (2, 3):
            Scheduler().look(NOW + timedelta(hours=hours))
    [taken] = [
        headers["webhook-id"] for _, _, headers, body in server.requests if json.loads(body)["data"]["kind"] in KINDS
    ]
    assert taken == ids[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "There is no secret 'backbeat.alerts'"),
        ({alerts.SECRET: {"value": KEY, "hosts": ["example.com"]}}, "is not for 127.0.0.1"),
        ({alerts.SECRET: {"value": "no-key-but-long-enough", "hosts": ["127.0.0.1"]}}, "is no signing key"),
    ],
)
def test_alerts_that_could_not_be_signed_are_refused_at_the_start(
    secrets: Path, content: dict[str, Any], message: str
) -> None:
    secrets.write_text(json.dumps(content))
    settings = Settings.from_env(
        {"BACKBEAT_ALERT_URL": "http://127.0.0.1/alerts", "BACKBEAT_SECRETS_FILE": str(secrets)}
    )
    outgoing.configure(settings)
    with pytest.raises(SettingsError, match=message):
        alerts.check(settings)


def test_a_heartbeat_comes_once_a_minute_while_all_is_well(
    another: Callable[..., Flask], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with another(BACKBEAT_HEARTBEAT_URL=f"{server.url}/hello").app_context():
        alerts.beat(now=NOW)
        assert server.requests == []  # neither worker nor scheduler lives
        alive()
        eventually(lambda: alerts.beat(now=NOW) or server.requests)
        for seconds in (10, 20, 30, 40, 50, 60, 70, 110, 120):
            alerts.beat(now=NOW + timedelta(seconds=seconds))
    assert [(method, path) for method, path, _, _ in server.requests] == [("GET", "/hello")] * 3


def alive() -> None:
    now = database.clock()
    worker = {"worker_id": "alive", "host": "here", "pid": 1, "threads": 8, "queues": [], "started_at": now}
    workers.beat(worker, clock_offset=0.0, now=now)
    schedulers.record_scan(now=now, seconds=0.1, lags=[], clock_offset=0.0)


def test_two_schedulers_tell_that_all_is_well_and_what_is_not(
    client: FlaskClient,
    scheduler: Callable[..., Process],
    worker: Callable[..., Process],
    server: Server,
    secrets: Path,
) -> None:
    client.post("/queues/7/pause/")
    settings = {
        "BACKBEAT_ALERT_URL": f"{server.url}/hello",
        "BACKBEAT_HEARTBEAT_URL": f"{server.url}/hello",
        "BACKBEAT_SECRETS_FILE": str(secrets),
    }
    worker()
    scheduler(**settings)
    scheduler(**settings)
    eventually(lambda: {method for method, *_ in server.requests} == {"GET", "POST"}, within=60)
    assert [message["data"]["kind"] for message in received(server)] == ["paused_priority"]
    assert [method for method, *_ in server.requests].count("GET") == 1


def test_a_scheduler_without_the_secret_says_what_is_missing(environ: dict[str, str]) -> None:
    settings = {"BACKBEAT_ALERT_URL": "http://127.0.0.1:1/"}
    process = Process(("scheduler.py",), environ | settings, "")
    assert process.popen.wait(30) == 1
    assert "BACKBEAT_ALERT_URL: its messages are signed with 'backbeat.alerts': There is no secret" in process.output
