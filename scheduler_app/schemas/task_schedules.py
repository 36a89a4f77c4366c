"""Task schedules, as they come in and go out."""

from typing import Any

from marshmallow import Schema, ValidationError, fields, post_load, validate

from scheduler_app.schemas.fields import (
    Time,
    WholeNumber,
    max_retries_field,
    operation_field,
    params_field,
    priority_field,
)
from scheduler_app.schemas.tasks import TaskOut, resolve_operation

MAX_DAYS = 3_660
MAX_TIMES = 2**31 - 1


class ScheduleFields(Schema):
    """What can be set when a schedule is created and changed later."""

    name = fields.String(
        allow_none=True,
        validate=[validate.Length(1, 200), validate.ContainsNoneOf("\0", error="Must not contain NUL.")],
        metadata={"description": "For people.", "example": "nightly report"},
    )
    every_x_days = WholeNumber(
        1, MAX_DAYS, allow_none=True, metadata={"description": "A day is 24 h. With every_x_hours, the longer counts."}
    )
    every_x_hours = WholeNumber(1, 24 * MAX_DAYS, allow_none=True, metadata={"example": 1})
    start_at = Time(allow_none=True, metadata={"description": "When the first task is due; at once when not given."})
    end_at = Time(allow_none=True, metadata={"description": "No task is due later than this."})
    schedule_x_times = WholeNumber(
        1, MAX_TIMES, allow_none=True, metadata={"description": "Tasks at most; no limit when null.", "example": 2}
    )


class TaskScheduleRequest(ScheduleFields):
    """A schedule to create."""

    operation = operation_field(required=True)
    params = params_field(load_default=dict)
    priority = priority_field(load_default=5)
    max_retries = max_retries_field(load_default=None, allow_none=True)

    @post_load
    def resolve(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        return resolve_operation(data)


class TaskScheduleChange(ScheduleFields):
    """What to change; what is not named stays."""

    operation = operation_field()
    params = params_field()
    priority = priority_field()
    max_retries = max_retries_field()

    @post_load
    def resolve(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        if "operation" not in data:
            if "params" in data:
                raise ValidationError({"operation": ["Needed when params change."]})
            return data
        given = set(data) | {"operation", "params"}
        resolved = resolve_operation({"params": {}, "max_retries": None} | data)
        return {name: value for name, value in resolved.items() if name in given}


class TaskScheduleOut(Schema):
    """A schedule and where it stands."""

    task_schedule_id = fields.Integer(metadata={"example": 3})
    name = fields.String(allow_none=True, metadata={"example": "nightly report"})
    operation = fields.String(metadata={"example": "calculate"})
    params = fields.Dict(metadata={"example": {"expression": "4+7"}})
    priority = fields.Integer(metadata={"example": 5})
    max_retries = fields.Integer(metadata={"example": 5})
    every_x_days = fields.Integer(allow_none=True)
    every_x_hours = fields.Integer(allow_none=True, metadata={"example": 1})
    start_at = Time(allow_none=True)
    end_at = Time(allow_none=True)
    schedule_x_times = fields.Integer(allow_none=True, metadata={"example": 2})
    times_scheduled = fields.Integer(metadata={"description": "Tasks created so far.", "example": 1})
    next_run_at = Time(allow_none=True, metadata={"description": "Null when it is over."})
    last_run_at = Time(allow_none=True, metadata={"description": "The latest time that became a task."})
    checked_scheduling_at = Time(allow_none=True, metadata={"description": "When the scheduler last acted on it."})
    created_at = Time()


class TaskScheduleDetailOut(TaskScheduleOut):
    """A schedule with its latest ten tasks, newest first."""

    tasks = fields.List(fields.Nested(TaskOut))
