"""No field takes NUL, which PostgreSQL's text cannot hold: wherever it stands, the answer is an error that names it."""

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.test_spec import bodies_of, operations, resolved

NUL = "a\0b"
IDS = {"task_id": "7", "task_schedule_id": "7", "priority": "7", "name": "shop"}


def placed(value: Any) -> Iterator[Any]:
    """The value with NUL in place of each of its texts, one at a time."""
    if isinstance(value, str):
        yield NUL
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from (value | {key: changed} for changed in placed(inner))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from ([*value[:index], changed, *value[index + 1 :]] for changed in placed(inner))


@pytest.fixture
def spec(client: FlaskClient) -> dict[str, Any]:
    document: dict[str, Any] = client.get("/openapi.json").json
    return document


def test_no_parameter_takes_nul(client: FlaskClient, spec: dict[str, Any]) -> None:
    tried = 0
    for name, _, parameters in operations(spec):
        method, path = name.split()
        for parameter in (resolved(spec, one) for one in parameters):
            if parameter["in"] == "query":
                answer = client.open(path.format(**IDS), method=method, query_string={parameter["name"]: NUL})
                assert answer.status_code in (404, 422), (name, parameter["name"])
                tried += 1
    assert tried > 10


def test_no_path_takes_nul(client: FlaskClient, spec: dict[str, Any]) -> None:
    for name, _, _ in operations(spec):
        method, path = name.split()
        if "{" in path:
            path = path.replace("{", "%00{").format(**IDS)
            assert client.open(path, method=method).status_code == 404, name


def test_no_field_of_a_body_takes_nul(app: Flask, client: FlaskClient, spec: dict[str, Any]) -> None:
    tried = 0
    for name, operation, _ in operations(spec):
        method, path = name.split()
        for body in bodies_of(operation):
            for changed in placed(body):
                answer = client.open(path.format(**IDS), method=method, json=changed)
                # A task's parameters are JSON, which may hold it; then the call does what it says.
                in_params = answer.status_code < 300 and "params" in str(changed).partition(repr(NUL))[0]
                refused = answer.status_code in (404, 422) or "errors" in (answer.json or {})  # of a batch, one by one
                assert in_params or refused, (name, changed, answer.data)
                tried += 1
    assert tried > 50
