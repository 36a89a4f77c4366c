"""Probes: /livez says that the process lives; /readyz says which part does not work."""

import sqlite3
import time
from collections.abc import Callable, Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient
from flask_migrate import downgrade, upgrade
from sqlalchemy import event
from werkzeug.test import TestResponse

from scheduler_app.config import Settings
from scheduler_app.extensions import db
from scheduler_app.web import create_web_app
from tests.support.processes import Process, eventually
from tests.support.servers import Valkey

HARMLESS = {"scheduler", "workers", "clocks", "priorities"}  # requests are answered without them
NO_ANSWER = "does not answer (OperationalError)"


@pytest.fixture
def patience() -> None:
    """As in production."""


@pytest.fixture
def probe(environ: dict[str, str]) -> Iterator[Callable[..., FlaskClient]]:
    """A client of an application with some settings changed."""
    apps: list[Flask] = []

    def probe(**extra: str) -> FlaskClient:
        apps.append(create_web_app(Settings.from_env(environ | extra)))
        return apps[-1].test_client()

    yield probe
    for app in apps:
        with app.app_context():
            for engine in db.engines.values():
                engine.dispose()


def ready(client: FlaskClient) -> TestResponse:
    """What /readyz says when each check has had its time, which on a busy machine it may not get at once."""

    def answer() -> TestResponse | None:
        started = time.monotonic()
        answer = client.get("/readyz")
        assert time.monotonic() - started < 30  # on a busy machine; what hangs would take longer
        return None if "does not answer within" in answer.text else answer

    found = eventually(answer)
    assert found
    return found


def wrong(client: FlaskClient) -> dict[str, str]:
    """What /readyz says of the needed parts that do not work; no scheduler runs here."""
    answer = ready(client)
    checks: dict[str, str] = answer.json["checks"]
    found = {part: outcome for part, outcome in checks.items() if outcome != "ok" and part not in HARMLESS}
    assert (answer.status_code, answer.json["status"]) == ((503, "unavailable") if found else (200, "degraded"))
    return found


def test_all_is_well(client: FlaskClient) -> None:
    assert client.get("/livez").json == {"status": "ok"}
    assert wrong(client) == {}


def test_a_broker_that_is_down_is_named_until_it_is_back(probe: Callable[..., FlaskClient], own_valkey: Valkey) -> None:
    client = probe(REDIS_URL=own_valkey.url)
    assert wrong(client) == {}
    own_valkey.kill()
    assert wrong(client) == {"broker": "does not answer (ConnectionError)"}
    assert client.get("/livez").status_code == 200
    own_valkey.start()
    assert wrong(client) == {}


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "unix:///nothing/here"])
def test_a_broker_that_is_not_there_is_named(probe: Callable[..., FlaskClient], url: str) -> None:
    assert list(wrong(probe(REDIS_URL=url))) == ["broker"]


@pytest.mark.parametrize("url", ["postgresql://u:s3cret@127.0.0.1:1/d", "sqlite:////proc/self/nothing.db"])
def test_a_database_that_is_not_there_is_named_without_its_password(
    probe: Callable[..., FlaskClient], url: str
) -> None:
    client = probe(DATABASE_URL=url)
    assert wrong(client) == {"database": NO_ANSWER, "migrations": NO_ANSWER}
    assert client.get("/livez").status_code == 200
    answer = client.get("/tasks/")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert "s3cret" not in answer.text


@pytest.mark.parametrize("revision", ["base", "-1"])
def test_migrations_that_are_not_at_their_head_are_named(app: Flask, client: FlaskClient, revision: str) -> None:
    with app.app_context():
        downgrade(revision=revision)
    try:
        found = wrong(client)
    finally:
        with app.app_context():
            upgrade()
    assert list(found) == ["migrations"]
    assert found["migrations"].endswith("; run: flask --app wsgi db upgrade")
    assert wrong(client) == {}


def test_without_a_worker_it_is_degraded(client: FlaskClient, worker: Callable[..., Process]) -> None:
    answer = ready(client)
    assert (answer.status_code, answer.json["checks"]["workers"]) == (200, "none is running")
    worker()
    eventually(lambda: client.get("/readyz").json["checks"]["workers"] == "ok")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_full_disk_is_named_by_a_post_and_by_readyz(app: Flask, client: FlaskClient) -> None:
    def limit(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute("PRAGMA max_page_count = 1")  # SQLite takes it for as many as there are

    with app.app_context():
        for engine in db.engines.values():
            event.listen(engine, "checkout", limit)
    assert wrong(client) == {"database": "the disk is full; nothing can be stored until there is space"}
    params = {"url": "http://localhost/", "method": "POST", "body": "x" * 60_000}
    posts = (client.post("/tasks/", json={"operation": "http_request", "params": params}) for _ in range(100))
    refused = next(answer for answer in posts if answer.status_code != 202)
    assert (refused.status_code, "disk is full" in refused.json["message"]) == (503, True), refused.json
