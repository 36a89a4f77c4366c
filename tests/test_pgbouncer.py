"""Behind PgBouncer everything works as without it, in session mode and in transaction mode."""

from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, select, text

from scheduler_app.database.connections import Connection
from scheduler_app.extensions import db
from scheduler_app.models import Status, Task
from tests.support.pgbouncer import BINARY, MISSING, PgBouncer
from tests.support.processes import Process, eventually
from tests.support.servers import Postgres

pytestmark = pytest.mark.skipif(not BINARY, reason=MISSING)

SIZES = {"session": 60, "transaction": 4}  # sessions on the server


@pytest.fixture(params=SIZES)
def pooler(request: pytest.FixtureRequest, postgres: Postgres, migrated: dict[str, str]) -> Iterator[PgBouncer]:
    pooler = PgBouncer(postgres, "backbeat", mode=request.param, size=SIZES[request.param])
    yield pooler
    pooler.close()


@pytest.fixture
def database_url(pooler: PgBouncer) -> str:
    return pooler.url


@pytest.fixture
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | {"BACKBEAT_OPERATIONS": "actors,tests.support.trial_operations"}


def driver() -> Connection:
    """The driver's connection of this session."""
    connection = db.session.connection().connection.driver_connection
    assert isinstance(connection, Connection)
    return connection


def test_every_post_is_accepted_and_every_task_ends_as_it_should(
    app: Flask,
    client: FlaskClient,
    worker: Callable[..., Process],
    scheduler: Callable[..., Process],
) -> None:
    batch = [{"operation": "4+7"}] * 20 + [{"operation": "trial.fail_once"}]
    workers = [worker(threads=4), worker(threads=4)]
    scanning = scheduler()
    answers = Counter(client.post("/tasks/batch-request/", json=batch).status_code for _ in range(30))
    answers.update(client.post("/tasks/", json=batch[0]).status_code for _ in range(70))
    assert answers == {202: 100}

    def outcomes() -> dict[tuple[str, int], int]:
        with app.app_context():
            grouped = select(Task.status, Task.attempts, func.count()).group_by(Task.status, Task.attempts)
            return {(status, attempts): count for status, attempts, count in db.session.execute(grouped)}

    expected = {(Status.SUCCESS, 1): 670, (Status.SUCCESS, 2): 30}
    eventually(lambda: outcomes() == expected or "prepared statement" in workers[0].output, within=60)
    assert outcomes() == expected
    for process in (*workers, scanning):
        assert "prepared statement" not in process.output


@pytest.mark.usefixtures("context")
def test_a_pooler_is_seen_at_the_first_look() -> None:
    assert driver().prepare_threshold is None


@pytest.mark.usefixtures("context")
def test_nothing_is_set_on_a_session_that_others_share(pooler: PgBouncer) -> None:
    db.session.execute(text("SELECT 1"))
    assert db.session.scalar(text("SHOW statement_timeout")) == "0"
    assert db.session.scalar(text("SHOW idle_in_transaction_session_timeout")) == "0"
