"""A form from a schema, and back."""

import enum
from typing import Any

import pytest
from marshmallow import INCLUDE, Schema, ValidationError, fields, validate

from scheduler_app.dashboard import forms
from scheduler_app.dashboard.forms import Unreadable


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Address(Schema):
    street = fields.String(required=True)
    number = fields.Integer()


class Everything(Schema):
    text = fields.String(required=True, metadata={"description": "Some words.", "title": "The text"})
    essay = fields.String(validate=validate.Length(max=5_000))
    url = fields.String(validate=validate.Length(max=5_000))
    whole = fields.Integer(load_default=7)
    real = fields.Float()
    yes = fields.Boolean()
    size = fields.String(validate=validate.OneOf(["s", "m"], labels=["small"]))
    colour = fields.Enum(Colour)
    shops = fields.List(fields.Integer())
    lines = fields.List(fields.String())
    at = fields.AwareDateTime()
    address = fields.Nested(Address)
    addresses = fields.List(fields.Nested(Address))
    anything = fields.Raw(allow_none=True)
    table = fields.Dict()


class Open(Schema):
    class Meta:
        unknown = INCLUDE

    text = fields.String()


VALUES: list[dict[str, Any]] = [
    {"text": "hello"},
    {"text": "two\nlines", "essay": "x" * 300},
    {"text": " spaces ", "whole": 12345678901234567890, "real": 0.5, "yes": False, "size": "m", "colour": "BLUE"},
    {"text": "a", "shops": [1, 2, 3], "lines": ["one, two", "three"], "at": "2030-01-01T00:00:00Z"},
    {"text": "a", "address": {"street": "Main", "number": 3}, "addresses": [{"street": "x"}]},
    {"text": "a", "anything": None, "table": {"a": [1, {}]}},
    # What the usual input could not say.
    {"text": "", "shops": [], "lines": ["", "a\nb"], "essay": "", "real": None},
    {"text": "carriage\rreturn", "essay": "\r\n", "lines": [], "size": "xl", "yes": None, "whole": "7"},
    {"text": 7, "address": None, "shops": "1, 2", "at": 3, "colour": "GREEN", "unknown": {"x": 1}},
    {"text": "<b>\u202egnp.exe</b>", "anything": "null", "table": {}},
]


def posted(inputs: list[forms.Input]) -> dict[str, str]:
    """What a browser would send."""
    sent: dict[str, str] = {}
    for one in inputs:
        sent |= posted(one.inner) if one.kind == "group" else {one.name: one.value.replace("\n", "\r\n")}
    return sent


@pytest.mark.parametrize("values", VALUES)
def test_a_form_reads_back_as_what_it_was_filled_with(values: dict[str, Any]) -> None:
    shown = forms.inputs(Everything, values, prefix="params.")
    assert forms.read(Everything, posted(shown), prefix="params.") == values
    again = forms.inputs(Everything, prefix="params.", posted=posted(shown))
    assert forms.read(Everything, posted(again), prefix="params.") == values


def kinds(schema: type[Schema]) -> dict[str, str]:
    return {one.label: one.kind for one in forms.inputs(schema)}


def test_each_field_has_the_input_that_fits() -> None:
    assert kinds(Everything) == {
        "The text": "text",
        "essay": "long",
        "url": "text",
        "whole": "number",
        "real": "number",
        "yes": "choice",
        "size": "choice",
        "colour": "choice",
        "shops": "text",
        "lines": "lines",
        "at": "text",
        "address": "group",
        "addresses": "json",
        "anything": "json",
        "table": "json",
    }
    by_label = {one.label: one for one in forms.inputs(Everything)}
    assert (by_label["The text"].required, by_label["The text"].hint) == (True, "Some words.")
    assert by_label["whole"].default == "7"
    assert by_label["size"].choices == [("s", "small"), ("m", "m")]
    assert [one.name for one in by_label["address"].inner] == ["address.street", "address.number"]


def test_a_schema_that_takes_more_has_an_input_for_it() -> None:
    assert kinds(Open) == {"text": "text", "Other parameters": "json"}
    values = {"text": "a", "more": [1]}
    assert forms.read(Open, posted(forms.inputs(Open, values))) == values


@pytest.mark.parametrize(
    ("sent", "field", "says"),
    [
        ({"whole": "seven"}, "whole", "Not a number."),
        ({"whole": "NaN"}, "whole", "Not a number."),
        ({"shops": "1, x"}, "shops", "Not a number."),
        ({"table:json": "{"}, "table", "Not JSON"),
        ({"table:json": "[Infinity]"}, "table", "Infinity is no JSON number"),
        ({"table:json": "[" * 10_000}, "table", "recursion"),
        ({"essay": "x" * 70_000}, "essay", "At most 65,536 characters."),
        ({"*:json": "[1]"}, "*", "Must be a JSON object."),
    ],
)
def test_what_cannot_be_read_is_said_at_its_field(sent: dict[str, str], field: str, says: str) -> None:
    with pytest.raises(Unreadable) as caught:
        forms.read(Open if field == "*" else Everything, {"text": "a"} | sent)
    assert says in caught.value.messages_dict[field][0]
    shown = forms.inputs(Everything, posted=sent, errors=caught.value.messages_dict)
    assert field == "*" or [one.value for one in shown if one.errors] == [next(iter(sent.values()))[: forms.MOST + 1]]


def test_errors_of_a_schema_stand_at_their_inputs() -> None:
    sent = {"text": "a", "address.number": "3", "shops": "1", "addresses:json": '[{"street": 1}]', "size": "xl"}
    with pytest.raises(ValidationError) as caught:
        Everything().load(forms.read(Everything, sent))
    shown = {one.label: one for one in forms.inputs(Everything, posted=sent, errors=caught.value.messages_dict)}
    assert shown["addresses"].errors == ["Number 1: street: Not a valid string."]
    assert shown["address"].inner[0].errors == ["Missing data for required field."]
    assert shown["size"].errors == ["Must be one of: s, m."]


def test_a_schema_of_forty_fields_makes_forty_inputs() -> None:
    many = Schema.from_dict({f"p{number}": fields.Integer(required=True) for number in range(40)})
    shown = forms.inputs(many)
    assert len(shown) == len({one.key for one in shown}) == 40
    assert forms.read(many, {one.name: "1" for one in shown}) == {f"p{number}": 1 for number in range(40)}


def test_nested_groups_end_at_some_depth() -> None:
    class Tree(Schema):
        child = fields.Nested(lambda: Tree)

    shown = forms.inputs(Tree)
    assert shown[0].inner[0].inner[0].kind == "json"
