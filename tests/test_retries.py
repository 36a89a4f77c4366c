"""How often a task is tried again, and after which pauses: by its operation, by itself, and by the server it called."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from statistics import mean
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask
from flask.testing import FlaskClient

from actors.http_request import HttpRequestParams, UnexpectedStatus, http_request
from scheduler_app import outgoing
from scheduler_app.config import Settings
from scheduler_app.models import Task
from scheduler_app.operations import Retry, RetryLater
from scheduler_app.services import attempts, tasks
from scheduler_app.services.firing import fire_due
from tests.support import trial_operations  # noqa: F401 (registers them)
from tests.support.claims import claim
from tests.support.http_server import Server
from tests.support.pages import OURS
from tests.support.processes import Process, eventually
from tests.support.tasks import get, submit

NOW = datetime(2040, 6, 1, 12, tzinfo=UTC)
USUAL = {"max_retries": 5, "min_seconds": 1.0, "max_seconds": 600.0, "factor": 2.0}
TEN = {"min_seconds": 10, "max_seconds": 10}
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # one kind is enough there


def post(client: FlaskClient, **fields: Any) -> Any:
    answer = client.post("/tasks/", json={"operation": "4+7"} | fields)
    assert answer.status_code == 202, answer.json
    return answer.json


def pause(app: Flask, task_id: int, error: Exception, *, before: int = 0) -> timedelta:
    """Until the next attempt, after an attempt fails so; `before` have failed already."""
    with app.app_context():
        for claims in range(before + 1):
            attempt = claim(task_id, claims, worker_id="w", now=NOW)
            assert attempt
            attempts.fail(attempt, error, now=NOW)
        task: Task = tasks.get(task_id)
        return task.run_at - NOW


def test_pauses_grow_from_the_shortest_to_the_longest_at_random() -> None:
    for retry in (Retry(), Retry(min_seconds=10, max_seconds=1_000, factor=3)):
        for attempt in (1, 4, 20, 100):
            waits = [retry.pause(attempt) for _ in range(2_000)]
            longest = min(retry.min_seconds * retry.factor**attempt, retry.max_seconds)
            assert retry.min_seconds <= min(waits) < retry.min_seconds + longest / 20
            assert longest * 0.95 < max(waits) <= longest
            assert mean(waits) == pytest.approx((retry.min_seconds + longest) / 2, rel=0.1)


def test_a_factor_of_one_makes_all_pauses_the_same() -> None:
    assert {Retry(min_seconds=7, factor=1).pause(attempt) for attempt in range(1, 20)} == {7}


@pytest.mark.parametrize(
    "fields",
    [{"max_retries": -1}, {"min_seconds": 0.5}, {"min_seconds": 601}, {"max_seconds": 90_000}, {"factor": 0.5}],
)
def test_a_policy_out_of_bounds_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="max_retries is 0 to 100, factor 1 to 10, min_seconds at least 1"):
        Retry(**fields)


def test_a_task_has_the_policy_of_its_operation_and_what_it_says_itself(client: FlaskClient) -> None:
    assert post(client)["retry"] == USUAL
    assert post(client, max_retries=2)["retry"] == USUAL | {"max_retries": 2}
    own = post(client, retry={"max_retries": 7, "min_seconds": 10.5, "factor": 3})
    assert (own["retry"], own["max_retries"]) == (USUAL | {"max_retries": 7, "min_seconds": 10.5, "factor": 3}, 7)
    assert get(client, own["task_id"])["retry"] == client.get("/tasks/").json[0]["retry"] == own["retry"]
    of_operation = {"max_retries": 3, "min_seconds": 30, "max_seconds": 30, "factor": 1}
    assert post(client, operation="trial.retry")["retry"] == of_operation
    assert post(client, operation="trial.retry", retry=None)["retry"] == of_operation
    longer = post(client, operation="trial.retry", retry={"min_seconds": 60})["retry"]
    assert longer == of_operation | {"min_seconds": 60, "max_seconds": 60}, "the shortest pause is none of the longest"


def test_a_batch_keeps_each_policy_with_its_task(client: FlaskClient) -> None:
    ids = submit(client, {"operation": "1+1"}, {"operation": "1+1", "retry": TEN}, {"operation": "trial.retry"})
    assert [get(client, task_id)["retry"]["min_seconds"] for task_id in ids] == [1, 10, 30]


@pytest.mark.parametrize(
    ("fields", "errors"),
    [
        ({"retry": {"min_seconds": 0.5}}, {"retry": {"min_seconds": ["Must be a number from 1 to 86400."]}}),
        ({"retry": {"max_seconds": "9"}}, {"retry": {"max_seconds": ["Must be a number from 1 to 86400."]}}),
        ({"retry": {"factor": True}}, {"retry": {"factor": ["Must be a number from 1 to 10."]}}),
        ({"retry": {"max_retries": 101}}, {"retry": {"max_retries": ["Must be a whole number from 0 to 100."]}}),
        (
            {"retry": {"min_seconds": 9, "max_seconds": 8}},
            {"retry": {"max_seconds": ["Must not be less than min_seconds."]}},
        ),
        (
            {"retry": {"max_retries": 1}, "max_retries": 1},
            {"max_retries": ["Not allowed beside retry.max_retries, which is the same."]},
        ),
        ({"retry": 5}, {"retry": {"_schema": ["Must be a JSON object."]}}),
    ],
)
@ON_SQLITE
def test_what_is_no_policy_is_refused_with_what_is_allowed(
    client: FlaskClient, fields: dict[str, Any], errors: dict[str, Any]
) -> None:
    task_id = post(client)["task_id"]
    posted = client.post("/tasks/", json={"operation": "4+7"} | fields)
    changed = client.patch(f"/tasks/{task_id}/", json=fields)
    assert (posted.status_code, posted.json["errors"]["json"]) == (422, errors)
    assert (changed.status_code, changed.json["errors"]["json"]) == (422, errors)


def test_the_pauses_are_those_of_the_task(app: Flask, client: FlaskClient) -> None:
    assert pause(app, post(client, retry=TEN)["task_id"], RuntimeError()) == timedelta(seconds=10)
    grown = pause(app, post(client, retry={"min_seconds": 100, "factor": 10})["task_id"], RuntimeError(), before=2)
    assert timedelta(seconds=100) <= grown <= timedelta(seconds=600)
    assert pause(app, post(client, operation="trial.retry")["task_id"], RuntimeError()) == timedelta(seconds=30)


@pytest.mark.parametrize(("asked", "waits"), [(5, 10), (90, 90), (3_600, 3_600), (86_400, 3_600)])
def test_an_error_can_ask_for_a_longer_pause_up_to_an_hour(
    app: Flask, client: FlaskClient, asked: float, waits: float
) -> None:
    task_id = post(client, retry=TEN)["task_id"]
    assert pause(app, task_id, RetryLater("busy", seconds=asked)) == timedelta(seconds=waits)


def test_a_change_names_what_is_to_change(app: Flask, client: FlaskClient) -> None:
    path = f"/tasks/{post(client, operation='trial.retry')['task_id']}/"
    changed = client.patch(path, json={"retry": {"min_seconds": 60, "factor": 2}}).json
    assert changed["retry"] == {"max_retries": 3, "min_seconds": 60, "max_seconds": 60, "factor": 2}
    assert client.patch(path, json={"max_retries": 1}).json["retry"] == changed["retry"] | {"max_retries": 1}
    back = client.patch(path, json={"retry": None}).json["retry"]
    assert back == {"max_retries": 1, "min_seconds": 30, "max_seconds": 30, "factor": 1}
    assert client.patch(path, json={"retry": {"max_retries": 9}}).json["max_retries"] == 9


def test_a_schedule_gives_its_policy_to_its_tasks(app: Flask, client: FlaskClient) -> None:
    body = {"operation": "5+10", "every_x_hours": 1, "start_at": NOW.isoformat(), "retry": TEN | {"max_retries": 2}}
    schedule = client.post("/task-schedules/", json=body).json
    assert schedule["retry"] == USUAL | TEN | {"max_retries": 2}
    path = f"/task-schedules/{schedule['task_schedule_id']}/"
    with app.app_context():
        fire_due(now=NOW)
    changed = client.patch(path, json={"retry": {"min_seconds": 20}}).json
    assert changed["retry"] == USUAL | {"max_retries": 2, "min_seconds": 20}
    with app.app_context():
        fire_due(now=NOW + timedelta(hours=1))
    assert [task["retry"]["min_seconds"] for task in client.get(path).json["tasks"]] == [20, 10]
    both = client.patch(path, json={"operation": "trial.retry", "retry": {"min_seconds": 40}}).json
    assert both["retry"] == {"max_retries": 2, "min_seconds": 40, "max_seconds": 40, "factor": 1}


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("120", 120), ("0", 0), ("-1", 0), ("soon", 0), ("9" * 40, 0), ("", 0), ("Sun, 06 Nov 1994 08:49:37 GMT", 0)],
)
def test_the_answer_of_a_server_says_when_to_come_again(server: Server, header: str, seconds: float) -> None:
    assert _asked(f"{server.url}/busy/{quote(header)}") == seconds
    assert _asked(f"{server.url}/status/503") == 0


def test_a_date_in_retry_after_counts_from_the_server_s_own_clock(server: Server) -> None:
    then = format_datetime(datetime.now(UTC) + timedelta(seconds=600), usegmt=True)
    assert _asked(f"{server.url}/busy/{quote(then)}") == pytest.approx(600, abs=30)
    behind = format_datetime(NOW + timedelta(seconds=90), usegmt=True)
    assert _asked(f"{server.url}/busy/{quote(behind)}?date={quote(format_datetime(NOW, usegmt=True))}") == 90


def _asked(url: str) -> float:
    outgoing.configure(Settings.from_env({"BACKBEAT_HTTP_ALLOW": "local"}))
    with pytest.raises(UnexpectedStatus) as error:
        http_request(**HttpRequestParams().load({"url": url}))
    return error.value.seconds


def test_a_called_server_s_retry_after_is_when_the_task_is_due_again(
    client: FlaskClient, worker: Callable[..., Process], server: Server
) -> None:
    worker(BACKBEAT_HTTP_ALLOW="local")
    task_id = post(client, operation="http_request", params={"url": f"{server.url}/busy/900"})["task_id"]
    task = eventually(lambda: (found := get(client, task_id))["status"] == "RETRYING" and found)
    waits = datetime.fromisoformat(task["run_at"]) - datetime.fromisoformat(task["started_at"])
    assert timedelta(seconds=900) <= waits < timedelta(seconds=1_200)
    assert task["waiting_for"] == {"reason": "time", "run_at": task["run_at"]}


def test_the_dashboard_shows_the_pauses_and_changes_them(client: FlaskClient) -> None:
    task_id = post(client, retry={"min_seconds": 10, "max_seconds": 3_600, "factor": 3})["task_id"]
    page = client.get(f"/dashboard/tasks/{task_id}").text
    assert "10 s to 1 h, up to 3 times as long each time" in page
    for name in ("min_seconds", "max_seconds", "factor"):
        assert f'name="retry.{name}"' in page
    form = {"retry.min_seconds": "20", "retry.max_seconds": "20", "retry.factor": "1"}
    assert client.post(f"/dashboard/tasks/{task_id}/change", data=form, headers=OURS).status_code == 303
    assert get(client, task_id)["retry"] == USUAL | {"min_seconds": 20, "max_seconds": 20, "factor": 1}
    assert "30 s" in client.get("/dashboard/operations/trial.retry").text


def test_the_dashboard_runs_an_operation_with_other_pauses(client: FlaskClient) -> None:
    form = {"params.expression": "4+7", "retry.min_seconds": "20"}
    answer = client.post("/dashboard/operations/calculate", data=form, headers=OURS)
    assert answer.status_code == 303, answer.text
    [task] = client.get("/tasks/").json
    assert task["retry"] == USUAL | {"min_seconds": 20}
    again = client.get(f"/dashboard/operations/calculate?from={task['task_id']}").text
    assert 'name="retry.min_seconds" value="20' in again
    wrong = client.post("/dashboard/operations/calculate", data=form | {"retry.factor": "99"}, headers=OURS)
    assert (wrong.status_code, "Must be a number from 1 to 10." in wrong.text) == (422, True)


def test_the_form_of_a_schedule_sets_the_pauses_and_keeps_them(client: FlaskClient) -> None:
    form = {"kind": "interval", "every": "2", "unit": "hours", "timezone": "UTC", "operation": "calculate"}
    form |= {"priority": "5", "overlap": "allow", "catch_up": "latest", "window": "1", "window_unit": "days"}
    form |= {"params.expression": "4+7", "do": "save"}
    path, given = "/dashboard/schedules", {"retry.min_seconds": "10", "retry.factor": "1.5"}
    wrong = client.post(f"{path}/new", data=form | {"retry.factor": "much"}, headers=OURS)
    assert (wrong.status_code, "Must be a number from 1 to 10." in wrong.text) == (422, True)
    assert client.post(f"{path}/new", data=form | given, headers=OURS).status_code == 303
    [schedule] = client.get("/task-schedules/").json
    assert schedule["retry"] == USUAL | {"min_seconds": 10, "factor": 1.5}
    assert "10 s to 10 min, up to 1.5 times as long each time" in client.get(f"{path}/1").text
    shown = client.get(f"{path}/1/edit").text
    for name, value in (("min_seconds", "10"), ("max_seconds", "600"), ("factor", "1.5")):
        assert f'name="retry.{name}" value="{value}"' in shown
