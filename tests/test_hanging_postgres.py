"""PostgreSQL does not answer. The web process still serves calls that do not need it, and nobody waits for ever."""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
import urllib3
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

from scheduler_app.access.admission import SLOTS
from scheduler_app.database import deadline, failures
from scheduler_app.database.connections import STATEMENT_TIMEOUT, Connection
from scheduler_app.extensions import db
from tests.support.harms import frozen
from tests.support.processes import Process, eventually, free_port
from tests.support.servers import Postgres
from tests.support.system import WEB, WEB_READY


@pytest.fixture
def patience() -> None:
    """As in production."""


@pytest.fixture
def database_url(own_postgres: Postgres) -> str:
    return own_postgres.url("backbeat")


@pytest.fixture
def web(start: Callable[..., Process]) -> str:
    """The address of a real web process."""
    port = free_port()
    start(*WEB, ready=WEB_READY, PORT=str(port))
    return f"http://127.0.0.1:{port}"


class Callers:
    """Clients of a web process, and how long it took to answer them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = urllib3.PoolManager(maxsize=40, timeout=60, retries=False)
        self.answers: Counter[int] = Counter()  # to the posts
        self.times: defaultdict[str, list[float]] = defaultdict(list)  # seconds, by path

    def ask(self, method: str, path: str, **options: Any) -> int:
        began = time.monotonic()
        status = self.http.request(method, self.url + path, **options).status
        self.times[path].append(time.monotonic() - began)
        return status

    @contextmanager
    def posting(self, clients: int) -> Iterator[None]:
        ends = threading.Event()

        def post_on() -> None:
            while not ends.wait(0.02):
                self.answers[self.ask("POST", "/tasks/", json={"operation": "1+1"})] += 1

        threads = [threading.Thread(target=post_on) for _ in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            ends.set()
            for thread in threads:
                thread.join()

    def probe(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for _ in range(20):
                assert self.ask("GET", "/livez") == 200
                threading.Event().wait(0.02)
            self.ask("GET", "/readyz")


def test_a_web_process_lives_while_postgresql_is_frozen(client: FlaskClient, web: str, own_postgres: Postgres) -> None:
    callers = Callers(web)
    with callers.posting(clients=20):
        eventually(lambda: callers.answers[202] >= 100, within=60)
        callers.probe(2)
        assert set(callers.answers) == {202}
        usual = p95(callers.times["/livez"])  # on this machine, whatever else it does
        callers.times.clear()
        with frozen(own_postgres):
            callers.probe(22)
            slowest = {path: max(seconds) for path, seconds in callers.times.items()}
            alive = p95(callers.times["/livez"])
        before = callers.answers[202]
        eventually(lambda: callers.answers[202] > before + 50, within=60)
    print(f"/livez usually {usual:.3f} s, then {alive:.3f} s; {slowest}; {dict(callers.answers)}")
    assert set(callers.answers) == {202, 503}
    assert alive < max(0.1, 2 * usual)
    assert slowest["/readyz"] < 1 + 2 * usual
    assert slowest["/tasks/"] < 10
    assert len(list(everything(client))) >= callers.answers[202]


def p95(seconds: list[float]) -> float:
    return sorted(seconds)[len(seconds) * 95 // 100]


def everything(client: FlaskClient) -> Iterator[dict[str, Any]]:
    answer = client.get("/tasks/?limit=200")
    yield from answer.json
    while link := answer.headers.get("Link"):
        answer = client.get(link[1 : link.index(">")])
        yield from answer.json


def test_requests_wait_their_turn_under_load(web: str) -> None:
    http = urllib3.PoolManager(maxsize=40, timeout=60, retries=False)
    answers: Counter[int] = Counter()

    def post_many() -> None:
        for _ in range(10):
            answers[http.request("POST", f"{web}/tasks/", json={"operation": "1+1"}).status] += 1

    clients = [threading.Thread(target=post_many) for _ in range(40)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    assert answers == {202: 400}


def test_when_all_inside_the_database_hang_further_requests_are_refused(app: Flask, own_postgres: Postgres) -> None:
    answers: Counter[int] = Counter()

    def ask() -> None:
        answers[app.test_client().get("/tasks/").status_code] += 1

    inside = [threading.Thread(target=ask) for _ in range(SLOTS)]
    url = own_postgres.url("backbeat")
    # A transaction sees the sessions as they were at its first look: the one that looks has none.
    with psycopg.connect(url) as connection, psycopg.connect(url, autocommit=True) as looking:
        connection.execute("LOCK TABLE task")
        for thread in inside:
            thread.start()
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        eventually(lambda: looking.execute(waiting).fetchone() == (SLOTS,))
        refused = app.test_client().get("/tasks/")
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        began = time.monotonic()
        assert app.test_client().get("/tasks/").status_code == 503
        assert app.test_client().get("/livez").status_code == 200
        assert time.monotonic() - began < 0.5
    for thread in inside:
        thread.join()
    assert answers == {200: SLOTS}


@pytest.mark.usefixtures("context")
def test_a_silent_server_is_left_when_the_time_is_up(own_postgres: Postgres) -> None:
    connection = db.session.connection().connection.driver_connection
    assert connection
    with frozen(own_postgres):
        began = time.monotonic()
        with deadline(1), pytest.raises(OperationalError, match="has not answered within 1"):
            db.session.execute(text("SELECT 1"))
        assert connection.closed
        db.session.rollback()
        with pytest.raises(OperationalError):  # there is no other connection to be had
            db.session.execute(text("SELECT 1"))
        assert time.monotonic() - began < 6
    db.session.rollback()


@pytest.mark.usefixtures("context")
def test_a_server_that_lives_ends_a_statement_that_takes_too_long() -> None:
    assert db.session.scalar(text("SHOW statement_timeout")) == f"{STATEMENT_TIMEOUT}s"
    db.session.execute(text("SET statement_timeout = '0.1s'"))
    with pytest.raises(OperationalError) as raised:
        db.session.execute(text("SELECT pg_sleep(5)"))
    assert not raised.value.connection_invalidated


@pytest.mark.usefixtures("context")
def test_a_prepared_statement_that_the_server_does_not_know_ends_preparing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "prepares", True)
    for _ in range(10):  # the driver prepares what comes again and again
        db.session.execute(text("SELECT 1"))
    # As behind a pooler: the driver does not see it.
    db.session.execute(text("DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$"))
    with pytest.raises(DBAPIError) as raised:
        db.session.execute(text("SELECT 1"))
    assert raised.value.connection_invalidated
    assert failures.is_outage(raised.value)
    db.session.rollback()
    after = db.session.connection().connection.driver_connection
    assert isinstance(after, Connection)
    assert after.prepare_threshold is None
