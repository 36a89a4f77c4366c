"""Callbacks: the end of a task and its delivery are there together, whatever ends it. Time is passed in."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select

from scheduler_app.access_models import Scope
from scheduler_app.extensions import db
from scheduler_app.models import Status, TaskSchedule
from scheduler_app.operations import PermanentError
from scheduler_app.services import attempts, bulk, control, expiry, keys, pauses, task_schedules, tasks, workers
from scheduler_app.services.attempts import UnknownOperation, WorkerLost
from scheduler_app.services.bulk import Chosen
from scheduler_app.services.callbacks import AT_ONCE, LONGEST_RESULT
from scheduler_app.services.firing import fire_due
from tests.support.callbacks import CALLBACK, URL, claimed, deliveries, post, succeed
from tests.support.tasks import get, submit

NO_URL = "Not a URL of http:// or https://, all else than printable ASCII percent-encoded."
NO_NAME = "Not a name of a secret: 1 to 64 of A-Z, a-z, 0-9, '_', '.' and '-'."

End = Callable[[int, datetime], object]


def fail(task_id: int, now: datetime, error: Exception | None = None) -> None:
    assert attempts.fail(claimed(task_id, now), error or PermanentError("no use"), now=now)


def cancel_while_it_runs(task_id: int, now: datetime) -> None:
    attempt = claimed(task_id, now)
    control.cancel(task_id, now=now)
    attempts.fail(attempt, RuntimeError("stopped"), now=now)


def cancel_before_it_begins(task_id: int, now: datetime) -> None:
    attempt = claimed(task_id, now)
    control.cancel(task_id, now=now)
    attempts.give_back([attempt], now=now)
    db.session.commit()


def expire(task_id: int, now: datetime) -> None:
    control.change(task_id, now=now, expires_at=now)
    assert expiry.expire(now=now) == 1


def lose(task_id: int, now: datetime) -> None:
    """The worker stops without having recorded the end, and no retry is left."""
    claimed(task_id, now)
    workers.leave("w", now=now)


ENDS: dict[str, tuple[End, Status]] = {
    "success": (succeed, Status.SUCCESS),
    "a permanent error": (fail, Status.ERROR),
    "no retry left": (lambda task_id, now: fail(task_id, now, RuntimeError("no")), Status.ERROR),
    "an unknown operation": (lambda task_id, now: fail(task_id, now, UnknownOperation("none")), Status.ERROR),
    "a lost worker": (lose, Status.ERROR),
    "cancelled while it waits": (lambda task_id, now: control.cancel(task_id, now=now), Status.CANCELLED),
    "cancelled while it runs": (cancel_while_it_runs, Status.CANCELLED),
    "cancelled and given back": (cancel_before_it_begins, Status.CANCELLED),
    "cancelled with others": (
        lambda task_id, now: bulk.cancel(Chosen({"task_id": [task_id]}, 10), now=now),
        Status.CANCELLED,
    ),
    "purged": (lambda _, now: pauses.purge(5, now=now), Status.CANCELLED),
    "expired": (expire, Status.EXPIRED),
}


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize("way", ENDS)
def test_every_way_to_an_end_makes_a_delivery_that_says_what_the_api_shows(client: FlaskClient, way: str) -> None:
    end, status = ENDS[way]
    task_id = post(client, max_retries=0, labels={"order": "17"})
    assert get(client, task_id)["delivery"] is None
    end(task_id, datetime.now(UTC))
    db.session.remove()
    [delivery] = deliveries(client)
    task = get(client, task_id)
    assert task["status"] == status
    assert task["delivery"] == {"task_id": delivery["task_id"], "status": "PENDING"}
    told = ("failures", "failure_count", "waiting_for", "delivery")
    said = {name: value for name, value in task.items() if name not in told}
    assert delivery["params"] == {"url": URL, "task": said | {"left_out": []}}
    assert (delivery["priority"], delivery["group"], delivery["callback"]) == (0, "shop.example.com", None)
    assert delivery["labels"] == {"task": str(task_id)}
    assert delivery["created_by"] == task["created_by"]


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize("way", ENDS)
def test_an_end_that_is_not_asked_for_is_not_delivered(client: FlaskClient, way: str) -> None:
    end, status = ENDS[way]
    task_id = post(client, max_retries=0, callback={"url": URL, "on": [one for one in CALLBACK["on"] if one != status]})
    plain = post(client, max_retries=0, callback=None, priority=4)
    end(task_id, datetime.now(UTC))
    control.cancel(plain, now=datetime.now(UTC))
    assert deliveries(client) == []
    assert get(client, task_id)["status"] == status
    assert (get(client, task_id)["delivery"], get(client, plain)["callback"]) == (None, None)


@pytest.mark.usefixtures("context")
def test_a_retry_is_not_delivered_and_the_end_after_it_is(client: FlaskClient) -> None:
    now = datetime.now(UTC)
    task_id = post(client, max_retries=1)
    fail(task_id, now, RuntimeError("not yet"))
    assert get(client, task_id)["status"] == "RETRYING"
    assert deliveries(client) == []
    fail(task_id, now, WorkerLost("gone"))
    assert [one["params"]["task"]["status"] for one in deliveries(client)] == ["ERROR"]


@pytest.mark.usefixtures("context")
def test_a_delivery_is_in_the_trace_of_its_task(client: FlaskClient) -> None:
    headers = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    task_id = client.post("/tasks/", json={"operation": "4+7", "callback": CALLBACK}, headers=headers).json["task_id"]
    fail(task_id, datetime.now(UTC))
    assert [one["trace_id"] for one in deliveries(client)] == ["a" * 32]


@pytest.mark.usefixtures("context")
def test_an_attempt_that_came_too_late_delivers_nothing(client: FlaskClient) -> None:
    now = datetime.now(UTC)
    task_id = post(client)
    late = claimed(task_id, now)
    attempts.give_back([late], now=now)
    db.session.commit()
    assert not attempts.succeed(late, "11", started_at=now, now=now)
    assert (get(client, task_id)["status"], deliveries(client)) == ("PENDING", [])


@pytest.mark.usefixtures("context")
def test_a_task_that_runs_again_is_delivered_again_by_a_new_delivery(client: FlaskClient) -> None:
    task_id, now = post(client), datetime.now(UTC)
    fail(task_id, now)
    assert client.post(f"/tasks/{task_id}/retry/").status_code == 202
    db.session.remove()
    succeed(task_id, now)
    first, second = deliveries(client)
    assert [one["params"]["task"]["status"] for one in (first, second)] == ["ERROR", "SUCCESS"]
    assert get(client, task_id)["delivery"]["task_id"] == second["task_id"]


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize(("length", "left_out"), [(LONGEST_RESULT, []), (LONGEST_RESULT + 1, ["result"])])
def test_a_long_result_is_left_out_and_named(client: FlaskClient, length: int, left_out: list[str]) -> None:
    result = "x" * (length - 2)  # without its quotes
    task_id = post(client)
    succeed(task_id, datetime.now(UTC), result)
    said = deliveries(client)[0]["params"]["task"]
    assert said["left_out"] == left_out
    assert said["result"] == (None if left_out else result)
    assert get(client, task_id)["result"] == result


@pytest.mark.usefixtures("context")
def test_many_ends_at_once_make_all_their_deliveries_some_at_a_time(client: FlaskClient) -> None:
    count = 2 * AT_ONCE + 7
    ids = submit(client, *[{"operation": "4+7", "callback": CALLBACK}] * count, {"operation": "4+7"})
    assert len(bulk.cancel(Chosen({}, 1_000), now=datetime.now(UTC))["task_ids"]) == count + 1
    found = client.get("/tasks/?operation=callback&limit=200").json
    assert sorted(int(one["labels"]["task"]) for one in found) == ids[:-1]


def test_nobody_can_post_a_delivery(client: FlaskClient) -> None:
    forged = {"operation": "callback", "params": {"url": URL, "task": {}}}
    said = {"operation": ["Nobody can post callback: Backbeat makes such tasks itself."]}
    for path, body in (("/tasks/", forged), ("/task-schedules/", forged | {"every_x_hours": 1})):
        answer = client.post(path, json=body)
        assert (answer.status_code, answer.json["errors"]["json"]) == (422, said)
    [listed] = [one for one in client.get("/operations/").json if one["internal"]]
    assert listed["name"] == "callback"


@pytest.mark.parametrize("operations", ["", "actors", "tests.support.trial_operations"])
def test_the_operation_is_there_whatever_the_setting_names(another: Callable[..., Flask], operations: str) -> None:
    app = another(BACKBEAT_OPERATIONS=operations)
    assert "callback" in [one["name"] for one in app.test_client().get("/operations/").json]


@pytest.mark.parametrize(
    ("callback", "errors"),
    [
        (17, {"_schema": ["Must be a JSON object."]}),
        ({}, {"url": ["Missing data for required field."]}),
        ({"url": "ftp://example.com/"}, {"url": [NO_URL]}),
        ({"url": "http://u:p@example.com"}, {"url": ["User and password belong into the Authorization header."]}),
        ({"url": "http://" + "a" * 3_000}, {"url": ["Longer than maximum length 2048.", "Not a valid URL."]}),
        ({"url": URL, "on": []}, {"on": ["Length must be between 1 and 4."]}),
        ({"url": URL, "on": ["RETRYING"]}, {"on": {"0": ["Must be one of: SUCCESS, ERROR, CANCELLED, EXPIRED."]}}),
        ({"url": URL, "sign_with": "a b"}, {"sign_with": [NO_NAME]}),
        ({"url": URL, "signed_with": "a"}, {"signed_with": ["Unknown field; did you mean sign_with?"]}),
    ],
)
def test_a_wrong_callback_is_refused_with_its_field(client: FlaskClient, callback: Any, errors: Any) -> None:
    answer = client.post("/tasks/", json={"operation": "4+7", "callback": callback})
    assert (answer.status_code, answer.json["errors"]["json"]) == (422, {"callback": errors})


def test_the_answer_shows_the_callback_with_all_statuses_unless_some_are_named(client: FlaskClient) -> None:
    shown = client.post("/tasks/", json={"operation": "4+7", "callback": {"url": URL}}).json["callback"]
    assert shown == CALLBACK | {"sign_with": None}
    some = {"url": URL, "on": ["ERROR", "SUCCESS", "ERROR"], "sign_with": "HOOK"}
    task_id = client.post("/tasks/", json={"operation": "4+7", "callback": some}).json["task_id"]
    assert get(client, task_id)["callback"] == some | {"on": ["SUCCESS", "ERROR"]}


def test_a_key_needs_the_right_to_callback(client: FlaskClient, app: Flask) -> None:
    with app.app_context():
        made = {
            name: keys.create(name, Scope.WRITE, operations=bound, now=datetime.now(UTC))[1]
            for name, bound in (("without", ["calculate"]), ("with", ["calculate", "callback"]))
        }
    without, having = ({"Authorization": f"Bearer {made[name]}"} for name in ("without", "with"))
    task = {"operation": "4+7", "callback": CALLBACK}
    hourly = task | {"every_x_hours": 1}
    said = "This key reaches only the operations calculate; not callback."
    for path, body in (("/tasks/", task), ("/task-schedules/", hourly)):
        refused = client.post(path, json=body, headers=without)
        assert (refused.status_code, refused.json["message"]) == (403, said)
    batch = client.post("/tasks/batch-request/", json=[{"operation": "4+7"}, task], headers=without).json
    assert len(batch["tasks"]) == 1
    assert batch["errors"] == [{"index": 1, "errors": {"callback": [said]}}]
    plain = client.post("/task-schedules/", json=hourly | {"callback": None}, headers=without).json
    path = f"/task-schedules/{plain['task_schedule_id']}/"
    assert client.patch(path, json={"callback": CALLBACK}, headers=without).status_code == 403
    assert client.patch(path, json={"priority": 1, "callback": None}, headers=without).status_code == 200
    assert client.patch(path, json={"callback": CALLBACK}, headers=having).status_code == 200
    assert client.post("/tasks/", json=task, headers=having).status_code == 202
    with app.app_context():
        control.cancel(task_id := tasks.find({}, limit=1)[0][0].task_id, now=datetime.now(UTC))
    shown = [client.get(f"/tasks/{task_id}/", headers=headers).json["delivery"] for headers in (without, having)]
    assert (shown[0], shown[1]["status"]) == (None, "PENDING")


@pytest.mark.usefixtures("context")
def test_a_schedule_passes_it_on_to_its_tasks(client: FlaskClient) -> None:
    now = datetime(2040, 6, 1, 12, tzinfo=UTC)
    schedule = task_schedules.create(
        now=now, operation="calculate", params={"expression": "4+7"}, priority=5, max_retries=0, retry=None,
        every_x_hours=1, callback=CALLBACK,
    )  # fmt: skip
    fire_due(now=now)
    [row] = client.get(f"/tasks/?task_schedule_id={schedule.task_schedule_id}").json
    assert row["callback"] == CALLBACK | {"sign_with": None}
    succeed(row["task_id"], now)
    assert len(deliveries(client)) == 1
    assert client.patch(f"/task-schedules/{schedule.task_schedule_id}/", json={"callback": None}).status_code == 200
    assert db.session.scalars(select(TaskSchedule.callback)).all() == [None]
