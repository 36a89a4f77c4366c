"""PostgreSQL that is read-only, frozen, at fault, or replaced by another: no task is lost, none gets a wrong status."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from flask_migrate import upgrade
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import func, select

from scheduler_app.config import Settings
from scheduler_app.database import clock
from scheduler_app.extensions import db
from scheduler_app.models import ALL, History, HistoryMark, Status, Task, Worker
from scheduler_app.services import history
from scheduler_app.web import create_web_app
from tests.support.harms import frozen
from tests.support.processes import Process, eventually
from tests.support.servers import Postgres, Valkey

Start = Callable[..., Process]


@pytest.fixture
def patience() -> None:
    """As in production."""


@pytest.fixture
def database_url(own_postgres: Postgres) -> str:
    return own_postgres.url("backbeat")


@pytest.fixture
def effects(tmp_path: Path) -> Path:
    return tmp_path / "effects"


@pytest.fixture
def environ(environ: dict[str, str], effects: Path) -> dict[str, str]:
    modules = "actors,tests.support.trial_operations,tests.support.fault_operations"
    return environ | {"BACKBEAT_OPERATIONS": modules, "FAULT_EFFECTS": str(effects)}


def post(client: FlaskClient, count: int, operation: str, **params: Any) -> list[int]:
    answer = client.post("/tasks/batch-request/", json=[{"operation": operation, "params": params}] * count)
    assert answer.status_code == 202, answer.json
    return [task["task_id"] for task in answer.json["tasks"]]


def tasks(app: Flask, *columns: Any) -> list[tuple[Any, ...]]:
    with app.app_context():
        return [tuple(row) for row in db.session.execute(select(*columns).order_by(columns[0]))]


def running(app: Flask) -> int:
    return sum(status == Status.STARTED for (status,) in tasks(app, Task.status))


def lines(effects: Path) -> list[str]:
    return sorted(effects.read_text().splitlines()) if effects.exists() else []


def ran_once(app: Flask, ids: list[int], effects: Path) -> None:
    """In the end each task has succeeded at its first attempt, and no attempt ran twice."""
    done = [(Status.SUCCESS, 1)] * len(ids)
    eventually(lambda: tasks(app, Task.status, Task.attempts) == done, within=60)
    assert lines(effects) == sorted(f"{task_id} 1" for task_id in ids)


@contextmanager
def read_only(own_postgres: Postgres, database: str) -> Iterator[None]:
    """As a primary that was demoted."""

    def switch(command: str) -> None:
        with psycopg.connect(own_postgres.url("postgres"), autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(command)
            connection.execute("SELECT pg_reload_conf()")

    switch("ALTER SYSTEM SET default_transaction_read_only = on")
    try:
        with psycopg.connect(own_postgres.url(database), autocommit=True) as connection:
            eventually(lambda: connection.execute("SHOW transaction_read_only").fetchone() == ("on",))
        yield
    finally:
        switch("ALTER SYSTEM RESET default_transaction_read_only")


def test_while_postgresql_is_read_only_posts_are_503_and_workers_wait(
    app: Flask, client: FlaskClient, worker: Start, own_postgres: Postgres, effects: Path
) -> None:
    worker(threads=4)
    ids = post(client, 12, "fault.work", seconds=1)
    eventually(lambda: running(app) == 4)
    with read_only(own_postgres, "backbeat"):
        eventually(lambda: client.post("/tasks/", json={"operation": "1+1"}).status_code != 202)
        for _ in range(20):
            answer = client.post("/tasks/", json={"operation": "1+1"})
            assert (answer.status_code, answer.json["message"]) == (503, "The database is read-only; try again.")
        assert client.get("/tasks/").status_code == 200
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json["checks"]["database"]) == (503, "is read-only")
        eventually(lambda: len(lines(effects)) >= 4)
        threading.Event().wait(8)  # longer than it takes to disown what runs nowhere
    with app.app_context():
        extra = db.session.scalars(select(Task).where(Task.task_id.not_in(ids))).all()
        for task in extra:  # accepted before the server had heard that it is read-only
            db.session.delete(task)
        db.session.commit()
    ran_once(app, ids, effects)


def test_what_runs_while_postgresql_is_frozen_runs_once(
    app: Flask, client: FlaskClient, worker: Start, own_postgres: Postgres, effects: Path
) -> None:
    worker(threads=4)
    ids = post(client, 12, "fault.work", seconds=1)
    eventually(lambda: running(app) == 4)
    with frozen(own_postgres):
        threading.Event().wait(20)
    ran_once(app, ids, effects)


def test_json_too_deep_for_postgresql_is_the_tasks_own_error(
    app: Flask, client: FlaskClient, worker: Start, own_postgres: Postgres
) -> None:
    own_postgres.sql("ALTER DATABASE backbeat SET max_stack_depth = '100kB'")
    try:
        worker()
        [task_id] = post(client, 1, "trial.deep")
        eventually(lambda: tasks(app, Task.status) == [(Status.ERROR,)])
    finally:
        own_postgres.sql("ALTER DATABASE backbeat RESET max_stack_depth")
    task = client.get(f"/tasks/{task_id}/").json
    assert (task["attempts"], task["error"]["type"]) == (1, "PermanentError")
    assert "stack depth" in task["error"]["message"]


def test_a_result_waits_while_the_table_is_not_as_it_should_be(
    app: Flask, client: FlaskClient, worker: Start, own_postgres: Postgres, effects: Path
) -> None:
    process = worker()
    ids = post(client, 4, "fault.work", seconds=1)
    eventually(lambda: running(app) == 4)
    with psycopg.connect(own_postgres.url("backbeat"), autocommit=True) as connection, app.app_context():
        connection.execute("ALTER TABLE task RENAME COLUMN result TO outcome")
        eventually(lambda: process.output.count("again in") >= 8 and len(lines(effects)) == 4)
        ended = clock()
        eventually(lambda: counted_to(clock()) > ended)
        connection.execute("ALTER TABLE task RENAME COLUMN outcome TO result")
    ran_once(app, ids, effects)
    with app.app_context():
        counted_to(clock() + timedelta(minutes=1))
        ends = select(func.sum(History.tasks)).where(History.span == 3600, History.status == Status.SUCCESS)
        assert db.session.scalar(ends.where(History.operation != ALL[0])) == 4, "their ends are counted all the same"


def counted_to(now: datetime) -> datetime:
    while history.roll_up(now=now):
        pass
    counted = db.session.scalars(select(HistoryMark.finished_to)).one()
    db.session.rollback()
    return counted


def test_a_row_that_somebody_locks_keeps_no_worker_from_its_heartbeat(
    app: Flask, client: FlaskClient, worker: Start, own_postgres: Postgres
) -> None:
    worker()
    [reporting] = post(client, 1, "trial.report", seconds=16)

    def progress() -> Any:
        return client.get(f"/tasks/{reporting}/").json["progress"]

    with psycopg.connect(own_postgres.url("backbeat")) as connection:
        eventually(lambda: running(app))
        connection.execute("SELECT 1 FROM task FOR UPDATE")
        beats = {tasks(app, Worker.seen_at)[0] for _ in range(120) if not threading.Event().wait(0.1)}
        assert len(beats) >= 4  # in 12 s, one every 3 s
    eventually(lambda: progress() and progress()["percent"] == 100)


def test_a_bug_of_ours_is_a_500_that_is_logged(
    app: Flask, client: FlaskClient, own_postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    app.config["PROPAGATE_EXCEPTIONS"] = False
    with psycopg.connect(own_postgres.url("backbeat"), autocommit=True) as connection:
        connection.execute("ALTER TABLE task RENAME TO away")
        try:
            answer = client.get("/tasks/")
        finally:
            connection.execute("ALTER TABLE away RENAME TO task")
    assert (answer.status_code, answer.json["code"]) == (500, 500)
    assert "UndefinedTable" in caplog.text


@pytest.fixture
def pair() -> Iterator[tuple[Postgres, Postgres]]:
    """A primary with an empty database, and its standby."""
    primary = Postgres()
    primary.sql("CREATE DATABASE backbeat")
    standby = Postgres(primary=primary)
    yield primary, standby
    standby.close()
    primary.close()


def test_when_the_primary_stands_still_its_standby_takes_over(
    pair: tuple[Postgres, Postgres], valkey: Valkey, tmp_path: Path, effects: Path
) -> None:
    primary, standby = pair
    both = [conninfo_to_dict(server.url("backbeat"))["host"] for server in pair]
    environ = {
        "DATABASE_URL": f"postgresql://postgres@/backbeat?host={both[0]},{both[1]}&target_session_attrs=read-write",
        "REDIS_URL": valkey.url,
        "BACKBEAT_OPERATIONS": "actors,tests.support.fault_operations",
        "FAULT_EFFECTS": str(effects),
    }
    app = create_web_app(Settings.from_env(environ))
    with app.app_context():
        upgrade()
    client = app.test_client()
    command = ("-m", "dramatiq", "actors.worker", "--processes", "1", "--threads", "4")
    worker = Process(command, os.environ | environ, "Worker process is ready for action")
    try:
        worker.wait_until_ready()
        ids = post(client, 12, "fault.work", seconds=1)
        eventually(lambda: running(app) == 4)
        with frozen(primary):
            standby.promote()
            began = time.monotonic()
            assert client.post("/tasks/", json={"operation": "1+1"}).status_code == 503
            assert time.monotonic() - began < 10
            ids += eventually(lambda: posted(client), within=30)
            ran_once(app, ids, effects)
    finally:
        worker.kill()
        with app.app_context():
            for engine in db.engines.values():
                engine.dispose()


def posted(client: FlaskClient) -> list[int]:
    answer = client.post("/tasks/", json={"operation": "fault.work", "params": {"seconds": 0}})
    return [answer.json["task_id"]] if answer.status_code == 202 else []
