"""The key of which there is only one task at a time, in requests and answers."""

from typing import Any

from marshmallow import ValidationError, fields, validate

from scheduler_app.schemas.base import AnswerSchema, RequestSchema
from scheduler_app.schemas.fields import YEAR
from scheduler_app.services import unique


class Until(fields.Field[Any]):
    """One of services.unique.Until, or a number of seconds."""

    allowed = (
        f"Must be {', '.join(repr(one.value) for one in unique.Until)} or a whole number of seconds from 1 to {YEAR}."
    )

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str | int:
        if isinstance(value, str) and value in list(unique.Until):
            return value
        if type(value) in (int, float) and value == int(value) and 1 <= value <= YEAR:
            return int(value)
        raise ValidationError(self.allowed)


UNIQUE_KEY = r"[^\u0000-\u001f\u007f]{1,200}"
IS_KEY = validate.Regexp(rf"\A{UNIQUE_KEY}\Z", error="1 to 200 characters, no control characters.")
UNTIL: list[dict[str, Any]] = [
    {"type": "string", "enum": [one.value for one in unique.Until]},
    {"type": "integer", "minimum": 1, "maximum": YEAR},
]


def unique_key_field() -> fields.String:
    """As a condition."""
    description = "The task that has this key of `unique`, or had it last; of `operation`, or of each without it."
    return fields.String(validate=IS_KEY, metadata={"description": description, "pattern": f"^{UNIQUE_KEY}$"})


class UniqueRequest(RequestSchema):
    """That there is only one such task at a time."""

    key = fields.String(
        required=True,
        validate=IS_KEY,
        metadata={
            "description": "Counts within the operation.",
            "example": "report-17",
            "pattern": f"^{UNIQUE_KEY}$",
        },
    )
    until = Until(
        load_default=unique.Until.FINISHED.value,
        metadata={
            "description": "How long the task keeps others out: until its first attempt has `begun`, until it has"
            " `finished`, or for so many seconds after it was posted.",
            "anyOf": UNTIL,
            "example": "finished",
        },
    )
    then = fields.String(
        load_default=unique.Then.KEEP.value,
        validate=validate.OneOf([one.value for one in unique.Then]),
        metadata={
            "description": "What another post with the key gets meanwhile. `keep`: 200 with the task that is there."
            " `replace`: the same, after that task was given the new `params`, `run_at` and time to expire; 409 if it"
            " has begun."
        },
    )


class UniqueOut(AnswerSchema):
    """By which key there is only one such task of the operation, and how long it keeps others out."""

    key = fields.String(metadata={"example": "report-17"})
    until = fields.Raw(metadata={"anyOf": UNTIL, "example": "finished"})
