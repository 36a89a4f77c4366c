"""The examples in /openapi.json. Requests can be sent unchanged, and the fields of each answer agree."""

from typing import Any

import jsonschema_rs
import pytest
from flask.testing import FlaskClient

from scheduler_app.models import WAITING
from scheduler_app.operations import offered
from tests.support import trial_operations  # noqa: F401 (registers them)
from tests.test_spec import operations, resolved
from tests.test_tasks_api import post

CREATED = (
    "/tasks/ 202",
    "-request/ 202",
    "/retry/ 202",
    "/trigger/ 201",
    "/trigger/ 202",
    "/backfill/ 201",
    "/backfill/ 202",
)

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # one kind is enough here


@pytest.fixture
def document(client: FlaskClient) -> dict[str, Any]:
    spec: dict[str, Any] = client.get("/openapi.json").json
    return spec


def values(content: dict[str, Any]) -> list[Any]:
    return [content["example"]] if "example" in content else [e["value"] for e in content["examples"].values()]


def answers(document: dict[str, Any]) -> list[tuple[str, dict[str, Any], list[Any]]]:
    """Of each JSON answer of a call: its name with the status, the schema, the examples that are written for it."""
    found = []
    for name, operation, _ in operations(document):
        for status, response in operation["responses"].items():
            content = resolved(document, response).get("content", {}).get("application/json", {})
            if status < "400" and not content.keys().isdisjoint(("example", "examples")):
                found.append((f"{name} {status}", content["schema"], values(content)))
    return found


def shown_tasks(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, list):
        return [task for item in value for task in shown_tasks(item)]
    if isinstance(value, dict):
        inner = [task for item in value.values() for task in shown_tasks(item)]
        return [value, *inner] if {"task_id", "status", "attempts"} <= value.keys() else inner
    return []


def test_every_answer_with_a_task_or_a_schedule_has_an_example_of_its_schema(document: dict[str, Any]) -> None:
    shown = answers(document)
    assert len(shown) > 15
    for name, schema, examples in shown:
        validator = jsonschema_rs.validator_for({**schema, "components": document["components"]})
        for example in examples:
            assert validator.is_valid(example), (name, example)


def test_a_task_in_an_answer_agrees_with_itself(document: dict[str, Any]) -> None:
    found = [(name, task) for name, _, examples in answers(document) for task in shown_tasks(examples)]
    assert len(found) > 10
    for name, task in found:
        pending = name.startswith("POST") and name.endswith(CREATED)
        assert not pending or task["status"] == "PENDING", name
        begun = task["attempts"] > 0
        assert (task["started_at"] is not None) == begun, name
        assert (task["finished_at"] is None) == (task["status"] in WAITING), name
        assert (task["result"] is None) == (task["status"] != "SUCCESS"), name
        assert (task["error"], task["progress"]) == (None, None), name


def test_every_example_of_what_is_not_valid_names_what_is_wrong(document: dict[str, Any]) -> None:
    for name, operation, _ in operations(document):
        [example] = values(resolved(document, operation["responses"]["422"])["content"]["application/json"])
        assert example["errors"]["json"], name


def test_posting_a_task_has_an_example_for_each_operation_an_http_call_and_a_later_one(
    client: FlaskClient,
    document: dict[str, Any],
) -> None:
    body = document["paths"]["/tasks/"]["post"]["requestBody"]["content"]["application/json"]
    assert next(iter(body["examples"].values()))["value"] == {"operation": "4+7"}
    assert "run_at" in body["examples"]["later"]["value"]
    assert body["examples"].keys() - {"later"} == {operation.name for operation in offered()}
    for name, example in body["examples"].items():
        assert example["summary"], name
        answer = client.post("/tasks/", json=example["value"])
        assert answer.status_code == 202, (name, answer.json)


@pytest.mark.parametrize("call", ["cancel", "retry", "delete"])
def test_the_example_of_a_call_for_many_tasks_reaches_none(
    client: FlaskClient, document: dict[str, Any], call: str
) -> None:
    post(client)
    body = document["paths"][f"/tasks/{call}/"]["post"]["requestBody"]["content"]["application/json"]
    for example in values(body):
        answer = client.post(f"/tasks/{call}/", json=example)
        assert answer.json == {"task_ids": [], "remaining": 0, "next_cursor": None}
