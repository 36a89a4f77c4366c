"""/openapi.json: valid, complete, and true."""

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from flask import Flask
from flask.testing import FlaskClient

from scheduler_app.config import Settings
from scheduler_app.web import create_web_app

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # one kind is enough here

KEY = "0123456789abcdef"
PROBLEM = {"$ref": "#/components/schemas/Problem"}


@pytest.fixture
def spec(client: FlaskClient) -> dict[str, Any]:
    document: dict[str, Any] = client.get("/openapi.json").json
    return document


@pytest.fixture
def keyed_spec(environ: dict[str, str]) -> dict[str, Any]:
    app = create_web_app(Settings.from_env(environ | {"BACKBEAT_API_KEY": KEY}))
    document: dict[str, Any] = app.test_client().get("/openapi.json").json
    return document


def operations(spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], list[dict[str, Any]]]]:
    """The name of each, such as `GET /tasks/`, what is said of it, and its parameters."""
    for path, item in spec["paths"].items():
        of_path = item.pop("parameters", [])
        for method, operation in item.items():
            yield f"{method.upper()} {path}", operation, [*of_path, *operation.get("parameters", [])]


def resolved(spec: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    for name in part.get("$ref", "#").split("/")[1:]:
        spec = spec[name]
    return spec if "$ref" in part else part


def test_the_specification_is_valid_openapi_3_1(app: Flask, spec: dict[str, Any]) -> None:
    assert spec["openapi"] == "3.1.0"
    schemathesis.openapi.from_wsgi("/openapi.json", app).validate()
    for schema in spec["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)


def test_every_reference_leads_somewhere(spec: dict[str, Any]) -> None:
    text = json.dumps(spec)
    for reference in {part.split('"')[0] for part in text.split('"$ref": "')[1:]}:
        assert resolved(spec, {"$ref": reference})


def test_every_operation_has_a_summary_and_describes_its_parameters(spec: dict[str, Any]) -> None:
    for name, operation, parameters in operations(spec):
        assert operation["summary"], name
        assert operation["tags"], name
        assert [p["name"] for p in parameters if not p.get("description")] == [], name


def test_every_call_has_a_name_of_its_own_and_a_description(spec: dict[str, Any]) -> None:
    named = [operation["operationId"] for _, operation, _ in operations(spec)]
    assert len(set(named)) == len(named)
    for name, operation, _ in operations(spec):
        assert re.fullmatch("[a-z]+(_[a-z]+)+", operation["operationId"]), name
        assert operation["description"], name


def test_every_field_of_an_answer_is_required_but_those_that_may_be_missing(spec: dict[str, Any]) -> None:
    optional = {"BatchOut": {"errors", "existing"}, "Problem": {"errors"}}
    optional["ManyTasksOut"] = {"tasks"}
    optional["WaitingForOut"] = {
        "operation",
        "run_at",
        "expires_at",
        "queue",
        "priority",
        "ahead",
        "more_urgent",
        "limit",
        "seconds",
        "note",
        "paused_at",
    }
    requests = named_in(bodies(spec))
    for name in [*requests]:  # nested ones, which are nested no deeper
        requests |= named_in(spec["components"]["schemas"][name])
    answers = spec["components"]["schemas"].keys() - requests
    assert {"TaskOut", "TaskScheduleDetailOut", "WorkerOut", "Problem"} <= answers
    for name in answers:
        schema = spec["components"]["schemas"][name]
        assert schema["properties"].keys() - set(schema["required"]) == optional.get(name, set()), name


def named_in(part: Any) -> set[str]:
    """Schemas that it refers to."""
    return set(re.findall(r"#/components/schemas/(\w+)", json.dumps(part)))


def bodies(spec: dict[str, Any]) -> list[Any]:
    return [operation["requestBody"] for _, operation, _ in operations(spec) if "requestBody" in operation]


def bodies_of(operation: dict[str, Any]) -> list[Any]:
    """The examples."""
    body = operation.get("requestBody", {"content": {"application/json": {"examples": {}}}})
    body = body["content"]["application/json"]
    return [body["example"]] if "example" in body else [e["value"] for e in body["examples"].values()]


def test_every_component_is_used(spec: dict[str, Any]) -> None:
    text = json.dumps(spec)
    for kind in ("schemas", "responses"):
        assert [name for name in spec["components"][kind] if f'"#/components/{kind}/{name}"' not in text] == []


def test_the_specification_says_where_the_server_is_and_what_may_be_done_with_it(spec: dict[str, Any]) -> None:
    assert [server["url"] for server in spec["servers"]] == ["/"]
    assert spec["info"]["license"] == {"name": "MIT", "identifier": "MIT"}


def test_every_body_is_needed_but_those_of_a_pause_and_a_rotation(client: FlaskClient, spec: dict[str, Any]) -> None:
    for name, operation, _ in operations(spec):
        if "requestBody" in operation:
            needed = not name.endswith(("/pause/", "/rotate/"))
            assert operation["requestBody"]["required"] == needed, name
            method, path = (
                name.replace("{task_id}", "7").replace("{task_schedule_id}", "7").replace("{name}", "x").split()
            )
            assert client.open(path, method=method).status_code == (422 if needed else 404), name


def test_every_body_has_an_example_that_its_schema_allows(spec: dict[str, Any]) -> None:
    for name, operation, _ in operations(spec):
        if "requestBody" in operation:
            body = operation["requestBody"]["content"]["application/json"]
            examples = bodies_of(operation)
            assert examples, name
            validator = jsonschema_rs.validator_for({**body["schema"], "components": spec["components"]})
            for example in examples:
                validator.validate(example)


def test_every_error_has_the_one_shape_and_an_example(spec: dict[str, Any]) -> None:
    for name, operation, _ in operations(spec):
        for status, response in operation["responses"].items():
            if status >= "400" and name != "GET /readyz":
                content = resolved(spec, response)["content"]["application/json"]
                assert content["schema"] == PROBLEM, (name, status)
                example = resolved(spec, response)["content"]["application/json"]["example"]
                assert str(example["code"]) == status, name


def test_every_operation_names_the_errors_that_follow_from_what_it_takes(spec: dict[str, Any]) -> None:
    for name, operation, _ in operations(spec):
        is_open = name in ("GET /livez", "GET /readyz")
        expected = {"422"} if is_open else {"401", "403", "422", "429", "503"}
        expected |= {"400", "413", "415"} if "requestBody" in operation else set()
        expected |= {"404"} if "{" in name else set()
        assert expected <= operation["responses"].keys(), name
        assert "default" not in operation["responses"], name


def test_the_specification_says_where_a_key_is_needed_and_of_which_scope(keyed_spec: dict[str, Any]) -> None:
    assert keyed_spec["security"] == [{"apiKey": []}, {}]
    assert keyed_spec["components"]["securitySchemes"]["apiKey"] == {"type": "http", "scheme": "bearer"}
    for name, operation, _ in operations(keyed_spec):
        is_open = name in ("GET /livez", "GET /readyz")
        assert (operation.get("security") == []) == is_open, name
        assert ("401" in operation["responses"]) != is_open, name
        assert ("For keys of scope `" in operation["description"]) != is_open, name


def test_the_key_is_not_in_the_specification(keyed_spec: dict[str, Any]) -> None:
    assert KEY not in json.dumps(keyed_spec)
