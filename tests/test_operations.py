"""The registry of operations, and how an operation is described."""

from collections.abc import Callable, Iterator
from typing import Any

import jsonschema_rs
import pytest
from marshmallow import Schema, ValidationError, fields

import actors
from scheduler_app import operations
from scheduler_app.config import SettingsError
from scheduler_app.operations import check, current_task, lookup, operation, registered, resolve, running_task
from scheduler_app.schemas.operations import json_schema

SHIPPED = actors.__all__


class Size(Schema):
    width = fields.Integer(required=True, metadata={"description": "Pixels.", "example": 10})
    height = fields.Integer()


@pytest.fixture(autouse=True)
def _registry_as_before() -> Iterator[None]:
    before = dict(operations._operations)
    yield
    operations._operations.clear()
    operations._operations.update(before)


def refused(text: str, params: Any) -> dict[str, Any]:
    with pytest.raises(ValidationError) as error:
        check(text, params)
    return error.value.messages_dict


def test_the_shipped_operations_are_registered() -> None:
    assert {"calculate", "http_request"} <= {known.name for known in registered()}


def test_a_registered_function_stays_a_function_and_takes_its_limits_along() -> None:
    @operation("resize", params=Size, max_retries=3, time_limit=60)
    def resize(width: int, height: int = 1) -> int:
        """Scales a picture.

        More.
        """
        return width * height

    known = lookup("resize")
    assert known is not None
    assert (known.summary, known.description) == ("Scales a picture.", "Scales a picture.\n\nMore.")
    assert (known.max_retries, known.time_limit) == (3, 60)
    assert resize(2, 3) == 6
    assert known.function(**known.check({"width": 2})) == 2


@pytest.mark.parametrize("text", ["4+7", ".5", "-1", "+1", "(1)"])
def test_an_expression_is_short_for_calculate(text: str) -> None:
    known, params = resolve(text, {})
    assert (known.name, params) == ("calculate", {"expression": text})


def test_a_name_takes_its_params() -> None:
    known, params = resolve("calculate", {"expression": "4+7"})
    assert (known.name, params) == ("calculate", {"expression": "4+7"})


@pytest.mark.parametrize(
    ("text", "params", "field"),
    [
        ("4+", {}, "operation"),
        ("4+7", {"expression": "1"}, "params"),
        ("nothing", {}, "operation"),
        ("Calculate", {}, "operation"),
        ("", {}, "operation"),
        ("calculate", {"expression": "4+"}, "params"),
        ("calculate", {}, "params"),
        ("calculate", {"expression": "1", "more": 1}, "params"),
        ("calculate", [], "params"),
    ],
)
def test_a_refusal_names_the_field(text: str, params: Any, field: str) -> None:
    assert list(refused(text, params)) == [field]


def test_a_refusal_names_the_field_within_params() -> None:
    assert refused("calculate", {"expression": "4+"})["params"]["expression"] == [
        "Expected a number or '(', found the end, at position 3."
    ]
    assert refused("4+", {})["operation"] == ["Expected a number or '(', found the end, at position 3."]


@pytest.mark.parametrize("name", ["", "Resize", "1st", "re-size", "a b", "a" * 65, "größe", "name\n"])
def test_a_name_of_another_form_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a name is a lower-case letter"):
        operation(name, params=Size)


@pytest.mark.parametrize(
    "limits", [{"max_retries": -1}, {"max_retries": 101}, {"time_limit": 0}, {"time_limit": 90_000}]
)
def test_a_limit_out_of_range_is_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"max_retries is 0 to 100|time_limit is up to 86400 seconds"):
        operation("resize", params=Size, **limits)


def test_a_name_that_is_taken_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'calculate' is already defined in actors\.calculate"):
        operation("calculate", params=Size)(lambda width, height=1: None)


async def asynchronous(width: int, height: int = 1) -> None: ...


@pytest.mark.parametrize(
    ("function", "params", "message"),
    [
        (lambda width, height=1: None, Size(), "params must be a marshmallow Schema class"),
        (lambda width, height=1: None, dict, "params must be a marshmallow Schema class"),
        (asynchronous, Size, "must be a plain function, not async"),
        (lambda width: None, Size, "unexpected keyword argument 'height', when Size gives width, height"),
        (lambda width, height: None, Size, "missing a required argument: 'height', when Size gives width"),
        (lambda: None, Size, "unexpected keyword argument 'width', when Size gives width"),
    ],
)
def test_a_function_that_does_not_fit_its_schema_is_refused(
    function: Callable[..., Any], params: Any, message: str
) -> None:
    with pytest.raises(ValueError, match="operation 'resize'") as error:
        operation("resize", params=params)(function)
    assert message in str(error.value)


def test_a_module_that_is_not_there_is_named_with_its_setting() -> None:
    with pytest.raises(SettingsError, match=r"BACKBEAT_OPERATIONS: .*'no_such_module'"):
        operations.load(["actors", "no_such_module"])


def test_the_current_task_is_that_of_the_context() -> None:
    class Running:
        task_id, attempt = 17, 2

    with pytest.raises(RuntimeError, match="no task is running here"):
        _ = current_task.task_id
    token = running_task.set(Running())
    assert (current_task.task_id, current_task.attempt) == (17, 2)
    running_task.reset(token)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_parameter_of_a_shipped_operation_has_a_description_and_a_valid_example(name: str) -> None:
    known = lookup(name)
    assert known is not None
    schema = json_schema(known)
    for field in schema["properties"].values():
        assert field["description"]
        jsonschema_rs.validator_for(field).validate(field["example"])


def test_an_operation_goes_out_with_the_json_schema_of_its_params() -> None:
    class Picture(Schema):
        sizes = fields.List(fields.Nested(Size), required=True)

    operation("resize", params=Picture)(lambda sizes: None)
    known = lookup("resize")
    assert known is not None
    validator = jsonschema_rs.validator_for(json_schema(known))
    assert validator.is_valid({"sizes": [{"width": 1}]})
    assert not validator.is_valid({"sizes": [{"height": 1}]})
    assert not validator.is_valid({"sizes": [], "more": 1})
