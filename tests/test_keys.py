"""API keys: what each scope opens, what a bound key reaches, rates, wrong keys, rotation and revocation."""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import urllib3
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select

from scheduler_app.access_models import ApiKey, Scope
from scheduler_app.extensions import db
from scheduler_app.services import keys
from tests.support.processes import Process, free_port
from tests.support.servers import Valkey
from tests.support.system import WEB, WEB_READY

API = Path(__file__).parent.parent / "docs/api.md"
LATER = "2999-12-31T23:00:00Z"
HOURLY = {"every_x_hours": 1, "start_at": LATER}
REQUEST = {"operation": "http_request", "params": {"url": "http://127.0.0.1:1/"}, "run_at": LATER}
Headers = dict[str, str]


class Given(NamedTuple):
    admin: Headers
    read: Headers
    write: Headers
    bound: Headers  # write, to calculate and shop.*


def bearer(text: str) -> Headers:
    return {"Authorization": f"Bearer {text}"}


@pytest.fixture
def given(app: Flask) -> Given:
    now = datetime.now(UTC)
    with app.app_context():
        texts = [keys.create(scope.value, scope, now=now)[1] for scope in (Scope.READ, Scope.WRITE)]
        texts.append(keys.create("bound", Scope.WRITE, operations=["calculate", "shop.*"], now=now)[1])
        return Given(bearer(keys.create("root", Scope.ADMIN, now=now)[1]), *map(bearer, texts))


def test_every_call_is_for_the_scope_that_the_docs_name(client: FlaskClient, given: Given) -> None:
    """A walk over every call with no key, and with one of each scope."""
    rows = re.findall(r"^\| (`.*`) \| (open|read|write|admin) \|", API.read_text(), re.MULTILINE)
    scopes = {call: scope for calls, scope in rows for call in re.findall(r"`([A-Z]+ /[^`]*)`", calls)}
    paths = client.get("/openapi.json").json["paths"]
    calls = {f"{method.upper()} {path}" for path, item in paths.items() for method in item if method != "parameters"}
    assert scopes.keys() == calls
    levels = ["open", "read", "write", "admin"]
    for call, scope in scopes.items():
        method, path = re.sub(r"\{\w+\}", "999", call.replace("{name}", "x")).split()
        for level, headers in zip(levels, ({}, given.read, given.write, given.admin), strict=True):
            status = client.open(path, method=method, headers=headers).status_code
            refused = 401 if level == "open" else 403
            assert (status == refused) == (levels.index(level) < levels.index(scope)), (call, level, status)


def test_a_bound_key_neither_reads_nor_steers_what_is_of_other_operations(client: FlaskClient, given: Given) -> None:
    task = client.post("/tasks/", json=REQUEST, headers=given.admin).json["task_id"]
    schedule = client.post("/task-schedules/", json=HOURLY | {"operation": "http_request", "params": REQUEST["params"]},
                           headers=given.admin).json["task_schedule_id"]  # fmt: skip
    for path, item in client.get("/openapi.json").json["paths"].items():
        if "{task" not in path:
            continue
        url = path.replace("{task_id}", str(task)).replace("{task_schedule_id}", str(schedule))
        bodies = {"PATCH": {"priority": 1}, "POST": None}
        for method in (name.upper() for name in item if name != "parameters"):
            body = (
                {"start": "2026-01-01T00:00:00Z", "end": "2026-01-02T00:00:00Z"}
                if "backfill" in path
                else bodies.get(method)
            )
            answer = client.open(url, method=method, json=body, headers=given.bound)
            assert answer.status_code == 404, (method, path, answer.json)
    assert client.get(f"/tasks/{task}/", headers=given.admin).json["status"] == "PENDING"
    assert client.get("/tasks/", headers=given.bound).json == []
    assert client.get("/task-schedules/", headers=given.bound).json == []
    nothing = {"task_ids": [], "remaining": 0, "next_cursor": None}
    for body in ({"status": "PENDING"}, {"all": True}, {"task_ids": [task]}):
        assert client.post("/tasks/cancel/", json=body, headers=given.bound).json == nothing
        dry_run = client.post("/tasks/cancel/", json=body | {"dry_run": True}, headers=given.bound)
        assert dry_run.json == nothing | {"tasks": []}
    known, seen = (
        [one["name"] for one in client.get("/operations/", headers=key).json] for key in (given.admin, given.bound)
    )
    assert "http_request" in known
    assert seen == [name for name in known if name == "calculate" or name.startswith("shop.")]


def test_a_bound_key_posts_only_its_operations(client: FlaskClient, given: Given) -> None:
    refused = client.post("/tasks/", json=REQUEST, headers=given.bound)
    assert refused.status_code == 403
    assert refused.json["message"] == "This key reaches only the operations calculate, shop.*; not http_request."
    batch = client.post(
        "/tasks/batch-request/", json=[{"operation": "4+7", "run_at": LATER}, REQUEST], headers=given.bound
    )
    assert (batch.status_code, len(batch.json["tasks"])) == (202, 1)
    assert batch.json["errors"] == [{"index": 1, "errors": {"operation": [refused.json["message"]]}}]
    other = HOURLY | {"operation": "http_request", "params": REQUEST["params"]}
    assert client.post("/task-schedules/", json=other, headers=given.bound).status_code == 403
    mine = client.post("/task-schedules/", json=HOURLY | {"operation": "4+7"}, headers=given.bound).json
    change = {"operation": "http_request", "params": REQUEST["params"]}
    path = f"/task-schedules/{mine['task_schedule_id']}/"
    assert client.patch(path, json=change, headers=given.bound).status_code == 403
    assert len(client.get("/tasks/", headers=given.bound).json) == 1
    cancelled = client.post("/tasks/cancel/", json={"status": "PENDING"}, headers=given.bound).json
    assert cancelled["task_ids"] == [batch.json["tasks"][0]["task_id"]]


def test_tasks_and_schedules_name_the_key_that_created_them(client: FlaskClient, given: Given) -> None:
    assert client.post("/tasks/", json={"operation": "4+7"}, headers=given.bound).json["created_by"] == "bound"
    schedule = client.post("/task-schedules/", json=HOURLY | {"operation": "4+7"}, headers=given.bound).json
    assert schedule["created_by"] == "bound"
    triggered = client.post(f"/task-schedules/{schedule['task_schedule_id']}/trigger/", headers=given.write).json
    assert triggered["created_by"] == "bound"


def test_an_idempotency_key_of_one_key_is_not_that_of_another(client: FlaskClient, given: Given) -> None:
    once = {"Idempotency-Key": "k"}
    posted = [
        client.post("/tasks/", json={"operation": "4+7"}, headers=who | once) for who in (given.write, given.bound)
    ]
    assert posted[0].json["task_id"] != posted[1].json["task_id"]
    again = client.post("/tasks/", json={"operation": "4+7"}, headers=given.bound | once)
    assert again.json["task_id"] == posted[1].json["task_id"]


def test_missing_and_wrong_keys_have_their_own_words(client: FlaskClient, given: Given) -> None:
    assert client.get("/tasks/").json["message"] == "Send the key as Authorization: Bearer <key>."
    wrong = given.read["Authorization"][:-1] + "~"
    for text in (wrong, "Bearer bb_x", f"Bearer bb_{'a' * 12}_{'b' * 43}"):
        answer = client.get("/tasks/", headers={"Authorization": text})
        assert (answer.status_code, answer.json["message"]) == (401, "The key is not valid.")


def test_twenty_wrong_keys_a_minute_are_answered_and_a_valid_one_always(client: FlaskClient, given: Given) -> None:
    statuses = [client.get("/tasks/", headers=bearer("wrong")).status_code for _ in range(22)]
    assert statuses == [401] * 20 + [429] * 2  # fmt: skip
    assert "Retry-After" in client.get("/tasks/", headers=bearer("wrong")).headers
    assert client.get("/tasks/", headers=given.read).status_code == 200


def test_a_key_with_a_rate_is_slowed_and_told_so(client: FlaskClient, given: Given) -> None:
    body = {"name": "slow", "scope": "read", "rate": "2/h"}
    slow = bearer(client.post("/keys/", json=body, headers=given.admin).json["key"])
    first, _, third = (client.get("/tasks/", headers=slow) for _ in range(3))
    assert first.headers["RateLimit-Policy"] == '"key";q=2;w=3600'
    assert re.fullmatch(r'"key";r=1;t=\d+', first.headers["RateLimit"])
    assert (third.status_code, int(third.headers["Retry-After"]) <= 3600) == (429, True)


@pytest.mark.parametrize("field", ["expires_at", "revoked_at"])
def test_a_key_that_has_expired_or_is_revoked_is_not_valid(app: Flask, field: str) -> None:
    now = datetime(2040, 1, 1, tzinfo=UTC)
    with app.app_context():
        key, text = keys.create("k", Scope.READ, now=now)
        setattr(key, field, now + timedelta(hours=1))
        db.session.commit()
        valid = keys.verified(text, now=now)
        assert (valid is not None) == (field == "expires_at")
        assert keys.verified(text, now=now + timedelta(hours=1)) is None
        assert keys.exist() == (field == "expires_at")


def test_after_a_rotation_both_secrets_work_for_the_overlap(app: Flask) -> None:
    now = datetime(2040, 1, 1, tzinfo=UTC)
    with app.app_context():
        _, before = keys.create("k", Scope.READ, now=now)
        _, after = keys.rotate("k", now=now, overlap=timedelta(hours=1))
        assert before != after
        for minutes, works in ((59, True), (60, False)):
            moment = now + timedelta(minutes=minutes)
            assert (keys.verified(before, now=moment) is not None) == works
            assert keys.verified(after, now=moment)


def test_the_secret_is_kept_nowhere(app: Flask) -> None:
    with app.app_context():
        _, text = keys.create("k", Scope.READ, now=datetime.now(UTC))
        row = db.session.execute(select(*ApiKey.__table__.c)).one()
        assert re.fullmatch(r"bb_[a-z0-9]{12}_[\w-]{43}", text)
        assert text[16:] not in str(row)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "Root", "scope": "read"}, "name"),
        ({"name": "local", "scope": "read"}, "name"),
        ({"name": "root", "scope": "read"}, "name"),
        ({"name": "x", "scope": "all"}, "scope"),
        ({"name": "x", "scope": "admin", "operations": ["calculate"]}, "operations"),
        ({"name": "x", "scope": "read", "rate": "0/s"}, "rate"),
    ],
)
def test_a_key_that_cannot_be_is_refused(client: FlaskClient, given: Given, body: dict[str, Any], field: str) -> None:
    answer = client.post("/keys/", json=body, headers=given.admin)
    assert (answer.status_code, list(answer.json["errors"]["json"])) == (422, [field])


def test_the_command_line_makes_lists_rotates_and_revokes(app: Flask) -> None:
    def run(*arguments: str) -> str:
        done = app.test_cli_runner().invoke(args=["keys", *arguments])
        assert done.exit_code == 0, done.output
        return done.output.strip()

    made = run("create", "shop", "--scope", "write", "--expires", "90d", "--operations", "calculate,shop.*")
    assert app.test_client().get("/tasks/", headers=bearer(made)).status_code == 200
    assert "calculate,shop.*" in run("list")
    assert run("rotate", "shop", "--overlap", "1h") != made
    run("revoke", "shop")
    assert "revoked" in run("list")
    assert app.test_cli_runner().invoke(args=["keys", "revoke", "nobody"]).exit_code == 1


@pytest.fixture
def webs(start: Callable[..., Process]) -> list[str]:
    """The URLs of two web processes."""
    ports = [free_port(), free_port()]
    for port in ports:
        start(*WEB, ready=WEB_READY, PORT=str(port))
    return [f"http://127.0.0.1:{port}" for port in ports]


@pytest.mark.parametrize("redis_is_there", [True, False])
def test_a_revoked_key_is_refused_by_every_process_within_a_second(
    webs: list[str], app: Flask, given: Given, valkey: Valkey, redis_is_there: bool
) -> None:
    def status(url: str) -> int:
        return urllib3.request("GET", f"{url}/operations/", headers=given.read, timeout=30, retries=False).status

    assert [status(url) for url in webs] == [200, 200]
    if not redis_is_there:
        valkey.freeze()  # the server of all tests of this process; it is thawed in any case
    try:
        with app.app_context():
            assert [status(url) for url in webs] == [200, 200]
            keys.revoke("read", now=datetime.now(UTC))
        time.sleep(1)  # what is promised
        assert [status(url) for url in webs] == [401, 401]
    finally:
        valkey.thaw()


def test_when_a_key_was_used_is_written_down(app: Flask, client: FlaskClient, given: Given) -> None:
    with client.get("/tasks/", headers=given.read):
        pass
    with app.app_context():
        used = db.session.scalar(select(ApiKey.last_used_at).where(ApiKey.name == "read"))
        assert used is not None
