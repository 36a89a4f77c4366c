"""Groups of tasks: whose they are, in requests and answers, and to find them by."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import Page
from sqlalchemy import update

from scheduler_app.dashboard.texts import duration
from scheduler_app.extensions import db
from scheduler_app.models import Task
from scheduler_app.services import bulk, callers, tasks
from scheduler_app.services.callers import Caller
from scheduler_app.services.firing import fire_due
from tests.support.browser import Watch, inaccessible
from tests.support.pages import OURS
from tests.support.tasks import get

NOON = datetime(2040, 6, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
EMPTY = {"remaining": 0, "next_cursor": None}
LATER = "2040-01-01T00:00:00Z"
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # one kind is enough there


def post(client: FlaskClient, group: str | None = None, **fields: Any) -> int:
    given = {} if group is None else {"group": group}
    answer = client.post("/tasks/", json={"operation": "4+7"} | given | fields)
    assert answer.status_code == 202, answer.json
    return int(answer.json["task_id"])


def listed(client: FlaskClient, **query: Any) -> list[int]:
    answer = client.get("/tasks/", query_string=query)
    assert answer.status_code == 200, answer.json
    return [task["task_id"] for task in answer.json]


def test_a_task_shows_its_group_wherever_it_is_shown(client: FlaskClient) -> None:
    for group in ("customer-17", "Zoë & Söhne: 50 %", "'; --", "https://a.example:8443/?b=c", "4" * 64, "😀" * 64):
        task = client.post("/tasks/", json={"operation": "4+7", "group": group}).json
        assert task["group"] == group
        assert get(client, task["task_id"])["group"] == client.get("/tasks/").json[0]["group"] == group
        assert listed(client, group=group) == [task["task_id"]]
    for none in ({}, {"group": None}):
        assert get(client, post(client, **none))["group"] is None


@ON_SQLITE
@pytest.mark.parametrize("group", ["", "4" * 65, 'a"b', "a\\b", "a\nb", "a\x00", "\x7f", 17, ["a"]])
def test_a_wrong_group_is_refused(client: FlaskClient, group: Any) -> None:
    answer = client.post("/tasks/", json={"operation": "4+7", "group": group})
    assert (answer.status_code, answer.json["errors"]["json"].keys()) == (422, {"group"})
    schedule = client.post("/task-schedules/", json={"operation": "4+7", "every_x_hours": 1, "group": group})
    assert (schedule.status_code, schedule.json["errors"]["json"].keys()) == (422, {"group"})
    if isinstance(group, str):
        found = client.get("/tasks/", query_string={"group": group})
        assert (found.status_code, found.json["errors"]["query"].keys()) == (422, {"group"})
        wrong = "1 to 64 characters: no control character, no '\"' and no '\\'."
        assert answer.json["errors"]["json"]["group"] == [wrong]


def test_a_batch_keeps_the_group_of_each_task(client: FlaskClient) -> None:
    groups = ["a", None, "b", "a"]
    batch = [{"operation": "1+1", "group": group} for group in groups] + [{"operation": "1+1"}]
    answer = client.post("/tasks/batch-request/", json=batch).json
    assert [task["group"] for task in answer["tasks"]] == [*groups, None]
    ids = [task["task_id"] for task in answer["tasks"]]
    assert listed(client, group="a") == [ids[3], ids[0]]
    keyed = [one | {"unique": {"key": str(place)}, "labels": {"n": str(place)}} for place, one in enumerate(batch)]
    again = client.post("/tasks/batch-request/", json=keyed).json
    assert [task["group"] for task in again["tasks"]] == [*groups, None]


def test_tasks_are_found_by_their_group_and_other_conditions(client: FlaskClient) -> None:
    first, second = post(client, "a", priority=1), post(client, "a", labels={"n": "1"})
    other = post(client, "b", labels={"n": "1"})
    assert listed(client, group="a") == [second, first]
    assert listed(client, group="a", priority=1) == [first]
    assert listed(client, group="a", label="n:1") == [second]
    assert listed(client, group="a", status=["PENDING", "ERROR"]) == [second, first]
    assert listed(client, group="a", status="ERROR") == listed(client, group="A") == []
    assert listed(client, group="a", limit=1, cursor=second) == [first]
    assert listed(client, group="b") == [other]


@pytest.mark.parametrize("query", ["group=a&priority=1", "group=a&status=PENDING", "group=a&status=PENDING&priority=1"])
def test_a_large_group_is_looked_through_part_by_part(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    monkeypatch.setattr(tasks, "SEARCHED", 5)
    ids = [post(client, "a" if number % 2 else "b", priority=number % 4) for number in range(20)]
    found, path = [], f"/tasks/?{query}&limit=2"
    while path:
        answer = client.get(path)
        found += [task["task_id"] for task in answer.json]
        path = answer.headers["Link"].split("<")[1].split(">")[0] if "Link" in answer.headers else ""
    wanted = [task_id for number, task_id in enumerate(ids) if number % 4 in ((1,) if "priority" in query else (1, 3))]
    assert found == wanted[::-1]


@pytest.mark.parametrize("call", ["cancel", "retry", "delete"])
def test_many_tasks_are_acted_on_by_their_group(app: Flask, client: FlaskClient, call: str) -> None:
    mine = [post(client, "a") for number in range(3)]
    others = [post(client, "b"), post(client)]
    if call != "cancel":
        client.post("/tasks/cancel/", json={"all": True})
    assert client.post(f"/tasks/{call}/", json={"group": "a", "dry_run": True}).json["remaining"] == 3
    assert client.post(f"/tasks/{call}/", json={"group": "a"}).json == EMPTY | {"task_ids": mine}
    assert client.post(f"/tasks/{call}/", json={"group": "a"}).json == EMPTY | {"task_ids": []}
    assert len(listed(client)) == (2 if call == "delete" else 5)
    untouched = "PENDING" if call == "cancel" else "CANCELLED"
    assert {get(client, task_id)["status"] for task_id in others} == {untouched}


def test_a_call_for_many_of_a_large_group_goes_on(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "SEARCHED", 4)
    ids = [post(client, "a" if number % 2 else "b", priority=number % 4) for number in range(20)]
    reached: list[int] = []
    body: dict[str, Any] = {"group": "a", "priority": 1, "limit": 2}
    for _ in range(20):
        answer = client.post("/tasks/cancel/", json=body).json
        reached += answer["task_ids"]
        if answer["next_cursor"] is None:
            break
        body["cursor"] = answer["next_cursor"]
    assert reached == ids[1::4]


def test_a_schedule_passes_its_group_on(app: Flask, client: FlaskClient) -> None:
    body = {"operation": "5+10", "every_x_hours": 1, "start_at": NOON.isoformat(), "group": "nightly"}
    schedule = client.post("/task-schedules/", json=body).json
    path = f"/task-schedules/{schedule['task_schedule_id']}/"
    assert schedule["group"] == client.get(path).json["group"] == client.get("/task-schedules/").json[0]["group"]
    with app.app_context():
        fire_due(now=NOON)
    assert client.post(f"{path}trigger/").json["group"] == "nightly"
    past = {"start": (NOON - 20 * 366 * 24 * HOUR).isoformat(), "end": (NOON - 20 * 366 * 24 * HOUR + HOUR).isoformat()}
    assert client.post(f"{path}backfill/", json=past).status_code == 202
    assert len(listed(client, group="nightly")) == 2
    assert client.patch(path, json={"priority": 3}).json["group"] == "nightly"
    assert client.patch(path, json={"group": "hourly"}).json["group"] == "hourly"
    with app.app_context():
        fire_due(now=NOON + HOUR)
    assert len(listed(client, group="hourly")) == 1
    assert client.patch(path, json={"group": None}).json["group"] is None
    assert client.post(f"{path}trigger/").json["group"] is None


def test_replacing_a_unique_task_leaves_it_in_its_group(client: FlaskClient) -> None:
    unique = {"key": "report", "then": "replace"}
    first = post(client, "a", run_at=LATER, unique=unique)
    answer = client.post("/tasks/", json={"operation": "5+8", "run_at": LATER, "group": "b", "unique": unique})
    assert (answer.status_code, answer.json["task_id"], answer.json["group"]) == (200, first, "a")
    assert get(client, first)["group"] == "a"


def test_a_task_keeps_its_group_when_it_is_changed_and_retried(app: Flask, client: FlaskClient) -> None:
    task_id = post(client, "a", run_at=LATER)
    assert client.patch(f"/tasks/{task_id}/", json={"priority": 1}).json["group"] == "a"
    with app.app_context():
        db.session.execute(update(Task).values(status="ERROR", finished_at=NOON))
        db.session.commit()
    assert client.post(f"/tasks/{task_id}/retry/").json["group"] == "a"


def test_a_bound_key_finds_only_what_it_reaches(app: Flask, client: FlaskClient) -> None:
    mine = post(client, "a")
    post(client, "a", operation="http_request", params={"url": "http://localhost/"})
    with app.app_context():
        token = callers.current.set(Caller("bound", operations=("calculate",)))
        found, _ = tasks.find({"group": "a"}, limit=10)
        callers.current.reset(token)
    assert [task.task_id for task in found] == [mine]


def test_the_dashboard_shows_groups_and_finds_by_them(client: FlaskClient) -> None:
    mine, other = post(client, "customer 17"), post(client, "b")
    page = client.get(f"/dashboard/tasks/{mine}").text
    assert 'href="/dashboard/tasks?q=group:%22customer+17%22"' in page
    shown = client.get("/dashboard/tasks", query_string={"q": 'group:"customer 17"'}).text
    assert '<span class="tag" title="Group">customer 17</span>' in shown
    assert [f'<tr id="t-{task_id}"' in shown for task_id in (mine, other)] == [True, False]
    done = client.post("/dashboard/many/cancel", data={"q": 'group:"customer 17"'}, headers=OURS)
    assert done.status_code == 303
    assert [get(client, task_id)["status"] for task_id in (mine, other)] == ["CANCELLED", "PENDING"]
    wrong = client.get("/dashboard/tasks", query_string={"q": f"group:{'x' * 65}"}).text
    assert "cannot be: 1 to 64 characters" in wrong


def test_the_form_of_a_schedule_has_its_group_and_the_page_its_jitter(client: FlaskClient) -> None:
    form = {"kind": "interval", "every": "2", "unit": "hours", "timezone": "UTC", "operation": "calculate"}
    form |= {"priority": "5", "overlap": "allow", "catch_up": "latest", "window": "1", "window_unit": "days"}
    form |= {"params.expression": "4+7", "do": "save", "jitter": "60"}
    path = "/dashboard/schedules"
    wrong = client.post(f"{path}/new", data=form | {"group": "a\\b"}, headers=OURS)
    assert (wrong.status_code, "1 to 64 characters: no control character" in wrong.text) == (422, True)
    assert client.post(f"{path}/new", data=form | {"group": " nightly run "}, headers=OURS).status_code == 303
    assert client.get("/task-schedules/1/").json["group"] == "nightly run"
    assert 'name="group" value="nightly run"' in client.get(f"{path}/1/edit").text
    page = client.get(f"{path}/1").text
    assert "q=group:%22nightly+run%22" in page
    [first, *_] = client.get("/task-schedules/1/upcoming/").json
    later = datetime.fromisoformat(first["run_at"]) - datetime.fromisoformat(first["utc"])
    assert f'<small class="dim">+ {duration(later)}</small>' in page
    assert "Each task is due up to 1 min later." in client.get(f"{path}/1/edit").text
    preview = client.post(f"{path}/preview", data=form | {"jitter": "90000"}, headers=OURS).text
    assert "later." not in preview
    assert client.post(f"{path}/1/edit", data=form | {"group": ""}, headers=OURS).status_code == 303
    assert client.get("/task-schedules/1/").json["group"] is None


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite goes through the group's tasks
def test_the_few_that_wait_are_found_behind_the_many_of_their_group(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = post(client, "a")
    done = [post(client, "a", priority=1) for _ in range(6)]
    with app.app_context():
        db.session.execute(update(Task).where(Task.task_id.in_(done)).values(status="SUCCESS", finished_at=NOON))
        db.session.commit()
    monkeypatch.setattr(tasks, "SEARCHED", 3)
    monkeypatch.setattr(bulk, "SEARCHED", 3)
    assert listed(client, group="a", status="PENDING") == [waiting]
    answer = client.post("/tasks/cancel/", json={"group": "a", "priority": 5}).json
    assert answer == EMPTY | {"task_ids": [waiting]}


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # one kind is enough here
def test_everybody_can_use_the_pages_that_show_groups_and_keys(
    client: FlaskClient, site: str, page: Page, watch: Watch
) -> None:
    post(client, "customer 17", run_at=LATER, labels={"order": "17"}, unique={"key": "report 17"})
    schedule = {"operation": "4+7", "every_x_hours": 1, "jitter": 60, "group": "customer 17", "labels": {"order": "17"}}
    assert client.post("/task-schedules/", json=schedule).status_code == 201
    for path in ("operations/calculate", "tasks/1", "tasks?q=group:%22customer+17%22", "schedules/1"):
        page.goto(f"{site}/dashboard/{path}")
        assert inaccessible(page) == ""
    page.goto(f"{site}/dashboard/operations/calculate")
    page.get_by_label("expression").fill("5+8")
    page.get_by_label("group").fill("customer 18")
    page.get_by_label("key").fill("report 18")
    page.get_by_role("button", name="Run calculate").click()
    page.get_by_role("link", name="customer 18").click()
    page.get_by_role("link", name="2", exact=True).click()
    page.get_by_role("link", name="report 18").click()
    assert page.get_by_label("Find tasks").input_value() == 'operation:calculate unique:"report 18"'
    assert page.get_by_role("link", name="2", exact=True).is_visible()
