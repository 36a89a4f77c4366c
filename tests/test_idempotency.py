"""The Idempotency-Key header."""

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import delete, func, select, update

from scheduler_app.extensions import db
from scheduler_app.models import IdempotencyKey, Task

ROUNDS = 20
URL = "http://127.0.0.1:1/"
BODIES: dict[str, Any] = {
    "/tasks/": {"operation": "4+7"},
    "/tasks/batch-request/": [{"operation": "4+7"}, {"operation": "4+"}],
    "/task-schedules/": {"operation": "4+7", "every_x_hours": 1},
}


def post(client: FlaskClient, path: str, body: Any = None, key: str = "one") -> Any:
    return client.post(path, json=BODIES[path] if body is None else body, headers={"Idempotency-Key": key})


def expire_keys(client: FlaskClient) -> None:
    with client.application.app_context():
        old = datetime.now(UTC) - timedelta(hours=24, seconds=1)
        db.session.execute(update(IdempotencyKey).values(created_at=old))
        db.session.commit()


def forget_keys(client: FlaskClient) -> None:
    with client.application.app_context():
        db.session.execute(delete(IdempotencyKey))
        db.session.commit()


def newest_task(client: FlaskClient) -> int:
    task_id: int = client.get("/tasks/", query_string={"limit": 1}).json[0]["task_id"]
    return task_id


def count_tasks(client: FlaskClient) -> int:
    with client.application.app_context():
        return db.session.scalars(select(func.count(Task.task_id))).one()


@pytest.mark.parametrize("path", BODIES)
def test_a_repeated_request_is_answered_the_same_and_creates_nothing(client: FlaskClient, path: str) -> None:
    first, second = post(client, path), post(client, path)
    assert first.status_code == second.status_code
    assert first.data == second.data
    assert first.headers.get("Location") == second.headers.get("Location")
    assert "Idempotent-Replayed" not in first.headers
    assert second.headers["Idempotent-Replayed"] == "true"
    listed = "/task-schedules/" if "schedules" in path else "/tasks/"
    assert len(client.get(listed).json) == 1


def test_another_body_or_path_may_not_use_the_key(client: FlaskClient) -> None:
    post(client, "/tasks/")
    for answer in (post(client, "/tasks/", {"operation": "4+8"}), post(client, "/task-schedules/")):
        assert answer.status_code == 422
        assert list(answer.json["errors"]["headers"]) == ["Idempotency-Key"]
    assert len(client.get("/tasks/").json) == 1
    assert client.get("/task-schedules/").json == []


def test_other_keys_create_each_their_own(client: FlaskClient) -> None:
    ids = {post(client, "/tasks/", key=key).json["task_id"] for key in ("a", "b", "x" * 255)}
    assert len(ids) == 3


def test_a_refused_request_does_not_use_up_its_key(client: FlaskClient) -> None:
    assert post(client, "/tasks/", {"operation": "4+"}).status_code == 422
    assert post(client, "/tasks/", {"operation": "4+7"}).status_code == 202


def test_after_24_hours_the_key_is_new(client: FlaskClient) -> None:
    first = post(client, "/tasks/")
    expire_keys(client)
    assert post(client, "/tasks/").json["task_id"] != first.json["task_id"]


@pytest.mark.parametrize("key", ["", "x" * 256, "ü", "a\tb"])
def test_a_key_that_is_none_is_refused(client: FlaskClient, key: str) -> None:
    answer = post(client, "/tasks/", key=key)
    assert answer.status_code == 422
    assert client.get("/tasks/").json == []


@pytest.mark.parametrize("make_new", [forget_keys, expire_keys])
def test_of_many_at_the_same_moment_one_creates(client: FlaskClient, make_new: Callable[[FlaskClient], None]) -> None:
    post(client, "/tasks/")
    for posted in range(2, ROUNDS + 2):
        make_new(client)
        answers = post_at_once(client, threading.Barrier(8))
        assert {answer.status_code for answer in answers} == {202}
        assert {answer.json["task_id"] for answer in answers} == {newest_task(client)}
        assert sum("Idempotent-Replayed" in answer.headers for answer in answers) == 7
        assert count_tasks(client) == posted


def post_at_once(client: FlaskClient, gate: threading.Barrier) -> list[Any]:
    answers: list[Any] = []

    def repeat() -> None:
        own = client.application.test_client()
        gate.wait()
        answers.append(post(own, "/tasks/"))

    threads = [threading.Thread(target=repeat) for _ in range(gate.parties)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return answers


@pytest.mark.parametrize("call", ["trigger", "backfill"])
def test_what_a_schedule_is_asked_to_create_is_created_once(client: FlaskClient, call: str) -> None:
    body = {"operation": "4+7", "cron": "0 * * * *", "start_at": "2026-01-01T00:00:00Z"}
    schedule = client.post("/task-schedules/", json=body).json["task_schedule_id"]
    stretch = {"start": "2026-01-01T00:00:00Z", "end": "2026-01-01T05:00:00Z"} if call == "backfill" else None
    answers = [
        client.post(f"/task-schedules/{schedule}/{call}/", json=stretch, headers={"Idempotency-Key": "one"})
        for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json == answers[1].json
    assert len(client.get("/tasks/").json) == (5 if stretch else 1)


def kept_size(client: FlaskClient) -> int:
    with client.application.app_context():
        return len(json.dumps(db.session.scalars(select(IdempotencyKey.answer)).one()))


@pytest.mark.parametrize(("size", "most"), [(0, 40_000), (900, 1_200_000), (4_000, 40_000)])
def test_what_is_kept_of_a_large_batch_is_bounded_and_repeats_its_answer(
    client: FlaskClient, size: int, most: int
) -> None:
    body = [{"operation": "http_request", "params": {"url": URL, "body": token_hex(size // 2)}} for _ in range(1_000)]
    first, second = (post(client, "/tasks/batch-request/", body) for _ in range(2))
    assert (first.status_code, first.data) == (202, second.data)
    assert second.headers["Idempotent-Replayed"] == "true"
    assert kept_size(client) < most


def test_what_is_kept_of_a_batch_with_long_errors_is_bounded(client: FlaskClient) -> None:
    wrong = {"operation": "1+1"} | {f"{token_hex(16)}{n}": n for n in range(70)}
    first, second = (post(client, "/tasks/batch-request/", [*[wrong] * 999, {"operation": "1+1"}]) for _ in range(2))
    assert (first.status_code, first.data) == (202, second.data)
    assert [error["index"] for error in first.json["errors"]] == list(range(999))
    assert first.json["errors"][0]["errors"].keys() == wrong.keys() - {"operation"}
    assert list(first.json["errors"][-1]["errors"]) == ["_schema"]
    assert len(first.data) < 500_000
    assert kept_size(client) < 100_000


def test_an_answer_that_an_earlier_release_has_kept_is_repeated(client: FlaskClient) -> None:
    first = post(client, "/tasks/")
    plain = {"body": first.json, "status": 202, "headers": {"Location": first.headers["Location"]}}
    with client.application.app_context():
        db.session.execute(update(IdempotencyKey).values(answer=plain))
        db.session.commit()
    second = post(client, "/tasks/")
    assert (second.status_code, second.data, second.headers["Location"]) == (202, first.data, first.headers["Location"])
