"""Fields that are stricter than marshmallow's own, and the parts that several resources share."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType, NoneType
from typing import Any

from marshmallow import ValidationError, fields, validate

from scheduler_app.config import PRIORITIES
from scheduler_app.operations import MAX_RETRIES
from scheduler_app.schemas.base import WRITTEN_AS_IS, QuerySchema

MAX_PARAMS = 65_536  # characters of JSON
MAX_ID = 2**63 - 1
MAX_GROUP = 64  # characters
GROUP = r'[^"\\\u0000-\u001f\u007f]{1,64}'
MAX_VALUES = 10  # of a field that takes several
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
        return None if value is None else utc_text(value)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> datetime:
        # A '+' that was not escaped in a query string arrives as a space.
        text = value.replace(" ", "+") if isinstance(value, str) and "T" in value else value
        time = super()._deserialize(text, attr, data, **kwargs)
        if time.year not in YEARS:
            raise self.make_error("year")
        return time.astimezone(UTC)


WRITTEN_AS_IS[Time] = (NoneType,)


@lru_cache(maxsize=64)  # most tasks of a batch have the same times
def utc_text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


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


def group_field(description: str, *, allow_none: bool = False, **metadata: str) -> fields.String:
    wrong = f"1 to {MAX_GROUP} characters: no control character, no '\"' and no '\\'."
    return fields.String(
        allow_none=allow_none,
        validate=validate.Regexp(rf"\A{GROUP}\Z", error=wrong),
        metadata={"description": description, "pattern": f"^{GROUP}$"} | metadata,
    )


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
