"""A file of schedules, as `flask schedules apply` reads it."""

from collections import Counter
from typing import Any

from marshmallow import ValidationError, fields, validate, validates_schema

from scheduler_app.schemas.base import RequestSchema
from scheduler_app.schemas.task_schedules import NO_NUL, TaskScheduleRequest


class NamedSchedule(TaskScheduleRequest):
    """A schedule in a file."""

    name = fields.String(required=True, validate=[validate.Length(1, 200), NO_NUL])


class ScheduleFile(RequestSchema):
    """All schedules of an owner."""

    owner = fields.String(
        required=True,
        validate=validate.Regexp(r"\A[A-Za-z0-9_.-]{1,64}\Z", error="1 to 64 of A-Z, a-z, 0-9, '_', '.' and '-'."),
    )
    schedules = fields.List(fields.Nested(NamedSchedule), required=True)

    @validates_schema
    def check_names(self, data: dict[str, Any], **_: Any) -> None:
        twice = [name for name, count in Counter(one["name"] for one in data["schedules"]).items() if count > 1]
        if twice:
            raise ValidationError({"schedules": [f"Named more than once: {', '.join(map(repr, twice))}."]})
