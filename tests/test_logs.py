"""What people post reaches no log, whatever goes wrong with the database."""

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import urllib3

from tests.support.processes import eventually
from tests.support.servers import Postgres, Valkey
from tests.support.system import System

MARKER = "xyzzy-Marker-4711"
# What makes the database fail, and what mends it.
ON_BOTH = {
    "a table is missing": ("ALTER TABLE task RENAME TO mislaid", "ALTER TABLE mislaid RENAME TO task"),
    "a column is missing": ("ALTER TABLE task RENAME params TO mislaid", "ALTER TABLE task RENAME mislaid TO params"),
    "failures have no table": (
        "ALTER TABLE task_failure RENAME TO mislaid",
        "ALTER TABLE mislaid RENAME TO task_failure",
    ),
    "schedules have no table": (
        "ALTER TABLE task_schedule RENAME TO mislaid",
        "ALTER TABLE mislaid RENAME TO task_schedule",
    ),
}
ON_SQLITE = ON_BOTH | {
    "a value is there twice": (
        "DELETE FROM task; CREATE UNIQUE INDEX once ON task (params)",
        "DROP INDEX once",
    ),
}
ON_POSTGRESQL = ON_BOTH | {
    "a check fails": (
        """ALTER TABLE task ADD CONSTRAINT never CHECK (FALSE) NOT VALID;
        ALTER TABLE task_schedule ADD CONSTRAINT never CHECK (FALSE) NOT VALID""",
        "ALTER TABLE task DROP CONSTRAINT never; ALTER TABLE task_schedule DROP CONSTRAINT never",
    ),
    "a value is there twice": (
        "DELETE FROM task; CREATE UNIQUE INDEX once ON task ((params::text))",
        "DROP INDEX once",
    ),
    "a value does not fit": (
        "ALTER TABLE task_schedule ALTER name TYPE varchar(4) USING 'long'",
        "ALTER TABLE task_schedule ALTER name TYPE varchar(200)",
    ),
    "a trigger quotes the row": (
        """CREATE FUNCTION quote() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'refused' USING DETAIL = NEW.params, HINT = NEW.params; END $$;
        CREATE TRIGGER quote BEFORE INSERT OR UPDATE ON task FOR EACH ROW EXECUTE FUNCTION quote()""",
        "DROP TRIGGER quote ON task; DROP FUNCTION quote",
    ),
}

Run = Callable[[str], None]


@pytest.fixture
def on_sqlite(tmp_path: Path, migrated: dict[str, str]) -> Iterator[tuple[str, Run]]:
    file = tmp_path / "backbeat.db"
    file.write_bytes(Path(migrated["sqlite"].removeprefix("sqlite:///")).read_bytes())
    with sqlite3.connect(file, timeout=20) as connection:
        yield (
            f"sqlite:///{file}",
            lambda statements: void(connection.executescript(f"BEGIN IMMEDIATE; {statements}; COMMIT")),
        )
    connection.close()


@pytest.fixture
def on_postgresql(own_postgres: Postgres) -> Iterator[tuple[str, Run]]:
    url = own_postgres.url("backbeat")
    with psycopg.connect(url, autocommit=True) as connection:
        yield url, lambda statements: void(connection.execute(statements.encode()))


def void(_: object) -> None:
    pass


@pytest.mark.parametrize(
    ("database", "breakages"),
    [("on_sqlite", ON_SQLITE), ("on_postgresql", ON_POSTGRESQL)],
    ids=["sqlite", "postgresql"],
)
def test_nothing_that_was_posted_is_logged_when_the_database_fails(
    database: str, breakages: dict[str, tuple[str, str]], valkey: Valkey, request: pytest.FixtureRequest
) -> None:
    url, run = request.getfixturevalue(database)
    environ = {"DATABASE_URL": url, "REDIS_URL": valkey.url, "BACKBEAT_SCAN_INTERVAL": "0.2"}
    with System(environ | {"BACKBEAT_HTTP_ALLOW": "local"}) as system:
        for harm, mend in breakages.values():
            before = troubles(system)
            run(harm)
            post_all(system)
            eventually(lambda: troubles(system) > before)  # noqa: B023
            run(mend)
        eventually(lambda: max(post_all(system)) < 500)
        assert MARKER not in output(system)


def troubles(system: System) -> int:
    return len(re.findall("Traceback|cannot take it now", output(system)))


def output(system: System) -> str:
    return "".join(process.output for process in system.processes)


def post_all(system: System) -> list[int]:
    """A marker in every field that takes one; twice, so that the second meets the first. Returns the statuses."""
    headers = {"Authorization": f"Bearer {MARKER}", "X-Note": MARKER}
    params = {"url": f"{system.url}/{MARKER}", "method": "POST", "headers": headers, "body": MARKER, "timeout": 5}
    task = {"operation": "http_request", "params": params, "max_retries": 0}
    schedule = task | {"name": MARKER, "cron": "0 0 1 1 *"}
    calls = [
        ("/tasks/", task),
        ("/tasks/batch-request/", [task, task]),
        ("/task-schedules/", schedule),
        (f"/tasks/?operation={MARKER}", None),
    ] * 2
    answers = [
        urllib3.request(
            "POST" if body else "GET",
            system.url + path,
            body=json.dumps(body),
            headers={"Content-Type": "application/json", "User-Agent": MARKER},
            timeout=30,
            retries=False,
        )
        for path, body in calls
    ]
    assert not any(MARKER.encode() in answer.data for answer in answers if answer.status >= 500)
    return [answer.status for answer in answers]
