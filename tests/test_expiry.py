"""What has not begun by the time at which it expires ends as EXPIRED. Time is passed in."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from flask_migrate import downgrade, upgrade
from sqlalchemy import event, text

from scheduler_app.extensions import db
from scheduler_app.models import Status
from scheduler_app.services import attempts, expiry, history, retention, statistics
from scheduler_app.services.firing import fire_due
from scheduler_app.services.statistics import Period
from tests.support.claims import claim, succeed
from tests.support.pages import OURS
from tests.support.processes import Process
from tests.support.tasks import finished, get, submit

NOW = datetime.now(UTC)
HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
NOON = datetime(2040, 6, 1, 12, tzinfo=UTC)
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # one kind is enough there


def post(client: FlaskClient, **fields: Any) -> Any:
    answer = client.post("/tasks/", json={"operation": "4+7"} | fields)
    assert answer.status_code == 202, answer.json
    return answer.json


def time(answer: dict[str, Any], name: str) -> datetime:
    return datetime.fromisoformat(answer[name])


def expired(app: Flask, *, after: timedelta) -> int:
    with app.app_context():
        return expiry.expire(now=datetime.now(UTC) + after)


def test_it_counts_from_when_the_task_is_due(client: FlaskClient) -> None:
    task = post(client, expires_in=60)
    assert time(task, "expires_at") - time(task, "run_at") == timedelta(seconds=60)
    later = post(client, expires_in=60, run_at="2040-01-01T00:00:00Z")
    assert later["expires_at"] == "2040-01-01T00:01:00Z"
    assert post(client, expires_at="2040-01-01T01:00:00+01:00")["expires_at"] == "2040-01-01T00:00:00Z"
    assert post(client, expires_at=None, expires_in=None)["expires_at"] is None
    ids = submit(client, {"operation": "1+1"}, {"operation": "1+1", "expires_in": 5})
    assert [bool(get(client, task_id)["expires_at"]) for task_id in ids] == [False, True]


@pytest.mark.parametrize(
    ("fields", "errors"),
    [
        ({"expires_in": 0}, {"expires_in": ["Must be a whole number from 1 to 31622400."]}),
        ({"expires_in": "5"}, {"expires_in": ["Must be a whole number from 1 to 31622400."]}),
        ({"expires_at": "soon"}, {"expires_at": ["Not a time in ISO 8601, such as 2030-01-31T12:00:00Z."]}),
        (
            {"expires_in": 5, "expires_at": "2040-01-01T00:00:00Z"},
            {"expires_in": ["Not allowed beside expires_at."]},
        ),
        (
            {"run_at": "2040-01-01T00:00:00Z", "expires_at": "2040-01-01T00:00:00Z"},
            {"expires_at": ["Must be later than run_at."]},
        ),
    ],
)
@ON_SQLITE
def test_a_time_that_makes_no_sense_is_refused(
    client: FlaskClient, fields: dict[str, Any], errors: dict[str, Any]
) -> None:
    answer = client.post("/tasks/", json={"operation": "4+7"} | fields)
    assert (answer.status_code, answer.json["errors"]["json"]) == (422, errors)


def test_what_waits_ends_and_all_else_goes_on(app: Flask, client: FlaskClient) -> None:
    waiting, retrying, running, later, never = (post(client, expires_in=in_) for in_ in (60, 60, 60, 61, None))
    with app.app_context():
        for one in (retrying, running):
            attempt = claim(one["task_id"], 0, worker_id="w", now=datetime.now(UTC))
            assert attempt
            if one is retrying:
                attempts.fail(attempt, RuntimeError("no"), now=datetime.now(UTC))
        moment = max(time(one, "expires_at") for one in (waiting, retrying))
        assert expiry.expire(now=time(waiting, "expires_at") - timedelta.resolution) == 0
        assert expiry.expire(now=moment) == 2
        assert expiry.expire(now=moment) == 0
        assert succeed(attempt, 11, now=datetime.now(UTC))
    found = [get(client, one["task_id"]) for one in (waiting, retrying, running, later, never)]
    assert [one["status"] for one in found] == ["EXPIRED", "EXPIRED", "SUCCESS", "PENDING", "PENDING"]
    assert [one["attempts"] for one in found] == [0, 1, 1, 0, 0]
    assert time(found[0], "finished_at") == time(found[1], "finished_at") == moment
    assert (found[0]["error"], found[1]["error"]["message"]) == (None, "no")
    assert [one["task_id"] for one in client.get("/tasks/?status=EXPIRED").json] == [
        retrying["task_id"],
        waiting["task_id"],
    ]


def test_many_end_in_batches(app: Flask, client: FlaskClient) -> None:
    submit(client, *[{"operation": "1+1", "expires_in": 1}] * 25)
    with app.app_context():
        later = datetime.now(UTC) + HOUR
        assert [expiry.expire(now=later, limit=10) for _ in range(4)] == [10, 10, 5, 0]


def test_a_claim_begins_it_up_to_its_time_and_not_from_then_on(app: Flask, client: FlaskClient) -> None:
    first, second = (post(client, expires_in=60) for _ in range(2))
    with app.app_context():
        assert claim(first["task_id"], 0, worker_id="w", now=time(first, "expires_at")) is None
        assert claim(second["task_id"], 0, worker_id="w", now=time(second, "expires_at") - timedelta.resolution)
    assert get(client, first["task_id"])["status"] == "PENDING"


def test_a_task_whose_time_is_over_says_so_until_it_is_ended(client: FlaskClient) -> None:
    task = post(client, expires_at="2020-01-01T00:00:00Z")
    assert get(client, task["task_id"])["waiting_for"] == {"reason": "expiry", "expires_at": "2020-01-01T00:00:00Z"}


def test_an_expired_task_runs_again_by_hand_and_does_not_expire_again(app: Flask, client: FlaskClient) -> None:
    ids = submit(client, *[{"operation": "1+1", "expires_in": 1}] * 3)
    expired(app, after=HOUR)
    assert client.post(f"/tasks/{ids[0]}/cancel/").status_code == 409
    answer = client.post(f"/tasks/{ids[0]}/retry/")
    # The clock that was passed in was ahead: by that of now the time has not come yet.
    assert (answer.status_code, answer.json["status"], answer.json["finished_at"]) == (202, "PENDING", None)
    with app.app_context():
        db.session.execute(text("UPDATE task SET expires_at = '2020-01-01 00:00:00.000000'"))
        db.session.commit()
    many = client.post("/tasks/retry/", json={"status": "EXPIRED"}).json
    assert many["task_ids"] == ids[1:]
    assert [get(client, task_id)["expires_at"] for task_id in ids[1:]] == [None, None]
    assert expired(app, after=HOUR) == 1


def test_a_retry_keeps_an_expiry_that_is_still_ahead(client: FlaskClient) -> None:
    task = post(client, expires_at="2040-01-01T00:00:00Z")
    client.post(f"/tasks/{task['task_id']}/cancel/")
    assert client.post(f"/tasks/{task['task_id']}/retry/").json["expires_at"] == "2040-01-01T00:00:00Z"


def test_a_change_moves_it_or_takes_it_away(app: Flask, client: FlaskClient) -> None:
    path = f"/tasks/{post(client, expires_in=60)['task_id']}/"
    assert client.patch(path, json={"expires_at": "2040-01-01T00:00:00Z"}).json["expires_at"] == "2040-01-01T00:00:00Z"
    assert client.patch(path, json={"expires_at": None}).json["expires_at"] is None
    assert expired(app, after=HOUR) == 0


def test_a_schedule_gives_each_task_its_time(app: Flask, client: FlaskClient) -> None:
    body = {"operation": "5+10", "every_x_hours": 1, "start_at": NOON.isoformat()}
    first = client.post("/task-schedules/", json=body | {"expires_in": 90}).json
    client.post("/task-schedules/", json=body)
    assert first["expires_in"] == 90
    path = f"/task-schedules/{first['task_schedule_id']}/"
    with app.app_context():
        fire_due(now=NOON + SECOND)
    [task] = client.get(path).json["tasks"]
    assert task["expires_at"] == "2040-06-01T12:01:31Z"
    [other] = client.get("/task-schedules/2/").json["tasks"]
    assert other["expires_at"] is None
    triggered = client.post(f"{path}trigger/").json
    assert time(triggered, "expires_at") - time(triggered, "run_at") == timedelta(seconds=90)
    assert client.patch(path, json={"expires_in": None}).json["expires_in"] is None


def test_it_is_counted_kept_deleted_and_forgotten_like_any_ended_task(app: Flask, client: FlaskClient) -> None:
    ids = submit(client, *[{"operation": "1+1", "expires_in": 1}] * 3)
    with app.app_context():
        ended = datetime.now(UTC) + 2 * SECOND
        expiry.expire(now=ended)
        later = ended + timedelta(minutes=1)
        while history.roll_up(now=later):
            pass
        figures = statistics.totals(Period.HOUR, now=later)
        assert (figures["finished"], figures["expired"], figures["failed"]) == (3, 3, 0)
        assert figures["waiting_p50"] is None, "it never began"
        by_operation = statistics.by_operation(Period.HOUR, now=later)["calculate"]
        assert (by_operation["finished"], by_operation["failed_share"]) == (3, None)
        by_priority = statistics.by_priority(Period.HOUR, now=later)
        assert (by_priority[5]["finished"], by_priority[5]["got"]) == (3, 0)
    assert client.post("/tasks/delete/", json={"task_ids": ids[:1]}).json["task_ids"] == ids[:1]
    with app.app_context():
        assert retention.prune(now=ended + timedelta(days=31)) == 2


def test_it_ends_without_a_worker_and_is_not_run_by_one_that_comes(
    client: FlaskClient, scheduler: Callable[..., Process], worker: Callable[..., Process]
) -> None:
    over = post(client, expires_at="2020-01-01T00:00:00Z")
    scheduler()
    [task] = finished(client, [over["task_id"]])
    assert (task["status"], task["attempts"], task["started_at"]) == ("EXPIRED", 0, None)
    worker()
    again = client.post(f"/tasks/{task['task_id']}/retry/")
    assert again.json["expires_at"] is None
    [task] = finished(client, [task["task_id"]])
    assert (task["status"], task["result"]) == ("SUCCESS", 11)


def test_the_dashboard_shows_finds_and_retries_it(app: Flask, client: FlaskClient) -> None:
    task_id = post(client, expires_in=3_600)["task_id"]
    assert "if it has not begun" in client.get(f"/dashboard/tasks/{task_id}").text
    expired(app, after=2 * HOUR)
    page = client.get(f"/dashboard/tasks/{task_id}").text
    assert "nothing began it in time" in page
    assert f'action="/dashboard/tasks/{task_id}/retry"' in page
    assert f'id="t-{task_id}"' in client.get("/dashboard/tasks?q=status:expired").text
    client.post("/dashboard/many/retry", data={"q": "status:expired"}, headers=OURS)
    assert get(client, task_id)["status"] == "PENDING"
    form = {"params.expression": "4+7", "expires_in": "60"}
    assert client.post("/dashboard/operations/calculate", data=form, headers=OURS).status_code == 303
    [newest, *_] = client.get("/tasks/").json
    assert time(newest, "expires_at") - time(newest, "run_at") == timedelta(seconds=60)


@pytest.mark.old("0014")
def test_the_migration_keeps_tasks_failures_and_the_count_of_ids(old: Flask) -> None:
    names = "operation, params, priority, status, attempts, max_retries, claims, run_at, created_at"
    values = "'calculate', '{}', 5, 'PENDING', 0, 5, 0, '2030-01-01', '2030-01-01'"

    def run(statement: str) -> Any:
        with db.engine.begin() as connection:
            return connection.execute(text(statement))

    for _ in range(3):
        run(f"INSERT INTO task ({names}) VALUES ({values})")  # noqa: S608
    columns = "task_id, claim, attempt, type, message, failed_at"
    run(f"INSERT INTO task_failure ({columns}) VALUES (1, 1, 1, 'E', '', '2030-01-01')")  # noqa: S608
    run("DELETE FROM task WHERE task_id = 3")
    upgrade()
    run(f"INSERT INTO task ({names}) VALUES ({values})")  # noqa: S608
    assert run("SELECT task_id FROM task ORDER BY 1").scalars().all() == [1, 2, 4]
    assert run("SELECT count(*) FROM task_failure").scalar_one() == 1
    run(f"UPDATE task SET status = '{Status.EXPIRED}' WHERE task_id = 2")  # noqa: S608
    downgrade(revision="0014")
    assert run("SELECT status FROM task WHERE task_id = 2").scalar_one() == "CANCELLED"
    if db.engine.dialect.name == "sqlite":
        assert run("PRAGMA integrity_check").scalar_one() == "ok"


@ON_SQLITE
def test_the_sweep_reads_only_what_expires(app: Flask, client: FlaskClient) -> None:
    """SQLite takes the index of the statuses for any condition about them, and would read all that waits."""
    post(client, expires_in=60)
    plans: list[str] = []

    def explain(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT"):
            plans.extend(row[-1] for row in cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters))

    with app.app_context():
        event.listen(db.engine, "before_cursor_execute", explain)
        expiry.expire(now=datetime.now(UTC))
    assert plans == ["SEARCH task USING INDEX ix_task_expiring (expires_at>? AND expires_at<?)"]
