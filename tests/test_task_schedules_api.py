"""/task-schedules/: what is accepted, what comes back."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient

from scheduler_app.services import task_schedules

NOON = datetime(2040, 6, 1, 12, tzinfo=UTC)


def fire(client: FlaskClient, *times: datetime) -> None:
    with client.application.app_context():
        for time in times:
            task_schedules.fire_due(now=time)


def post(client: FlaskClient, **fields: Any) -> dict[str, Any]:
    answer = client.post("/task-schedules/", json={"operation": "5+10", "every_x_hours": 1} | fields)
    assert answer.status_code == 201, answer.json
    assert client.get(answer.headers["Location"]).json == answer.json | {"tasks": []}
    return answer.json


def test_a_posted_schedule_comes_back_whole(client: FlaskClient) -> None:
    schedule = post(client, name="nightly", schedule_x_times=2, start_at="2040-01-01T02:00:00+02:00")
    assert schedule["params"] == {"expression": "5+10"}
    assert schedule["start_at"] == schedule["next_run_at"] == "2040-01-01T00:00:00Z"
    assert (schedule["name"], schedule["schedule_x_times"], schedule["times_scheduled"]) == ("nightly", 2, 0)


def test_a_schedule_shows_its_latest_ten_tasks(client: FlaskClient) -> None:
    schedule = post(client, start_at="2040-06-01T12:00:00Z")
    fire(client, *(NOON + timedelta(hours=hour) for hour in range(12)))
    tasks = client.get(f"/task-schedules/{schedule['task_schedule_id']}/").json["tasks"]
    assert [task["scheduled_for"] for task in tasks] == [f"2040-06-01T{hour}:00:00Z" for hour in range(23, 13, -1)]
    assert {task["task_schedule"] for task in tasks} == {schedule["task_schedule_id"]}


def test_a_schedule_without_rule_is_refused(client: FlaskClient) -> None:
    answer = client.post("/task-schedules/", json={"operation": "5+10"})
    assert answer.status_code == 422
    assert "every_x_hours" in answer.json["errors"]["json"]


def test_a_schedule_cannot_lose_its_rule(client: FlaskClient) -> None:
    path = f"/task-schedules/{post(client)['task_schedule_id']}/"
    assert client.patch(path, json={"every_x_hours": None}).status_code == 422
    assert client.get(path).json["every_x_hours"] == 1
    assert client.patch(path, json={"every_x_hours": None, "every_x_days": 1}).status_code == 200


def test_a_schedule_that_ends_before_it_starts_is_refused(client: FlaskClient) -> None:
    body = {
        "operation": "1+1",
        "every_x_hours": 1,
        "start_at": "2040-01-02T00:00:00Z",
        "end_at": "2040-01-01T00:00:00Z",
    }
    answer = client.post("/task-schedules/", json=body)
    assert answer.status_code == 422
    assert list(answer.json["errors"]["json"]) == ["end_at"]


def test_a_patch_changes_only_what_it_names(client: FlaskClient) -> None:
    schedule = post(client, name="old", priority=3, max_retries=1)
    changed = client.patch(f"/task-schedules/{schedule['task_schedule_id']}/", json={"operation": "6+6", "name": None})
    assert changed.status_code == 200
    assert changed.json == schedule | {"params": {"expression": "6+6"}, "name": None}


def test_parameters_change_only_together_with_their_operation(client: FlaskClient) -> None:
    path = f"/task-schedules/{post(client)['task_schedule_id']}/"
    assert client.patch(path, json={"params": {"expression": "1"}}).status_code == 422
    answer = client.patch(path, json={"operation": "calculate", "params": {"expression": "1"}})
    assert answer.json["params"] == {"expression": "1"}


@pytest.mark.parametrize(
    "body", [{"every_x_hours": 0}, {"priority": None}, {"operation": "nonsense"}, {"paused": 7}, []]
)
def test_a_wrong_patch_changes_nothing(client: FlaskClient, body: Any) -> None:
    path = f"/task-schedules/{post(client)['task_schedule_id']}/"
    before = client.get(path).json
    assert client.patch(path, json=body).status_code == 422
    assert client.get(path).json == before


def test_the_tasks_of_a_deleted_schedule_stay(client: FlaskClient) -> None:
    schedule = post(client, start_at="2040-06-01T12:00:00Z")
    fire(client, NOON)
    assert client.delete(f"/task-schedules/{schedule['task_schedule_id']}/").status_code == 204
    [task] = client.get("/tasks/").json
    assert (task["task_schedule"], task["scheduled_for"]) == (None, "2040-06-01T12:00:00Z")
    assert client.delete(f"/task-schedules/{schedule['task_schedule_id']}/").status_code == 404


def test_the_list_of_schedules_comes_in_pages(client: FlaskClient) -> None:
    posted = [post(client)["task_schedule_id"] for _ in range(3)]
    first = client.get("/task-schedules/?limit=2")
    assert [schedule["task_schedule_id"] for schedule in first.json] == posted[:0:-1]
    link = first.headers["Link"]
    second = client.get(link[1 : link.index(">")])
    assert [schedule["task_schedule_id"] for schedule in second.json] == posted[:1]
    assert "Link" not in second.headers
