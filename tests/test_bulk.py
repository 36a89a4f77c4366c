"""Calls for many tasks: nothing is reached by accident, and the answer says what is left."""

from datetime import UTC, datetime
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import func, select

from scheduler_app.extensions import db
from scheduler_app.models import Failure, Status
from scheduler_app.services import attempts, bulk
from tests.support.claims import claim
from tests.support.tasks import FINAL, get, set_status, submit
from tests.test_tasks_api import post

CALLS = {"cancel": Status.PENDING, "retry": Status.ERROR, "delete": Status.SUCCESS}  # each with what it is for
NOW = datetime(2040, 6, 1, 12, tzinfo=UTC)
each_call = pytest.mark.parametrize("call", CALLS)


def some(client: FlaskClient, call: str, *requests: dict[str, Any]) -> list[int]:
    """The ids of tasks that the call can reach."""
    ids = submit(client, *requests)
    set_status(client, ids, CALLS[call])
    return ids


def untouched(client: FlaskClient, call: str, ids: list[int]) -> bool:
    return [get(client, task_id).get("status") for task_id in ids] == [CALLS[call]] * len(ids)


def done(*task_ids: int, remaining: int = 0, next_cursor: int | None = None) -> dict[str, Any]:
    return {"task_ids": list(task_ids), "remaining": remaining, "next_cursor": next_cursor}


@each_call
@pytest.mark.parametrize("query", ["status=ERROR", "operation=calculate", "task_ids=1", "all=true", "limit=5"])
def test_a_condition_after_the_question_mark_reaches_nothing_and_is_named(
    client: FlaskClient, call: str, query: str
) -> None:
    ids = some(client, call, {"operation": "1+1"})
    for body in (None, {}, {"all": True}):
        answer = client.post(f"/tasks/{call}/?{query}", json=body)
        assert answer.status_code == 422
        expected = ["Not allowed after the `?`: put it into the body."]
        assert answer.json["errors"] == {"query": {query.partition("=")[0]: expected}}
    assert untouched(client, call, ids)


@each_call
@pytest.mark.parametrize("body", [None, {}, {"limit": 5}, {"dry_run": True}, {"cursor": 1}, {"all": False}])
def test_without_a_condition_nothing_is_reached(client: FlaskClient, call: str, body: Any) -> None:
    ids = some(client, call, {"operation": "1+1"})
    answer = client.post(f"/tasks/{call}/", json=body)
    assert (answer.status_code, list(answer.json["errors"]["json"])) == (422, ["_schema"])
    assert body is None or "task_ids" in answer.json["errors"]["json"]["_schema"][0]
    assert untouched(client, call, ids)


@each_call
@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"all": True, "priority": 1}, "all"),
        ({"all": "true"}, "all"),
        ({"all": 1}, "all"),
        ({"all": True, "dry_run": "yes"}, "dry_run"),
        ({"all": True, "dry_run": 0}, "dry_run"),
        ({"all": True, "limit": 0}, "limit"),
        ({"all": True, "limit": 1001}, "limit"),
        ({"all": True, "limit": 7.9}, "limit"),
        ({"all": True, "cursor": 0}, "cursor"),
        ({"priority": 7.9}, "priority"),
        ({"priority": [7.5]}, "priority"),
        ({"task_schedule_id": 1.5}, "task_schedule_id"),
        ({"task_ids": []}, "task_ids"),
        ({"task_ids": [1.5]}, "task_ids"),
        ({"task_ids": ["1"]}, "task_ids"),
        ({"task_ids": 1}, "task_ids"),
        ({"task_ids": [1] * 1001}, "task_ids"),
        ({"status": "DONE"}, "status"),
        ({"colour": 1, "priority": 1}, "colour"),
        ([], "_schema"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_field_reaches_nothing_and_is_named(client: FlaskClient, call: str, body: Any, named: str) -> None:
    ids = some(client, call, {"operation": "1+1", "priority": 7})
    answer = client.post(f"/tasks/{call}/", json=body)
    assert answer.status_code == 422, answer.json
    assert named in answer.json["errors"]["json"]
    assert untouched(client, call, ids)


@each_call
def test_all_reaches_the_oldest_and_the_answer_leads_to_the_rest(client: FlaskClient, call: str) -> None:
    ids = some(client, call, *[{"operation": "1+1"}] * 5)
    other = post(client)["task_id"]
    set_status(client, [other], Status.STARTED if call == "delete" else Status.SUCCESS)
    first = client.post(f"/tasks/{call}/", json={"all": True, "limit": 2})
    assert first.json == done(*ids[:2], remaining=3, next_cursor=ids[1])
    second = client.post(f"/tasks/{call}/", json={"all": True, "limit": 2, "cursor": ids[1]})
    assert second.json == done(*ids[2:4], remaining=1, next_cursor=ids[3])
    assert client.post(f"/tasks/{call}/", json={"all": True, "cursor": ids[3]}).json == done(ids[4])
    assert client.get(f"/tasks/{other}/").status_code == 200


@each_call
def test_tasks_can_be_named_by_their_ids(client: FlaskClient, call: str) -> None:
    ids = some(client, call, *[{"operation": "1+1", "priority": n} for n in range(4)])
    set_status(client, ids[3:], Status.STARTED if call == "delete" else Status.SUCCESS)
    named = [ids[3], ids[2], ids[0], 10**12]
    answer = client.post(f"/tasks/{call}/", json={"task_ids": named, "priority": [0, 1, 3]})
    assert answer.json == done(ids[0])
    assert client.post(f"/tasks/{call}/", json={"task_ids": named}).json == done(ids[2])
    assert untouched(client, call, ids[1:2])


@each_call
def test_a_dry_run_changes_nothing_counts_and_shows_the_first_ten(client: FlaskClient, call: str) -> None:
    ids = some(client, call, *[{"operation": "1+1", "priority": n % 2} for n in range(26)])
    answer = client.post(f"/tasks/{call}/", json={"priority": 1, "dry_run": True, "limit": 1}).json
    assert [task["task_id"] for task in answer.pop("tasks")] == ids[1:21:2]
    assert answer == done(remaining=13)
    assert untouched(client, call, ids)
    assert client.get("/audit/").json == []


@each_call
def test_what_is_counted_is_bounded_and_the_next_call_goes_on(
    client: FlaskClient, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "COUNTED", 4)
    ids = some(client, call, *[{"operation": "1+1"}] * 7)
    answer = client.post(f"/tasks/{call}/", json={"all": True, "dry_run": True})
    assert (answer.json["remaining"], answer.json["next_cursor"]) == (4, ids[3])
    answer = client.post(f"/tasks/{call}/", json={"all": True, "dry_run": True, "cursor": ids[3]})
    assert (answer.json["remaining"], answer.json["next_cursor"]) == (3, None)
    assert client.post(f"/tasks/{call}/", json={"all": True, "limit": 1}).json == done(
        ids[0], remaining=4, next_cursor=ids[0]
    )


@each_call
def test_what_no_index_finds_is_looked_for_a_part_at_a_time(
    client: FlaskClient, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "SEARCHED", 10)
    ids = some(client, call, *[{"operation": "1+1", "priority": 0 if n in (12, 20) else 9} for n in range(25)])
    cursor, reached = None, []
    while True:
        answer = client.post(f"/tasks/{call}/", json={"priority": 0} | ({"cursor": cursor} if cursor else {})).json
        reached.append([task_id - ids[0] for task_id in answer["task_ids"]])
        if (cursor := answer["next_cursor"]) is None:
            break
    assert [task for part in reached for task in part] == [12, 20]
    assert len(reached) == 3
    assert client.post(f"/tasks/{call}/", json={"status": CALLS[call], "dry_run": True}).json["next_cursor"] is None


def test_a_task_that_was_asked_to_stop_is_not_asked_again(client: FlaskClient) -> None:
    ids = submit(client, *[{"operation": "1+1"}] * 3)
    set_status(client, ids[:2], Status.STARTED)
    assert client.post("/tasks/cancel/", json={"all": True, "limit": 1}).json["task_ids"] == ids[:1]
    assert client.post("/tasks/cancel/", json={"all": True, "limit": 1}).json == done(
        ids[1], remaining=1, next_cursor=ids[1]
    )
    assert client.post("/tasks/cancel/", json={"all": True, "limit": 1}).json == done(ids[2])


def test_only_finished_tasks_are_deleted_and_their_failures_with_them(client: FlaskClient) -> None:
    ids = submit(client, *[{"operation": "1+1", "max_retries": 0}] * len(Status))
    with client.application.app_context():
        attempt = claim(ids[0], 0, worker_id="a", now=NOW)
        assert attempt
        attempts.fail(attempt, RuntimeError("no"), now=NOW)
    for task_id, status in zip(ids, Status, strict=True):
        set_status(client, [task_id], status)
    set_status(client, ids[:1], Status.ERROR)
    finished = {ids[0]} | {ids[n] for n, status in enumerate(Status) if status in FINAL}
    assert client.post("/tasks/delete/", json={"all": True}).json == done(*sorted(finished))
    assert {task["task_id"] for task in client.get("/tasks/").json} == {*ids} - finished
    with client.application.app_context():
        assert db.session.scalar(select(func.count()).select_from(Failure)) == 0
