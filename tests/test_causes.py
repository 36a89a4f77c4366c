"""Failures of one cause: what counts as the same, how they are found, and how they are run again."""

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import insert, text

from scheduler_app.extensions import db
from scheduler_app.models import Status, Task
from scheduler_app.operations import PermanentError
from scheduler_app.services import attempts, callers, causes
from scheduler_app.services.callers import Caller
from scheduler_app.services.causes import fingerprint, generalised
from tests.support.claims import claim
from tests.support.tasks import get, set_status, submit

NOW = datetime(2040, 6, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("message", "general"),
    [
        ("Order 17 is gone.", "Order # is gone."),
        ("no order 3.50 from 2040-06-01T12:00:00+02:00", "no order # from #"),
        ("connect to 10.0.0.17:8080 failed", "connect to # failed"),
        ("no row 0b7c1a52-6f8e-4d3b-9a39-1f1c1f6a2f10", "no row #"),
        ("no row DEADBEEF-FACE-BEEF-CAFE-DEADBEEFCAFE", "no row #"),
        ("commit 9fceb02d0ae598e95dc970b74767f19372d61af8 at 0xdeadbeef", "commit # at #"),
        ("charge ch_3MmlLrLkdIwHu7ix0snN0B15 refused", "charge # refused"),
        ("'Ann O`Neil' and \"Bob's\" are unknown", "# and # are unknown"),
        ("can't open 'a' and won't open 'b'", "can't open # and won't open #"),
        ("b'\\x00' is not “text”", "# is not #"),
        ("rows 1, 2, 3 and ids ['a', 'b']", "rows # and ids [#]"),
        ("host shop-17.example.com timed\n  out", "host shop-#.example.com timed out"),
        ("The answer was 503: (no body)", "The answer was 503: (no body)"),
        ("[Errno 111] refused; status=404, code: 7, HTTP 500", "[Errno 111] refused; status=404, code: 7, HTTP 500"),
        ("HTTP 5001", "HTTP #"),
        ("Division by zero.", "Division by zero."),
        ("заказ 17 и «имя»", "заказ # и #"),
        ("", ""),
    ],
)
def test_numbers_ids_and_quoted_text_are_taken_out(message: str, general: str) -> None:
    assert generalised(message) == general
    assert generalised(general) == general


def test_a_cause_is_of_one_operation_and_one_type_and_never_changes() -> None:
    error = {"type": "KeyError", "message": "'17'"}
    assert fingerprint("shop.mail", error) == "11926d0e5a5a8402"
    assert fingerprint("shop.mail", error | {"message": "'18'"}) == "11926d0e5a5a8402"
    others = [("shop.invoice", error), ("shop.mail", error | {"type": "E"}), ("shop.mail", error | {"message": "no"})]
    assert len({fingerprint(*other) for other in others} | {fingerprint("shop.mail", error)}) == 4


@pytest.mark.parametrize("part", ["'", '"', "a", "1", "a1.", "-", "#, ", "«", "0-", " ", "deadbeef-", "status "])
def test_a_hostile_message_takes_no_time(part: str) -> None:
    began = time.perf_counter()
    generalised(part * 1_000_000)
    assert time.perf_counter() - began < 3, "one that goes back and forth takes hours"


def fail(client: FlaskClient, *messages: str, operation: str = "1+1", at: datetime = NOW, **request: Any) -> list[int]:
    """Posts a task for each message, and fails its first attempt with it."""
    ids = submit(client, *[{"operation": operation, "max_retries": 0} | request] * len(messages))
    with client.application.app_context():
        for number, (task_id, message) in enumerate(zip(ids, messages, strict=True)):
            now = at + number * SECOND
            attempt = claim(task_id, 0, worker_id="a", now=now)
            assert attempt
            attempts.fail(attempt, RuntimeError(message), now=now)
    return ids


def test_failed_tasks_are_grouped_and_the_cause_of_the_newest_comes_first(client: FlaskClient) -> None:
    ids = fail(client, "Order 1 is gone.", "no 'ink'", "Order 2 is gone.", "no 'paper'", "Order 3 is gone." + "!" * 900)
    longest, paper, gone = client.get("/failures/").json
    assert (longest["message"], longest["count"], longest["task_id"]) == (f"Order 3 is gone.{'!' * 484}", 1, ids[4])
    assert {name: paper[name] for name in ("operation", "type", "message", "count", "task_id")} == {
        "operation": "calculate",
        "type": "RuntimeError",
        "message": "no 'paper'",
        "count": 2,
        "task_id": ids[3],
    }
    assert (paper["first_at"], paper["last_at"]) == ("2040-06-01T12:00:01Z", "2040-06-01T12:00:03Z")
    assert (gone["count"], gone["task_id"]) == (2, ids[2])
    assert get(client, ids[0])["cause"] == get(client, ids[2])["cause"] == gone["cause"] != paper["cause"]


def test_the_tasks_of_a_cause_are_listed_and_run_again_and_no_others(client: FlaskClient) -> None:
    first, other, second = fail(client, "Order 1 is gone.", "no ink", "Order 2 is gone.")
    waits, *_ = fail(client, "Order 3 is gone.", max_retries=1)
    cause = get(client, first)["cause"]
    assert [task["task_id"] for task in client.get(f"/tasks/?cause={cause}").json] == [waits, second, first]
    assert [task["task_id"] for task in client.get(f"/tasks/?cause={cause}&status=ERROR").json] == [second, first]
    assert client.get(f"/tasks/?cause={cause}&priority=1").json == []
    assert client.post("/tasks/cancel/", json={"cause": cause}).json["task_ids"] == [waits]
    again = client.post("/tasks/retry/", json={"cause": cause, "status": "ERROR"}).json
    assert again == {"task_ids": [first, second], "remaining": 0, "next_cursor": None}
    assert [task["task_id"] for task in client.get("/tasks/?status=ERROR").json] == [other]
    assert client.get("/audit/").json[0]["details"] == {"cause": cause, "status": ["ERROR"]}
    set_status(client, [first], Status.SUCCESS)
    assert client.post("/tasks/delete/", json={"cause": cause, "status": "SUCCESS"}).json["task_ids"] == [first]


@pytest.mark.parametrize("cause", ["", "5D41402ABC4B2A76", "5d41402abc4b2a7", "5d41402abc4b2a76\n", "' OR 1=1 --"])
def test_a_wrong_cause_is_refused_and_named(client: FlaskClient, cause: str) -> None:
    listed = client.get("/tasks/", query_string={"cause": cause})
    assert (listed.status_code, list(listed.json["errors"]["query"])) == (422, ["cause"])
    for call in ("cancel", "retry", "delete"):
        answer = client.post(f"/tasks/{call}/", json={"cause": cause})
        assert (answer.status_code, list(answer.json["errors"]["json"])) == (422, ["cause"])


def test_a_cause_can_be_of_many_tasks_and_is_still_listed_from_page_to_page(client: FlaskClient) -> None:
    ids = fail(client, *["no ink"] * 7)
    path, pages = f"/tasks/?cause={get(client, ids[0])['cause']}&limit=3", []
    while path:
        answer = client.get(path)
        pages.append([task["task_id"] - ids[0] for task in answer.json])
        path = answer.headers.get("Link", "").partition(">")[0].removeprefix("<")
    assert pages == [[6, 5, 4], [3, 2, 1], [0]]


def test_a_permanent_error_and_a_lost_worker_have_their_causes(client: FlaskClient) -> None:
    ids = submit(client, *[{"operation": "1+1"}] * 2)
    with client.application.app_context():
        for task_id, error in zip(ids, [PermanentError("no"), attempts.WorkerLost("gone")], strict=True):
            attempt = claim(task_id, 0, worker_id="a", now=NOW)
            assert attempt
            attempts.fail(attempt, error, now=NOW)
    shown = [get(client, task_id) for task_id in ids]
    assert [task["cause"] for task in shown] == [fingerprint("calculate", task["error"]) for task in shown]


@pytest.mark.usefixtures("context")
def test_a_caller_sees_the_causes_that_it_reaches(client: FlaskClient) -> None:
    fail(client, "no ink", "no paper")
    row = {"operation": "shop.mail", "params": {}, "priority": 5, "max_retries": 0, "run_at": NOW, "created_at": NOW}
    error = {"type": "E", "message": "no"}
    db.session.execute(insert(Task), [row | {"status": Status.ERROR, "finished_at": NOW, "error": error}])
    db.session.commit()
    token = callers.current.set(Caller("shop", operations=("shop.*",)))
    try:
        found = causes.latest()
    finally:
        callers.current.reset(token)
    assert [(one["operation"], one["cause"], one["message"]) for one in found] == [("shop.mail", None, "no")]
    assert len(causes.latest()) == 3
    assert sum(one["count"] for one in causes.latest(limit=2)) == 2


@pytest.mark.usefixtures("context")
def test_of_a_hundred_thousand_failures_the_latest_are_grouped() -> None:
    later = {
        "postgresql": "TIMESTAMPTZ '2040-06-01' + n * INTERVAL '1 second'",
        "sqlite": "datetime('2040-06-01', n || ' seconds')",
    }
    columns = "operation, params, priority, status, attempts, max_retries, claims, run_at, created_at, error"
    columns += ", cause, finished_at"
    numbers = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 100000)"
    fixed = "'shop.mail', '{}', 5, 'ERROR', 1, 0, 1, '2040-06-01', '2040-06-01', CAST(:error AS JSON)"
    varied = f"CAST(n * 7919 % 20000 AS TEXT), {later[db.engine.dialect.name]}"
    insertion = f"{numbers} INSERT INTO task ({columns}) SELECT {fixed}, {varied} FROM numbers"  # noqa: S608
    db.session.execute(text(insertion), {"error": json.dumps({"type": "E", "message": "m" * 2_000})})
    db.session.commit()
    groups = causes.latest()
    assert [len(groups), {group["count"] for group in groups}] == [1_000, {1}], "the same cause comes every 20,000"
