"""What is loaded quickly is what marshmallow would load."""

from typing import Any

import pytest
from marshmallow import (
    EXCLUDE,
    INCLUDE,
    Schema,
    ValidationError,
    fields,
    post_load,
    pre_load,
    validate,
    validates,
    validates_schema,
)

from scheduler_app.loading import loader


class Plain(Schema):
    width = fields.Integer(required=True, validate=[validate.Range(1, 9), validate.OneOf([1, 2, 3])])
    height = fields.Integer(data_key="high", attribute="tall", load_default=4, allow_none=True)
    tags = fields.List(fields.String(), load_default=list)
    inner = fields.Nested({"a": fields.Integer(required=True), "b": fields.Integer(load_default=2)})
    shown = fields.String(dump_only=True)


class Hooked(Plain):
    @validates_schema(pass_original=True)
    def check_size(self, data: Any, original: Any, **how: Any) -> None:
        if original["width"] == data["tall"]:
            raise ValidationError({"width": [str(how)]})

    @post_load(pass_original=True)
    def keep_original(self, data: Any, original: Any, **how: Any) -> Any:
        return data | {"original": original, "how": how}


class HookedBefore(Plain):
    @pre_load
    def double(self, data: Any, **_: Any) -> Any:
        return data | {"width": 2 * data["width"]}


class HookedAtField(Plain):
    @validates("width")
    def check_width(self, value: int, data_key: str) -> None:
        raise ValidationError("Never.")


class HookedAtAll(Plain):
    @post_load(pass_collection=True)
    def wrap(self, data: Any, many: bool, **_: Any) -> Any:
        return {"data": data, "many": many}


class TakesMore(Plain):
    class Meta:
        unknown = INCLUDE


class Inside(Plain):
    deep = fields.Integer(attribute="a.b")


class OwnWay(Plain):
    def load(self, data: Any, **options: Any) -> Any:
        return "own"


class Never(fields.Integer):
    def _validate(self, value: Any) -> None:
        raise ValidationError("Never.")


class OwnFields(Plain):
    doubled = fields.Integer(pre_load=lambda value: 2 * value, post_load=lambda value: value + 1)
    never = Never()


SCHEMAS = [
    *(
        kind()
        for kind in (Plain, Hooked, HookedBefore, HookedAtField, HookedAtAll, TakesMore, Inside, OwnWay, OwnFields)
    ),
    *(Hooked(many=True), Plain(partial=True), Plain(unknown=EXCLUDE), Plain(only=["width"])),
]
VALID = {"width": 3}
GIVEN: list[Any] = [
    *(VALID | more for more in ({}, {"high": None}, {"high": 5, "tags": ["x"]}, {"inner": {"a": 1}}, {"deep": 1})),
    *(VALID | more for more in ({"doubled": 2}, {"high": 3}, {"width": 4}, {"width": 0}, {"width": None}, {"tall": 1})),
    *(VALID | more for more in ({"inner": {}}, {"inner": {"c": 1}}, {"shown": "x"}, {"never": 1}, {"tags": ["x", 1]})),
    *({}, [], [VALID], None, "x", 7),
]


def outcome(load: Any, given: Any) -> tuple[str, Any]:
    try:
        return "loaded", load(given)
    except ValidationError as error:
        return "refused", error.messages
    except Exception as error:
        return "failed", repr(error)


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: type(schema).__name__)
@pytest.mark.parametrize("given", GIVEN, ids=str)
def test_it_loads_and_refuses_as_marshmallow_does(schema: Schema, given: Any) -> None:
    assert outcome(loader(schema), given) == outcome(schema.load, given)


def test_a_default_is_made_for_each() -> None:
    load = loader(Plain())
    load(VALID)["tags"].append("x")
    assert load(VALID)["tags"] == []


def test_an_error_is_not_told_as_one_that_came_while_another_was_handled() -> None:
    with pytest.raises(ValidationError) as found:
        loader(Plain())({})
    assert found.value.__context__ is None
