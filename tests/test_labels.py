"""Labels of tasks, and what else tasks are found by: the type of their error, and when they ended."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, select, text, update

from scheduler_app.extensions import db
from scheduler_app.models import Task, TaskLabel
from scheduler_app.services import attempts, callers, task_search, tasks
from scheduler_app.services.callers import Caller
from scheduler_app.services.firing import fire_due
from tests.support.claims import claim
from tests.support.pages import OURS
from tests.support.tasks import get

NOON = datetime(2040, 6, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
EMPTY = {"remaining": 0, "next_cursor": None}
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # one kind is enough there


def post(client: FlaskClient, **fields: Any) -> int:
    answer = client.post("/tasks/", json={"operation": "4+7"} | fields)
    assert answer.status_code == 202, answer.json
    return int(answer.json["task_id"])


def listed(client: FlaskClient, query: str) -> list[int]:
    answer = client.get(f"/tasks/?{query}")
    assert answer.status_code == 200, answer.json
    return [task["task_id"] for task in answer.json]


def failed(app: Flask, task_id: int, error: Exception) -> None:
    with app.app_context():
        attempt = claim(task_id, 0, worker_id="w", now=NOON)
        assert attempt
        attempts.fail(attempt, error, now=NOON)


def set_columns(app: Flask, task_id: int, **values: Any) -> None:
    with app.app_context():
        db.session.execute(update(Task).where(Task.task_id == task_id).values(**values))
        db.session.commit()


def kept(app: Flask) -> int:
    with app.app_context():
        return db.session.scalar(select(func.count()).select_from(TaskLabel)) or 0


def test_a_task_shows_its_labels_wherever_it_is_shown(client: FlaskClient) -> None:
    labels = {"order": "17", "batch": "2026-11", "A.b_c-9": "Zoë: 50 %"}
    task_id = post(client, labels=labels)
    assert get(client, task_id)["labels"] == client.get("/tasks/").json[0]["labels"] == labels
    for none in ({}, {"labels": {}}, {"labels": None}):
        assert get(client, post(client, **none))["labels"] == {}


def test_a_task_is_found_by_each_of_its_labels_and_by_several(client: FlaskClient) -> None:
    first = post(client, labels={"order": "17", "batch": "a"})
    second = post(client, labels={"order": "17", "batch": "b"}, priority=1)
    post(client, labels={"order": "18", "batch": "a", "other": "17"})
    post(client)
    assert listed(client, "label=order:17") == [second, first]
    assert listed(client, "label=order:17&label=batch:a") == [first]
    assert listed(client, "label=order:17&label=order:18") == []
    assert listed(client, "label=order:17&priority=1&status=PENDING") == [second]
    assert listed(client, "label=order:1") == []
    assert listed(client, f"label=order:17&cursor={second}") == [first]


def test_a_value_may_have_colons_and_signs_that_urls_escape(client: FlaskClient) -> None:
    task_id = post(client, labels={"url": "http://a/?b=c&d"})
    assert listed(client, "label=url:http://a/?b%3Dc%26d") == [task_id]


def test_pages_of_a_label_lead_to_the_last_of_it(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when one call looks only through some of them."""
    monkeypatch.setattr(tasks, "SEARCHED", 4)
    ids = [post(client, labels={"a": "b"}, priority=number % 3) for number in range(20)]
    for _ in range(5):
        post(client)
    found, query = [], "/tasks/?label=a:b&priority=1&limit=2"
    while query:
        answer = client.get(query)
        found += [task["task_id"] for task in answer.json]
        query = answer.headers.get("Link", "").partition(">")[0].removeprefix("<")
    assert found == [task_id for task_id in reversed(ids) if (task_id - ids[0]) % 3 == 1]


@pytest.mark.parametrize(
    ("labels", "errors"),
    [
        ({str(number): "x" for number in range(9)}, ["At most 8 labels."]),
        ({"a b": "x"}, {"a b": ["A name is 1 to 32 of A-Z, a-z, 0-9, '_', '.' and '-'."]}),
        ({"x" * 33: "x"}, {"x" * 33: ["A name is 1 to 32 of A-Z, a-z, 0-9, '_', '.' and '-'."]}),
        (["order"], ["Not a valid mapping type."]),
        *(
            ({"a": value}, {"a": ["Must be a string of 1 to 100 characters, none of them a control character."]})
            for value in (17, None, "", "x" * 101, "a\nb", "a\0b", ["x"])
        ),
    ],
)
@ON_SQLITE
def test_what_is_no_label_is_refused(client: FlaskClient, labels: Any, errors: Any) -> None:
    answer = client.post("/tasks/", json={"operation": "4+7", "labels": labels})
    assert (answer.status_code, answer.json["errors"]["json"]) == (422, {"labels": errors})


@pytest.mark.parametrize("label", ["order", ":17", "order:", "a b:c", "a:b%00", "a:b%0A"])
@ON_SQLITE
def test_a_filter_that_is_no_label_is_refused(client: FlaskClient, label: str) -> None:
    answer = client.get(f"/tasks/?label={label}")
    assert (answer.status_code, answer.json["errors"]["query"].keys()) == (422, {"label"})


def test_a_batch_keeps_the_labels_of_each_task_or_nothing(app: Flask, client: FlaskClient) -> None:
    batch = [{"operation": "1+1", "labels": {"n": str(number)}} for number in range(3)] + [{"operation": "1+1"}]
    answer = client.post("/tasks/batch-request/", json=batch, headers={"Idempotency-Key": "once"}).json
    assert [task["labels"] for task in answer["tasks"]] == [{"n": "0"}, {"n": "1"}, {"n": "2"}, {}]
    assert listed(client, "label=n:1") == [answer["tasks"][1]["task_id"]]
    client.post("/tasks/batch-request/", json=batch, headers={"Idempotency-Key": "once"})
    assert kept(app) == 3


@pytest.mark.parametrize("call", ["cancel", "retry", "delete"])
def test_many_tasks_are_acted_on_by_their_label(app: Flask, client: FlaskClient, call: str) -> None:
    mine = [post(client, labels={"batch": "a", "n": str(number)}) for number in range(3)]
    others = [post(client, labels={"batch": "b"}), post(client)]
    if call != "cancel":
        client.post("/tasks/cancel/", json={"all": True})
    reached = client.post(f"/tasks/{call}/", json={"label": ["batch:a", "n:1"], "dry_run": True}).json
    assert [task["task_id"] for task in reached["tasks"]] == mine[1:2]
    assert client.post(f"/tasks/{call}/", json={"label": "batch:a"}).json == EMPTY | {"task_ids": mine}
    assert client.post(f"/tasks/{call}/", json={"label": "batch:a"}).json == EMPTY | {"task_ids": []}
    if call == "delete":
        assert listed(client, "label=batch:a") == []
        assert kept(app) == 1, "they go with their tasks"
    else:
        wanted = "PENDING" if call == "retry" else "CANCELLED"
        assert {get(client, task_id)["status"] for task_id in mine} == {wanted}
    assert call != "retry" or {get(client, task_id)["status"] for task_id in others} == {"CANCELLED"}


def test_a_schedule_passes_its_labels_on(app: Flask, client: FlaskClient) -> None:
    body = {"operation": "5+10", "every_x_hours": 1, "start_at": NOON.isoformat(), "labels": {"report": "daily"}}
    schedule = client.post("/task-schedules/", json=body).json
    client.post("/task-schedules/", json=body | {"labels": None})
    assert schedule["labels"] == {"report": "daily"}
    path = f"/task-schedules/{schedule['task_schedule_id']}/"
    with app.app_context():
        fire_due(now=NOON)
    triggered = client.post(f"{path}trigger/").json
    assert triggered["labels"] == {"report": "daily"}
    past = {"start": (NOON - 20 * 366 * 24 * HOUR).isoformat(), "end": (NOON - 20 * 366 * 24 * HOUR + HOUR).isoformat()}
    assert client.post(f"{path}backfill/", json=past).status_code == 202
    assert len(listed(client, "label=report:daily")) == 2
    assert client.patch(path, json={"labels": {"report": "hourly"}}).json["labels"] == {"report": "hourly"}
    with app.app_context():
        fire_due(now=NOON + HOUR)
    assert len(listed(client, "label=report:hourly")) == 1
    assert client.patch(path, json={"labels": {}}).json["labels"] == {}


def test_a_bound_key_finds_only_what_it_reaches(app: Flask, client: FlaskClient) -> None:
    mine = post(client, labels={"a": "b"})
    post(client, operation="http_request", params={"url": "http://localhost/"}, labels={"a": "b"})
    with app.app_context():
        token = callers.current.set(Caller("bound", operations=("calculate",)))
        found, _ = tasks.find({"label": ["a:b"]}, limit=10)
        callers.current.reset(token)
    assert [task.task_id for task in found] == [mine]


def test_tasks_are_found_by_the_type_of_their_latest_error(app: Flask, client: FlaskClient) -> None:
    ids = [post(client, max_retries=number % 2) for number in range(4)]
    for task_id, error in zip(ids, (ValueError(), ValueError(), KeyError(), ValueError()), strict=True):
        failed(app, task_id, error)
    post(client)
    assert listed(client, "error_type=ValueError") == [ids[3], ids[1], ids[0]]
    assert listed(client, "error_type=ValueError&status=ERROR") == [ids[0]]
    assert listed(client, "error_type=Value") == []
    assert client.post("/tasks/retry/", json={"error_type": "KeyError"}).json["task_ids"] == [ids[2]]
    assert get(client, ids[0])["error"]["type"] == "ValueError"


def test_tasks_are_found_by_when_they_ended(app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [post(client, priority=number % 2) for number in range(6)]
    for number, task_id in enumerate(ids[:5]):
        set_columns(app, task_id, status="SUCCESS", finished_at=NOON - number * HOUR)
    after, before = (NOON - 3 * HOUR).isoformat()[:19], NOON.isoformat()[:19]
    for few in (tasks.FEW, 1):  # those that few enough are looked at one by one, and others
        monkeypatch.setattr(tasks, "FEW", few)
        assert listed(client, f"finished_after={after}Z") == [ids[2], ids[1], ids[0]]
        assert listed(client, f"finished_after={after}Z&finished_before={before}Z") == [ids[2], ids[1]]
        assert listed(client, f"finished_before={after}Z") == [ids[4]]
        assert listed(client, f"finished_after={after}Z&priority=1&status=SUCCESS") == [ids[1]]
        assert listed(client, f"finished_after={after}Z&limit=1&cursor={ids[2]}") == [ids[1]]
    body = {"finished_before": f"{after}Z"}
    assert client.post("/tasks/delete/", json=body).json["task_ids"] == [ids[4]]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite looks through the latest only
def test_tasks_that_ended_long_ago_are_counted_as_they_are_found(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = post(client)
    set_columns(app, old, status="SUCCESS", finished_at=NOON)
    for _ in range(3):
        post(client)
    monkeypatch.setattr(tasks, "SEARCHED", 2)
    with app.app_context():
        page = task_search.find({"finished_before": NOON + HOUR}, limit=10)
    assert ([task.task_id for task in page.tasks], page.by_status, page.following) == ([old], {"SUCCESS": 1}, None)


def test_the_dashboard_shows_labels_and_finds_by_them(client: FlaskClient) -> None:
    form = {"params.expression": "4+7", "labels:json": '{"order": "17", "who": "Zoë B"}'}
    assert client.post("/dashboard/operations/calculate", data=form, headers=OURS).status_code == 303
    [task] = client.get("/tasks/").json
    page = client.get(f"/dashboard/tasks/{task['task_id']}").text
    assert 'href="/dashboard/tasks?q=label:order:17"' in page
    assert 'q=label:%22who:Zo%C3%AB+B%22"' in page
    row = f'<tr id="t-{task["task_id"]}">'
    shown = client.get("/dashboard/tasks", query_string={"q": 'label:order:17 label:"who:Zoë B"'}).text
    assert row in shown
    assert '<span class="tag">order:17</span>' in shown
    assert row not in client.get("/dashboard/tasks?q=label:order:18").text
    done = client.post("/dashboard/many/cancel", data={"q": "label:order:17"}, headers=OURS)
    assert (done.status_code, get(client, task["task_id"])["status"]) == (303, "CANCELLED")


def test_the_form_of_a_schedule_has_its_labels(client: FlaskClient) -> None:
    form = {"kind": "interval", "every": "2", "unit": "hours", "timezone": "UTC", "operation": "calculate"}
    form |= {"priority": "5", "overlap": "allow", "catch_up": "latest", "window": "1", "window_unit": "days"}
    form |= {"params.expression": "4+7", "do": "save", "expires_in": "60"}
    path = "/dashboard/schedules"
    wrong = client.post(f"{path}/new", data=form | {"labels": "order"}, headers=OURS)
    assert (wrong.status_code, "order: Must be a string of 1 to 100 characters" in wrong.text) == (422, True)
    assert client.post(f"{path}/new", data=form | {"labels": "a:b:c\r\nd: e"}, headers=OURS).status_code == 303
    [schedule] = client.get("/task-schedules/").json
    assert (schedule["labels"], schedule["expires_in"]) == ({"a": "b:c", "d": "e"}, 60)
    assert "a:b:c\nd:e</textarea>" in client.get(f"{path}/1/edit").text
    shown = client.get(f"{path}/1").text
    assert "label:a:b:c" in shown
    assert "What has not begun 1 min after it was due ends as EXPIRED" in shown


def test_a_task_without_labels_is_inserted_as_if_there_were_none(client: FlaskClient, app: Flask) -> None:
    post(client)
    assert kept(app) == 0
    with app.app_context():
        assert db.session.scalar(text("SELECT labels FROM task")) is None
