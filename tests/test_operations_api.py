"""GET /operations/: what a task can do, with the JSON Schema of its parameters."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from flask import Flask
from flask.testing import FlaskClient

from scheduler_app.access_models import Scope
from scheduler_app.operations import registered
from scheduler_app.services import keys
from tests.support import trial_operations  # noqa: F401 (registers them)
from tests.support.processes import Process, eventually

SECRET = {"value": "0123456789abcdef", "hosts": ["api.example.com"]}

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # one kind is enough here


@pytest.fixture
def listed(client: FlaskClient) -> dict[str, dict[str, Any]]:
    answer = client.get("/operations/")
    assert answer.status_code == 200
    return {operation["name"]: operation for operation in answer.json}


def test_every_registered_operation_is_listed_by_name(listed: dict[str, dict[str, Any]]) -> None:
    assert list(listed) == sorted(listed) == [operation.name for operation in registered()]
    assert {"calculate", "http_request"} <= listed.keys()


def test_an_operation_shows_its_description_and_limits(listed: dict[str, dict[str, Any]]) -> None:
    spin = listed["trial.spin"]
    assert (spin["summary"], spin["max_retries"], spin["time_limit"]) == ("Never ends by itself.", 0, 0.5)
    assert all(operation["description"] for operation in listed.values())


def test_an_operation_is_described_at_length_and_in_one_line(listed: dict[str, dict[str, Any]]) -> None:
    for name, operation in listed.items():
        assert operation["summary"], name
        assert "\n" not in operation["summary"], name
        assert operation["description"].startswith(operation["summary"]), name
    policy = listed["http_request"]["description"]
    for told in ("408, 425, 429 and 5xx", "Permanent:", "Backbeat-Task", "Backbeat-Attempt", "Idempotency-Key"):
        assert told in policy


def test_an_operation_shows_how_often_it_is_tried_again_and_after_which_pauses(
    listed: dict[str, dict[str, Any]],
) -> None:
    assert listed["calculate"]["retry"] == {"max_retries": 5, "min_seconds": 1.0, "max_seconds": 600.0, "factor": 2.0}
    assert listed["trial.retry"]["retry"] == {"max_retries": 3, "min_seconds": 30, "max_seconds": 30, "factor": 1}
    assert listed["trial.retry"]["max_retries"] == 3


def test_an_operation_says_how_many_workers_know_it_and_which_secrets(
    client: FlaskClient, worker: Callable[..., Process], tmp_path: Path
) -> None:
    def known() -> dict[str, tuple[int, list[str]]]:
        return {one["name"]: (one["workers"], one["secrets"]) for one in client.get("/operations/").json}

    assert known()["http_request"] == (0, [])
    secrets = tmp_path / "secrets.json"
    secrets.touch(mode=0o600)
    secrets.write_text(json.dumps({"SHOP": SECRET}))
    worker(BACKBEAT_SECRETS_FILE=str(secrets))
    eventually(lambda: known()["calculate"] == (1, []))
    assert known()["http_request"] == (1, ["SHOP"])
    assert known()["trial.spin"] == (0, []), "it is known here and not there"
    secrets.write_text(json.dumps({"SHOP": SECRET, "BANK": SECRET}))
    eventually(lambda: known()["http_request"] == (1, ["BANK", "SHOP"]))
    secrets.write_text("no JSON")
    eventually(lambda: known()["http_request"] == (1, []))


def test_a_key_sees_what_workers_know_of_its_operations_only(app: Flask, client: FlaskClient) -> None:
    with app.app_context():
        _, text = keys.create(name="bound", scope=Scope.READ, operations=["calculate"], now=datetime.now(UTC))
    answer = client.get("/operations/", headers={"Authorization": f"Bearer {text}"})
    assert [one["name"] for one in answer.json] == ["calculate"]


def test_every_schema_is_json_schema(listed: dict[str, dict[str, Any]]) -> None:
    for operation in listed.values():
        jsonschema_rs.meta.validate(operation["params"])
        assert operation["params"]["type"] == "object"


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("calculate", {"expression": "4+7"}),
        ("http_request", {"url": "http://127.0.0.1/"}),
        ("http_request", {"url": "http://127.0.0.1/", "method": "POST", "json": [1], "headers": {"X-A": "1"}}),
        ("trial.fail", {}),
    ],
)
def test_what_a_schema_allows_is_taken(
    client: FlaskClient, listed: dict[str, dict[str, Any]], name: str, params: dict[str, Any]
) -> None:
    assert jsonschema_rs.is_valid(listed[name]["params"], params)
    assert client.post("/tasks/?", json={"operation": name, "params": params}).status_code == 202


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("calculate", {}),
        ("calculate", {"expression": 7}),
        ("calculate", {"expression": "4+7", "more": 1}),
        ("http_request", {"method": "GET"}),
        ("http_request", {"url": "http://127.0.0.1/", "method": "FETCH"}),
        ("http_request", {"url": "http://127.0.0.1/", "timeout": 0}),
        ("trial.fail", {"any": 1}),
    ],
)
def test_what_a_schema_forbids_is_refused(
    client: FlaskClient, listed: dict[str, dict[str, Any]], name: str, params: dict[str, Any]
) -> None:
    assert not jsonschema_rs.is_valid(listed[name]["params"], params)
    answer = client.post("/tasks/", json={"operation": name, "params": params})
    assert answer.status_code == 422
    assert list(answer.json["errors"]["json"]) == ["params"]
