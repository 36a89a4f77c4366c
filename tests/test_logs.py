"""One line for each event, in the same form everywhere. What people post reaches no log, whatever goes wrong."""

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import urllib3

from scheduler_app.supervisor.child import Log
from tests.support.processes import eventually
from tests.support.servers import Postgres, Valkey
from tests.support.system import System

MARKER = "xyzzy-Marker-4711"
# What makes the database fail, and what mends it. The processes work meanwhile: each takes the lock of one table, the
# strongest first, so that it deadlocks with none of them.
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
    "a check of tasks fails": (
        "ALTER TABLE task ADD CONSTRAINT never CHECK (FALSE) NOT VALID",
        "ALTER TABLE task DROP CONSTRAINT never",
    ),
    "a check of schedules fails": (
        "ALTER TABLE task_schedule ADD CONSTRAINT never CHECK (FALSE) NOT VALID",
        "ALTER TABLE task_schedule DROP CONSTRAINT never",
    ),
    "a value is there twice": (
        "LOCK TABLE task; DELETE FROM task; CREATE UNIQUE INDEX once ON task ((params::text))",
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
    ("database", "breakages", "form"),
    [("on_sqlite", ON_SQLITE, "json"), ("on_postgresql", ON_POSTGRESQL, "text")],
    ids=["sqlite", "postgresql"],
)
def test_nothing_that_was_posted_is_logged_when_the_database_fails(
    database: str, breakages: dict[str, tuple[str, str]], form: str, valkey: Valkey, request: pytest.FixtureRequest
) -> None:
    url, run = request.getfixturevalue(database)
    environ = {"DATABASE_URL": url, "REDIS_URL": valkey.url, "BACKBEAT_SCAN_INTERVAL": "0.2"}
    environ |= {"BACKBEAT_LOG_FORMAT": form}
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


@pytest.fixture
def events(shop: Callable[..., System], tmp_path: Path) -> Callable[[str], list[str]]:
    """The lines of web, worker and scheduler in this form, after two tasks: one that logs, and one that fails."""

    def events(form: str) -> list[str]:
        settings = {"BACKBEAT_OPERATIONS": "tests.support.trial_operations,actors", "BACKBEAT_LOG_FORMAT": form}
        with shop(tmp_path, **settings) as system:
            tasks = [
                system.call("POST", "/tasks/?wait=15", {"operation": name, "max_retries": 0})
                for name in ("trial.log", "trial.give_up")
            ]
            assert [task["status"] for task in tasks] == ["SUCCESS", "ERROR"]
            eventually(lambda: "gave up" in output(system))
            lines = output(system).splitlines()
        return [line for line in lines if not line.startswith("[")]  # of the main process of dramatiq

    return events


def test_every_line_is_an_object_that_says_where_it_comes_from(events: Callable[[str], list[str]]) -> None:
    found = [json.loads(line) for line in events("json")]
    assert {event["process"] for event in found} == {"web", "worker", "scheduler"}
    for event in found:
        assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["time"])
        assert event["level"] in ("info", "warning")
        assert event["pid"] > 0
        assert ("worker" in event) == (event["process"] == "worker")
    [said] = [event for event in found if event["logger"] == "trial"]
    assert (said["task_id"], said["operation"], said["attempt"]) == (1, "trial.log", 1)
    assert said["message"] == "first line\nsecond line"
    assert said["traceback"].startswith("Traceback (most recent call last):\n")
    [failed] = [event for event in found if "gave up" in event["message"]]
    assert (failed["task_id"], failed["operation"], failed["attempt"]) == (2, "trial.give_up", 1)


def test_a_line_of_text_has_the_same(events: Callable[[str], list[str]]) -> None:
    lines = events("text")
    [said] = [line for line in lines if " trial: " in line]
    where = r"\(task_id 1, operation trial\.log, attempt 1, worker [0-9a-f-]{36}\)"
    assert re.fullmatch(rf"20\S+Z WARNING worker trial: first line\\nsecond line {where}", said)
    assert lines[lines.index(said) + 1] == "Traceback (most recent call last):"
    for process, ready in (("web", "wsgi: web process ready"), ("scheduler", "scheduler: scheduler ready")):
        assert [line for line in lines if re.fullmatch(rf"20\S+Z INFO {process} {ready}", line)]


def test_what_others_write_becomes_an_object_and_an_object_stays_one(capfd: pytest.CaptureFixture[str]) -> None:
    log = Log(as_json=True)
    log.write("valkey", "out of memory")
    log.write("web", '{"message": "x"}')
    ours, theirs = capfd.readouterr().out.splitlines()
    assert json.loads(ours).items() >= {"process": "valkey", "message": "out of memory"}.items()
    assert theirs == '{"message": "x"}'
