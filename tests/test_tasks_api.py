"""/tasks/: what is accepted, what comes back."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import update

from scheduler_app.extensions import db
from scheduler_app.models import Status, Task
from scheduler_app.services import tasks
from tests.support.servers import Postgres


def post(client: FlaskClient, **fields: Any) -> dict[str, Any]:
    answer = client.post("/tasks/", json={"operation": "4+7"} | fields)
    assert answer.status_code == 202, answer.json
    return answer.json


def set_status(client: FlaskClient, task_id: int, status: Status) -> None:
    with client.application.app_context():
        db.session.execute(update(Task).where(Task.task_id == task_id).values(status=status))
        db.session.commit()


def test_a_posted_task_is_pending_and_can_be_read_where_location_says(client: FlaskClient) -> None:
    answer = client.post("/tasks/", json={"operation": "4+7"})
    assert answer.status_code == 202
    task = answer.json
    assert task["operation"] == "calculate"
    assert task["params"] == {"expression": "4+7"}
    assert (task["priority"], task["status"], task["attempts"], task["max_retries"]) == (5, "PENDING", 0, 5)
    assert all(task[name] is None for name in ("result", "error", "task_schedule", "started_at", "finished_at"))
    read = client.get(answer.headers["Location"])
    waiting_for = {"reason": "worker", "queue": "tasks.p5"}
    assert read.json == task | {
        "failures": [],
        "failure_count": 0,
        "waiting_for": waiting_for,
        "delivery": None,
    }


def test_a_run_at_with_any_offset_comes_back_in_utc(client: FlaskClient) -> None:
    assert post(client, run_at="2040-06-01T12:00:00+02:00")["run_at"] == "2040-06-01T10:00:00Z"


def test_a_run_at_that_has_passed_is_due_at_once(client: FlaskClient) -> None:
    task = post(client, run_at="2001-01-01T00:00:00Z")
    assert task["run_at"] == task["created_at"]


@pytest.mark.parametrize("path", ["/tasks", "/tasks/"])
def test_paths_work_with_and_without_the_trailing_slash(client: FlaskClient, path: str) -> None:
    assert client.post(path, json={"operation": "1+1"}).status_code == 202
    assert len(client.get(path).json) == 1


def test_what_is_due_is_in_redis_when_the_answer_comes_and_what_is_not_is_not(client: FlaskClient, valkey: Any) -> None:
    now, later = post(client, priority=3), post(client, priority=3, run_at="2040-01-01T00:00:00Z")
    waiting = valkey.client.hkeys("dramatiq:tasks.p3.msgs")
    assert waiting == [f"{now['task_id']}.0".encode()]
    assert later["status"] == "PENDING"


def test_a_batch_keeps_its_order_and_is_created_in_one_go(client: FlaskClient) -> None:
    batch = [{"operation": f"{n}+0", "priority": n % 10} for n in range(1000)]
    answer = client.post("/tasks/batch-request/", json=batch)
    assert answer.status_code == 202
    assert list(answer.json) == ["tasks"]
    tasks = answer.json["tasks"]
    assert [task["params"]["expression"] for task in tasks] == [f"{n}+0" for n in range(1000)]
    assert [task["task_id"] for task in tasks] == sorted(task["task_id"] for task in tasks)
    assert len({task["created_at"] for task in tasks}) == 1


MIXED = [{"operation": "1+1"}, {"operation": "1+"}, {"operation": "2+2", "priority": 10}, 7]


def test_the_valid_ones_of_a_batch_are_created_and_the_others_reported(client: FlaskClient) -> None:
    answer = client.post("/tasks/batch-request/", json=MIXED)
    assert answer.status_code == 202
    assert [task["params"]["expression"] for task in answer.json["tasks"]] == ["1+1"]
    assert [error["index"] for error in answer.json["errors"]] == [1, 2, 3]
    assert [list(error["errors"]) for error in answer.json["errors"]] == [["operation"], ["priority"], ["_schema"]]
    assert len(client.get("/tasks/").json) == 1


def test_an_atomic_batch_with_an_invalid_entry_creates_nothing(client: FlaskClient) -> None:
    answer = client.post("/tasks/batch-request/?atomic=true", json=MIXED)
    assert answer.status_code == 422
    assert sorted(answer.json["errors"]["json"]) == ["1", "2", "3"]
    assert client.get("/tasks/").json == []


def test_a_batch_without_a_valid_entry_is_refused(client: FlaskClient) -> None:
    answer = client.post("/tasks/batch-request/", json=[{}, {"operation": "nonsense"}])
    assert answer.status_code == 422
    assert sorted(answer.json["errors"]["json"]) == ["0", "1"]


def test_an_empty_batch_is_accepted(client: FlaskClient) -> None:
    answer = client.post("/tasks/batch-request/", json=[])
    assert (answer.status_code, answer.json) == (202, {"tasks": []})


@pytest.mark.parametrize("body", [{"tasks": []}, "4+7", 7, None, [{"operation": "1+1"}] * 1001])
def test_a_batch_that_is_no_list_of_up_to_1000_is_refused(client: FlaskClient, body: Any) -> None:
    assert client.post("/tasks/batch-request/", json=body).status_code == 422
    assert client.get("/tasks/").json == []


def test_a_batch_without_body_is_refused(client: FlaskClient) -> None:
    assert client.post("/tasks/batch-request/").status_code == 422


def test_the_list_is_newest_first_and_leads_from_page_to_page(client: FlaskClient) -> None:
    posted = [post(client)["task_id"] for _ in range(5)]
    seen: list[int] = []
    path: str | None = "/tasks/?limit=2&priority=5"
    pages = 0
    while path:
        answer = client.get(path)
        seen += [task["task_id"] for task in answer.json]
        pages += 1
        link = answer.headers.get("Link")
        path = link[1 : link.index(">")] if link else None
    assert (seen, pages) == (posted[::-1], 3)


def test_the_list_filters_by_every_named_field(client: FlaskClient) -> None:
    first = post(client, priority=1)
    second = post(client, operation="http_request", params={"method": "GET", "url": "http://127.0.0.1:1/"})
    set_status(client, first["task_id"], Status.SUCCESS)

    def ids(query: str) -> list[int]:
        answer = client.get(f"/tasks/?{query}")
        assert answer.status_code == 200, answer.json
        return [task["task_id"] for task in answer.json]

    assert ids("status=SUCCESS") == ids("priority=1") == ids("operation=calculate") == [first["task_id"]]
    assert ids("status=PENDING") == ids("operation=http_request&priority=5") == [second["task_id"]]
    assert ids("task_schedule_id=1") == ids("operation=nothing") == []
    assert ids(f"created_before={second['created_at']}") == [first["task_id"]]
    assert ids(f"created_after={first['created_at']}") == [second["task_id"]]
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()  # its '+' arrives as a space
    assert ids(f"created_before={tomorrow}") == [second["task_id"], first["task_id"]]


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=201", "limit=x", "cursor=0", "cursor=-1", f"cursor={2**70}", "status=DONE", "priority=10",
     "created_after=2024-01-01T00:00:00", "created_before=yesterday", f"task_schedule_id={2**70}", "colour=red"],
)  # fmt: skip
def test_a_wrong_query_is_refused_and_the_parameter_named(client: FlaskClient, query: str) -> None:
    answer = client.get(f"/tasks/?{query}")
    assert answer.status_code == 422
    assert list(answer.json["errors"]["query"]) == [query.partition("=")[0]]


def test_a_pending_task_can_be_deleted_once(client: FlaskClient) -> None:
    path = f"/tasks/{post(client)['task_id']}/"
    assert client.delete(path).status_code == 204
    assert client.get(path).status_code == 404
    assert client.delete(path).status_code == 404


@pytest.mark.parametrize("status", [status for status in Status if status != Status.PENDING])
def test_a_task_that_has_begun_cannot_be_deleted(client: FlaskClient, status: Status) -> None:
    task_id = post(client)["task_id"]
    set_status(client, task_id, status)
    answer = client.delete(f"/tasks/{task_id}/")
    assert answer.status_code == 409
    assert status in answer.json["message"]
    assert client.get(f"/tasks/{task_id}/").status_code == 200


def test_the_id_of_a_deleted_task_is_not_given_again(client: FlaskClient) -> None:
    first = post(client)["task_id"]
    client.delete(f"/tasks/{first}/")
    assert post(client)["task_id"] > first


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_request_after_the_database_was_restarted_is_answered(client: FlaskClient, postgres: Postgres) -> None:
    task = post(client, operation="1+1")
    postgres.end_sessions()
    assert client.get(f"/tasks/{task['task_id']}/").status_code == 200
    assert client.post("/tasks/", json={"operation": "1+1"}).status_code == 202


def test_what_no_index_finds_is_looked_for_a_part_at_a_time(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "SEARCHED", 10)
    first, *_ = [post(client, priority=0 if number in (0, 12) else 9)["task_id"] for number in range(25)]
    path, pages = "/tasks/?priority=0", []
    while path:
        answer = client.get(path)
        pages.append([task["task_id"] - first for task in answer.json])
        path = answer.headers.get("Link", "").partition(">")[0].removeprefix("<")
    assert pages == [[], [12], [0]]
    assert client.get("/tasks/?status=PENDING&priority=0&limit=1").headers["Link"].startswith("</tasks/?")
    assert client.get(f"/tasks/?priority=0&cursor={first}").json == []
