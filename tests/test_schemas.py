"""What our schemas do themselves for speed is what marshmallow would do."""

from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask
from marshmallow import Schema, ValidationError, fields
from marshmallow.decorators import POST_LOAD, VALIDATES_SCHEMA

from scheduler_app.schemas.base import AnswerSchema, RequestSchema
from scheduler_app.schemas.operations import OperationOut
from scheduler_app.schemas.tasks import BatchOut, TaskChange, TaskDetailOut, TaskOut, TaskRequest

NOW = datetime(2026, 11, 30, 2, 15, 7, 90, tzinfo=UTC)
TASK = {
    "task_id": 7,
    "operation": "calculate",
    "params": {"expression": "4+7"},
    "priority": 5,
    "status": "ERROR",
    "result": None,
    "error": {"type": "ValueError", "message": "no"},
    "cause": None,
    "progress": {"percent": 40, "message": "page 4"},
    "cancel_requested": False,
    "attempts": 1,
    "max_retries": 5,
    "run_at": NOW,
    "task_schedule_id": 3,
    "scheduled_for": NOW,
    "created_at": NOW,
    "created_by": "shop",
    "started_at": NOW,
    "finished_at": None,
    "retry": None,  # as usual, which the answer says
    "expires_at": None,
    "labels": None,
    "group": None,
    "unique": None,
}


def kinds_of(kind: type[Schema]) -> Iterator[type[Schema]]:
    for one in kind.__subclasses__():
        yield one
        yield from kinds_of(one)


@pytest.mark.parametrize("form", [dict, lambda given: SimpleNamespace(**given)])
@pytest.mark.parametrize(
    ("schema", "answer"),
    [
        (TaskOut, TASK),
        (TaskOut, TASK | {"task_id": "7", "attempts": 1.0, "created_by": 8, "cancel_requested": 1}),
        (TaskDetailOut, TASK | {"waiting_for": {"reason": "turn", "ahead": 3}, "failures": [], "failure_count": 0}),
        (BatchOut, {"tasks": [TASK], "errors": [{"index": 1, "errors": {"priority": ["no"]}}]}),
        (TaskOut, TASK | {"labels": {"customer": "17"}, "retry": None}),
        (BatchOut, {"tasks": []}),
    ],
)
def test_an_answer_is_written_as_marshmallow_writes_it(schema: type[Schema], answer: Any, form: Any) -> None:
    assert schema().dump(form(answer)) == Schema.dump(schema(), form(answer))
    assert schema(many=True).dump([form(answer)]) == Schema.dump(schema(many=True), [form(answer)])


def test_a_field_that_looks_at_the_whole_object_is_always_asked(app: Flask) -> None:
    found = app.test_client().get("/operations/").json
    assert found
    assert all(operation["params"]["type"] == "object" for operation in found)
    assert OperationOut in set(kinds_of(AnswerSchema))


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize(
    ("schema", "given"),
    [
        (TaskRequest, {"operation": "4+7"}),
        (TaskRequest, {"operation": "calculate", "params": {"expression": "1/3"}, "priority": 0, "max_retries": 0}),
        (TaskRequest, {"operation": "4+7", "run_at": "2030-01-31T12:00:00+02:00", "max_retries": None}),
        (TaskChange, {}),
        (TaskChange, {"priority": 7.0, "run_at": None}),
    ],
)
def test_a_valid_request_is_loaded_as_marshmallow_loads_it(schema: type[Schema], given: dict[str, Any]) -> None:
    assert schema().load(given) == Schema.load(schema(), given)


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize("given", [{}, [], None, "x", {"operation": "4+", "priority": 10, "x": 1}, {"operation": None}])
def test_all_errors_of_a_request_are_found(given: Any) -> None:
    with pytest.raises(ValidationError) as ours:
        TaskRequest().load(given)
    with pytest.raises(ValidationError) as theirs:
        Schema.load(TaskRequest(), given)
    assert ours.value.messages == theirs.value.messages


@pytest.mark.parametrize("kind", list(kinds_of(AnswerSchema)), ids=lambda kind: kind.__name__)
def test_every_answer_writes_null_as_marshmallow_does(kind: type[Schema]) -> None:
    schema = kind(exclude=[name for name, field in kind().fields.items() if isinstance(field, fields.Function)])
    names = [field.attribute or name for name, field in schema.dump_fields.items()]
    nothing = dict.fromkeys(name for name in names if "." not in name)
    assert schema.dump(nothing) == Schema.dump(schema, nothing)


def hooks_of(kind: type[Schema]) -> set[str]:
    return {name for name, hooks in kind._hooks.items() if hooks}


def test_no_schema_has_a_hook_that_ours_would_not_call() -> None:
    for kind in kinds_of(RequestSchema):
        assert hooks_of(kind) <= {VALIDATES_SCHEMA, POST_LOAD}
    assert not any(map(hooks_of, kinds_of(AnswerSchema)))
