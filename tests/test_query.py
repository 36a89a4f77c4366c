"""The parameters after the `?`: each call accepts those that it knows, and names those that it does not."""

import re
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from scheduler_app.extensions import db
from scheduler_app.models import Status
from scheduler_app.services import tasks
from tests.test_tasks_api import post, set_status

OUTSIDE = ("static", "swagger.", "api-docs.", "dashboard.", "root")


def calls(app: Flask) -> list[tuple[str, str]]:
    """The method and path of each call; an id is 7, and a limit is named hosts."""
    rules = [rule for rule in app.url_map.iter_rules() if not rule.endpoint.startswith(OUTSIDE)]
    return [
        (method, re.sub("<.*?>", "7", re.sub("<limit_name.*?>", "hosts", rule.rule)))
        for rule in rules
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    ]


def ids(client: FlaskClient, query: str) -> list[int]:
    answer = client.get(f"/tasks/?{query}")
    assert answer.status_code == 200, answer.json
    return [task["task_id"] for task in answer.json]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_every_call_refuses_a_query_parameter_that_it_does_not_know(app: Flask, client: FlaskClient) -> None:
    assert len(calls(app)) > 20
    for method, path in calls(app):
        body: Any = {} if path.endswith(("/cancel/", "/retry/")) else None
        answer = client.open(f"{path}?colour=red", method=method, json=body)
        assert (answer.status_code, "colour" in answer.json["errors"].get("query", {})) == (422, True), (method, path)


def test_several_values_of_status_and_priority_are_all_looked_for(client: FlaskClient) -> None:
    first, second, third, fourth = (post(client, priority=priority)["task_id"] for priority in (1, 2, 3, 3))
    set_status(client, first, Status.ERROR)
    set_status(client, second, Status.CANCELLED)
    set_status(client, third, Status.SUCCESS)
    assert ids(client, "status=ERROR&status=CANCELLED") == [second, first]
    assert ids(client, "status=ERROR&status=ERROR") == [first]
    assert ids(client, "priority=1&priority=3") == [fourth, third, first]
    assert ids(client, "status=ERROR&status=SUCCESS&priority=2&priority=3") == [third]


def test_several_statuses_lead_from_page_to_page(client: FlaskClient) -> None:
    posted = [post(client)["task_id"] for _ in range(7)]
    for task_id, status in zip(posted, [Status.ERROR, Status.CANCELLED, Status.SUCCESS] * 2, strict=False):
        set_status(client, task_id, status)
    path, pages = "/tasks/?status=ERROR&status=CANCELLED&limit=3", []
    while path:
        answer = client.get(path)
        pages.append([task["task_id"] - posted[0] for task in answer.json])
        path = answer.headers.get("Link", "").partition(">")[0].removeprefix("<")
    assert pages == [[4, 3, 1], [0]]


def test_several_statuses_with_another_filter_are_looked_for_a_part_at_a_time(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "SEARCHED", 10)
    first, *_ = [post(client, priority=0 if number in (0, 12) else 9)["task_id"] for number in range(15)]
    set_status(client, first, Status.ERROR)
    query = "status=ERROR&status=PENDING&priority=0"
    assert ids(client, query) == [first + 12]
    assert ids(client, f"{query}&cursor={first + 5}") == [first]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_what_a_search_tells_the_planner_ends_with_its_transaction(app: Flask) -> None:
    def cost() -> Any:
        return db.session.scalar(text("SHOW random_page_cost"))

    with app.app_context():
        usual = cost()
        tasks.find({"group": "a", "operation": "calculate"}, limit=10)
        assert cost() == "0.01" != usual
        db.session.rollback()
        assert cost() == usual


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("status=ERROR&status=DONE", "status"),
        ("priority=1&priority=10", "priority"),
        ("&".join(["priority=1"] * 11), "priority"),
        ("limit=1&limit=2", "limit"),
        ("operation=calculate&operation=http_request", "operation"),
    ],
)
def test_a_wrong_value_among_several_is_refused(client: FlaskClient, query: str, named: str) -> None:
    answer = client.get(f"/tasks/?{query}")
    assert (answer.status_code, list(answer.json["errors"]["query"])) == (422, [named])


@pytest.mark.parametrize("call", ["cancel", "retry"])
def test_the_calls_for_many_tasks_take_one_value_or_a_list(client: FlaskClient, call: str) -> None:
    first, second = (post(client, priority=priority)["task_id"] for priority in (1, 2))
    if call == "retry":
        set_status(client, first, Status.ERROR)
        set_status(client, second, Status.CANCELLED)
    statuses = ["ERROR", "CANCELLED"] if call == "retry" else ["PENDING", "RETRYING"]
    one = client.post(f"/tasks/{call}/", json={"status": statuses[0], "priority": 1})
    assert (one.status_code, one.json) == (202, {"task_ids": [first], "remaining": 0, "next_cursor": None})
    several = client.post(f"/tasks/{call}/", json={"status": statuses, "priority": [2, 3]})
    assert several.json["task_ids"] == [second]


@pytest.mark.parametrize("priority", ["1", 10, [], [1, "2"], [1] * 11, {"a": 1}])
def test_a_wrong_priority_of_many_tasks_is_refused(client: FlaskClient, priority: Any) -> None:
    answer = client.post("/tasks/cancel/", json={"priority": priority})
    assert (answer.status_code, list(answer.json["errors"]["json"])) == (422, ["priority"])
