"""Fields that are stricter than marshmallow's own, and the parts that several resources share."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType, NoneType
from typing import Any

from marshmallow import ValidationError, fields, validate, validates_schema
from marshmallow.utils import get_value

from scheduler_app.config import PRIORITIES
from scheduler_app.operations import MAX_FACTOR, MAX_PAUSE, MAX_RETRIES, USUAL, USUAL_PAUSES
from scheduler_app.schemas.base import WRITTEN_AS_IS, AnswerSchema, QuerySchema, RequestSchema

MAX_PARAMS = 65_536  # characters of JSON
MAX_LABELS = 8
MAX_LABEL = 100  # characters of a value
LABEL_NAME = "[A-Za-z0-9_.-]{1,32}"
LABEL_VALUE = r"[^\u0000-\u001f\u007f]{1,100}"
MAX_ID = 2**63 - 1
MAX_VALUES = 10  # of a field that takes several
FACTOR = (
    "After attempt n the next one waits for a random time, evenly from `min_seconds` to `min_seconds * factor ** n`,"
    " and to `max_seconds` at most."
)
YEAR = 366 * 86_400  # seconds
YEARS = range(1970, 3000)
WITHIN_YEARS = r"^(19[789]|2\d\d)\d-"


class Time(fields.AwareDateTime):
    """ISO 8601 with an offset; UTC with Z on the way out."""

    default_error_messages = {  # noqa: RUF012 (marshmallow's own way)
        "invalid": "Not a time in ISO 8601, such as 2030-01-31T12:00:00Z.",
        "invalid_awareness": "Needs an offset, such as Z or +02:00.",
        "year": f"The year must be from {YEARS.start} to {YEARS.stop - 1}.",
    }

    def __init__(self, *, metadata: Mapping[str, Any] = MappingProxyType({}), **kwargs: Any) -> None:
        super().__init__(format="iso", metadata={"pattern": WITHIN_YEARS, **metadata}, **kwargs)

    def _serialize(self, value: datetime | None, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else value.astimezone(UTC).isoformat().replace("+00:00", "Z")

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> datetime:
        # A '+' that was not escaped in a query string arrives as a space.
        text = value.replace(" ", "+") if isinstance(value, str) and "T" in value else value
        time = super()._deserialize(text, attr, data, **kwargs)
        if time.year not in YEARS:
            raise self.make_error("year")
        return time.astimezone(UTC)


WRITTEN_AS_IS[Time] = (NoneType,)


class Number(fields.Integer):
    """A whole number, as text in a query."""

    def __init__(self, low: int, high: int, **kwargs: Any) -> None:
        allowed = f"Must be a whole number from {low} to {high}."
        super().__init__(
            validate=validate.Range(low, high, error=allowed), error_messages={"invalid": allowed}, **kwargs
        )


class WholeNumber(Number):
    """A JSON number without fraction: neither "7" nor true. 7.0 is one, as JSON Schema has it."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        if type(value) is float and value.is_integer():
            return int(value)
        if type(value) is not int:
            raise self.make_error("invalid")
        return value


class Amount(fields.Float):
    """A JSON number: neither "7" nor true."""

    def __init__(self, low: float, high: float, **kwargs: Any) -> None:
        allowed = f"Must be a number from {low:g} to {high}."
        super().__init__(
            validate=validate.Range(low, high, error=allowed),
            error_messages={"invalid": allowed, "special": allowed, "too_large": allowed},
            **kwargs,
        )

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> float:
        if type(value) not in (int, float):
            raise self.make_error("invalid")
        number = float(super()._deserialize(value, attr, data, **kwargs))
        return int(number) if number.is_integer() else number


class Switch(fields.Boolean):
    """On or off."""

    default_error_messages = {"invalid": "Must be true or false."}  # noqa: RUF012


class Flag(Switch):
    """JSON's true or false, and nothing that only looks like it: neither "no" nor 0."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> bool:
        if type(value) is not bool:
            raise self.make_error("invalid")
        return value


class Ids(fields.List[int]):
    """A list of ids. Its length is checked first, so that a long list costs nothing."""

    def __init__(self, most: int, *, metadata: dict[str, Any]) -> None:
        self.most = most
        super().__init__(WholeNumber(1, MAX_ID), metadata=metadata | {"minItems": 1, "maxItems": most})

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[Any]:
        if isinstance(value, list) and not 1 <= len(value) <= self.most:
            raise ValidationError(f"1 to {self.most:,} ids.")
        return super()._deserialize(value, attr, data, **kwargs)


class Labels(fields.Dict):
    """Up to MAX_LABELS names with a text each; None when there are none."""

    def __init__(self, *, metadata: dict[str, Any]) -> None:
        text = {"type": "string", "minLength": 1, "maxLength": MAX_LABEL, "pattern": rf"^{LABEL_VALUE}$"}
        names = {"pattern": rf"^{LABEL_NAME}$"}
        shape = {"maxProperties": MAX_LABELS, "propertyNames": names, "additionalProperties": text}
        super().__init__(allow_none=True, metadata=metadata | shape)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        given: Any = super()._deserialize(value, attr, data, **kwargs)  # type: ignore[no-untyped-call]
        if len(given) > MAX_LABELS:
            raise ValidationError(f"At most {MAX_LABELS} labels.")
        errors = {name: wrong for name, text in given.items() if (wrong := _wrong_label(name, text))}
        if errors:
            raise ValidationError(errors)
        return given or None


def _wrong_label(name: Any, text: Any) -> list[str]:
    if not isinstance(name, str) or not re.fullmatch(LABEL_NAME, name):
        return ["A name is 1 to 32 of A-Z, a-z, 0-9, '_', '.' and '-'."]
    if not isinstance(text, str) or not re.fullmatch(LABEL_VALUE, text):
        return [f"Must be a string of 1 to {MAX_LABEL} characters, none of them a control character."]
    return []


def labels_field() -> Labels:
    description = f"Up to {MAX_LABELS} names with a value each, by which it is found: `GET /tasks/?label=order:17`."
    return Labels(metadata={"description": description, "example": {"order": "17"}})


class LabelsOf(fields.Dict):
    """The labels of a row; {} for none."""

    def __init__(self) -> None:
        super().__init__(
            keys=fields.String(),
            values=fields.String(),
            metadata={"description": "By which it is found.", "example": {"order": "17"}},
        )

    def _serialize(self, value: Any, attr: Any, obj: Any, **kwargs: Any) -> dict[str, str]:
        return value or {}


def label_texts() -> dict[str, Any]:
    """How `repeatable` and `one_or_more` describe labels as conditions."""
    pattern = f"{LABEL_NAME}:{LABEL_VALUE}"
    wrong = "Must be a name and a value with a colon between, such as order:17."
    inner = fields.String(validate=validate.Regexp(rf"\A{pattern}\Z", error=wrong))
    said = "Only tasks with this label, such as `order:17`; with all of them, if there are several."
    return {"inner": inner, "of": {"type": "string", "pattern": f"^{pattern}$"}, "description": said}


class Params(fields.Dict):
    """A JSON object of bounded size."""

    default_error_messages = {"size": f"At most {MAX_PARAMS} characters of JSON."}  # noqa: RUF012

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> dict[str, Any]:
        params: dict[str, Any] = super()._deserialize(value, attr, data, **kwargs)  # type: ignore[no-untyped-call]
        if params and len(json.dumps(params)) > MAX_PARAMS:
            raise self.make_error("size")
        return params


def operation_field(**kwargs: Any) -> fields.String:
    description = (
        "The name of an operation (see `GET /operations/`), or an arithmetic expression, short for `calculate`."
    )
    metadata = {"description": description, "example": "4+7", "pattern": r"^[a-z0-9.+\-(]"}
    return fields.String(validate=validate.Length(1, 1_000), metadata=metadata, **kwargs)


def params_field(**kwargs: Any) -> Params:
    metadata = {"description": "The operation's parameters, as its schema describes them.", "example": {}}
    return Params(keys=fields.String(), metadata=metadata, **kwargs)


def priority_field(**kwargs: Any) -> WholeNumber:
    metadata = {"description": "0 is the most urgent, 9 the least.", "example": 5}
    return WholeNumber(PRIORITIES[0], PRIORITIES[-1], metadata=metadata, **kwargs)


def max_retries_field(**kwargs: Any) -> WholeNumber:
    metadata = {"description": "Attempts after the first. Without it, the operation's own number counts.", "example": 5}
    return WholeNumber(0, MAX_RETRIES, metadata=metadata, **kwargs)


def expires_in_field() -> WholeNumber:
    description = "Seconds: what has not begun so long after it was due ends as EXPIRED."
    return WholeNumber(1, YEAR, allow_none=True, metadata={"description": description, "example": 3_600})


class RetryRequest(RequestSchema):
    """How often it is tried again, and after which pauses. What is not given, the operation says."""

    max_retries = max_retries_field()
    min_seconds = Amount(1, MAX_PAUSE, metadata={"description": "The shortest pause.", "example": 10})
    max_seconds = Amount(1, MAX_PAUSE, metadata={"description": "The longest pause.", "example": 3_600})
    factor = Amount(1, MAX_FACTOR, metadata={"description": FACTOR, "example": 3})

    @validates_schema
    def check_pauses(self, data: dict[str, Any], **_: Any) -> None:
        if data.get("max_seconds", MAX_PAUSE) < data.get("min_seconds", 0):
            raise ValidationError({"max_seconds": ["Must not be less than min_seconds."]})


def retry_field() -> fields.Nested:
    description = "How often it is tried again, and after which pauses. What is not given, the operation says."
    return fields.Nested(RetryRequest, allow_none=True, metadata={"description": description})


def wrong_retries(data: dict[str, Any]) -> dict[str, Any]:
    """The errors when a request gives the number of retries twice."""
    if "max_retries" in (data.get("retry") or {}) and data.get("max_retries") is not None:
        return {"max_retries": ["Not allowed beside retry.max_retries, which is the same."]}
    return {}


class RetryOut(AnswerSchema):
    """How often it is tried again, and after which pauses."""

    max_retries = fields.Integer(metadata={"description": "Attempts after the first.", "example": USUAL.max_retries})
    min_seconds = fields.Float(metadata={"description": "The shortest pause.", "example": USUAL.min_seconds})
    max_seconds = fields.Float(metadata={"description": "The longest pause.", "example": USUAL.max_seconds})
    factor = fields.Float(metadata={"description": FACTOR, "example": USUAL.factor})


class RetryOf(fields.Nested):
    """The `retry` of a row with the columns `max_retries` and `retry`."""

    def __init__(self) -> None:
        super().__init__(RetryOut, dump_only=True)

    def _serialize(self, value: Any, attr: Any, obj: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        return {"max_retries": get_value(obj, "max_retries")} | (value or USUAL_PAUSES)


class OneOrMore(fields.Field[list[Any]]):
    """One value or a list of them; a list when loaded. In a query the parameter is repeated."""

    is_multiple = True  # webargs then gives all values of a query parameter

    def __init__(self, inner: fields.Field[Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inner = inner

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[Any]:
        values = value if isinstance(value, list) else [value]
        if not 1 <= len(values) <= MAX_VALUES:
            raise ValidationError(f"1 to {MAX_VALUES} values.")
        return [self.inner.deserialize(one, attr, data, **kwargs) for one in values]


def one_or_more(inner: fields.Field[Any], *, of: dict[str, Any], description: str) -> OneOrMore:
    """For a body; `of` is the JSON Schema of one value."""
    several = {"type": "array", "items": of, "minItems": 1, "maxItems": MAX_VALUES}
    return OneOrMore(inner, metadata={"description": f"{description} One, or a list.", "anyOf": [of, several]})


def repeatable(inner: fields.Field[Any], *, of: dict[str, Any], description: str) -> OneOrMore:
    """For a query; `of` is the JSON Schema of one value."""
    several = {"type": "array", "items": of, "minItems": 1, "maxItems": MAX_VALUES}
    return OneOrMore(inner, metadata={"description": f"{description} May be repeated.", **several})


class PageQuery(QuerySchema):
    """Which page of a list."""

    limit = Number(1, 200, load_default=50, metadata={"description": "Rows a page."})
    cursor = Number(
        1,
        MAX_ID,
        metadata={"description": 'Where the page begins: take it from the `Link` header with `rel="next"`.'},
    )
