"""How often something is tried again, and after which pauses, in requests and answers."""

from typing import Any

from marshmallow import ValidationError, fields, validates_schema
from marshmallow.utils import get_value

from scheduler_app.operations import MAX_FACTOR, MAX_PAUSE, USUAL, USUAL_PAUSES
from scheduler_app.schemas.base import AnswerSchema, RequestSchema
from scheduler_app.schemas.fields import Amount, max_retries_field

FACTOR = (
    "After attempt n the next one waits for a random time, evenly from `min_seconds` to `min_seconds * factor ** n`,"
    " and to `max_seconds` at most."
)


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
