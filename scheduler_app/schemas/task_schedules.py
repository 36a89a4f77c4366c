"""Task schedules, in requests and answers."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, ClassVar

from marshmallow import ValidationError, fields, post_load, validate, validates_schema

from scheduler_app import recurrence, rrule
from scheduler_app.clock_changes import Kind
from scheduler_app.models import CatchUp, LeftOut
from scheduler_app.schemas.base import AnswerSchema, QuerySchema, RequestSchema
from scheduler_app.schemas.callbacks import CallbackOf, callback_field
from scheduler_app.schemas.fields import (
    YEAR,
    Number,
    Switch,
    Time,
    WholeNumber,
    expires_in_field,
    group_field,
    max_retries_field,
    operation_field,
    params_field,
    priority_field,
)
from scheduler_app.schemas.labels import LabelsOf, labels_field
from scheduler_app.schemas.overlap import OverlapOf, overlap_columns, overlap_field
from scheduler_app.schemas.retries import RetryOf, retry_field
from scheduler_app.schemas.tasks import ListedTaskOut, OperationRequest, resolve_operation
from scheduler_app.services import task_schedules
from scheduler_app.spelling import LOOKED_AT, meant

MAX_DAYS = 3_660
MAX_TIMES = 2**31 - 1
MAX_JITTER = 86_400  # seconds
NO_NUL = validate.ContainsNoneOf("\0", error="Must not contain NUL.")
WITHOUT_NUL = {"pattern": r"^[^\u0000]*$"}  # the same as JSON Schema

CRON = (
    "Five fields: minute, hour, day of month, month, day of week (0 and 7 are Sunday). Either day may match."
    f" Or one of {', '.join(f'`{name}`' for name in recurrence.CRON_NAMES)}."
)
RRULE = "The text of an RFC 5545 rule, without `RRULE:`, counted from `start_at`."
JITTER = (
    "Seconds by which its tasks are due later, each by another part of it, so that not all begin at once. For one time"
    " it is the same in every scheduler."
)
CATCH_UP = (
    "For times that were missed by more than a minute while no scheduler ran: `latest` creates one task"
    " for the newest, `all` one for each, `none` nothing."
)


class LocalTime(fields.NaiveDateTime):
    """The time of a clock on a wall, without offset."""

    def __init__(self, metadata: dict[str, Any]) -> None:
        super().__init__(format="iso", metadata=metadata)


class WholeSecond(Time):
    """A fraction of a second is cut off."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> datetime:
        return super()._deserialize(value, attr, data, **kwargs).replace(microsecond=0)


def readable(read: Callable[[str], Any]) -> Callable[[str], None]:
    """A validator for text that `read` accepts. For other text `read` raises a ValueError that says what is allowed."""

    def check(text: str) -> None:
        try:
            read(text)
        except ValueError as error:
            raise ValidationError(str(error)) from None

    return check


class RuleFields(RequestSchema):
    """When tasks are due."""

    every_x_days = WholeNumber(
        1,
        MAX_DAYS,
        allow_none=True,
        metadata={"description": "A day is 24 h. Of several intervals the longest counts."},
    )
    every_x_hours = WholeNumber(
        1,
        24 * MAX_DAYS,
        allow_none=True,
        metadata={"description": "Exact hours, counted from `start_at`, without drift."},
    )
    every_x_minutes = WholeNumber(
        1, 1_440 * MAX_DAYS, allow_none=True, metadata={"description": "Exact minutes, in the same way."}
    )
    cron = fields.String(
        allow_none=True,
        validate=[validate.Length(1, 200), readable(recurrence.check_cron)],
        metadata={"description": CRON, "example": "30 7 * * MON-FRI"},
    )
    rrule = fields.String(
        allow_none=True,
        validate=[validate.Length(1, 500), readable(rrule.parse)],
        metadata={"description": RRULE, "example": "FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=17;BYMINUTE=0"},
    )
    timezone = fields.String(
        validate=[validate.Length(1, 64), readable(recurrence.zone)],
        metadata={
            "description": "IANA name of the zone whose clock cron and rrule follow. A local time that the change of"
            " the clocks leaves out fires at the gap's end; one that comes twice fires once.",
            "example": "Europe/Bucharest",
        },
    )
    start_at = WholeSecond(
        allow_none=True,
        metadata={"description": "No task is due earlier. Without it, the schedule starts now.", "example": None},
    )
    end_at = WholeSecond(allow_none=True, metadata={"description": "Nothing is due later.", "example": None})
    schedule_x_times = WholeNumber(
        1,
        MAX_TIMES,
        allow_none=True,
        metadata={"description": "How many tasks it creates at most; null for no limit.", "example": 2},
    )


def given(*names: str) -> dict[str, Any]:
    """JSON Schema: at least one of these is there, and is not null."""
    return {"anyOf": [{"required": [name], "properties": {name: {"not": {"type": "null"}}}} for name in names]}


class OneRule(RequestSchema):
    """A complete rule. It is checked as a whole, even when other fields have errors."""

    together: ClassVar[dict[str, Any]] = {
        "oneOf": [given("every_x_days", "every_x_hours", "every_x_minutes"), given("cron"), given("rrule")]
    }

    @validates_schema(pass_original=True, skip_on_field_errors=False)
    def check_rule(self, data: dict[str, Any], original: Any, **_: Any) -> None:
        if not isinstance(original, dict):
            return
        given = [name for name, value in original.items() if value is not None]
        misspelt = [name for name in given if name not in self.load_fields][:LOOKED_AT]
        errors = task_schedules.wrong_kind({*given, *(meant(name, self.load_fields) for name in misspelt)})
        errors |= task_schedules.wrong_period(data.get("start_at"), data.get("end_at"))
        if errors:
            raise ValidationError(errors)


class RuleRequest(OneRule, RuleFields):
    """When tasks are due. Exactly one kind of rule: one or several of every_x_…, or cron, or rrule."""


class ScheduleFields(RuleFields):
    """The fields that can be set when a schedule is created, and changed later."""

    name = fields.String(
        allow_none=True,
        validate=[validate.Length(1, 200), NO_NUL],
        metadata={"description": "For people. No two have the same.", "example": "nightly report"} | WITHOUT_NUL,
    )
    overlap = overlap_field()
    jitter = WholeNumber(0, MAX_JITTER, metadata={"description": JITTER, "example": 30})
    catch_up = fields.String(
        validate=validate.OneOf([choice.value for choice in CatchUp]), metadata={"description": CATCH_UP}
    )
    catch_up_window = WholeNumber(
        60, YEAR, metadata={"description": "Seconds: times missed by more are not caught up.", "example": 86_400}
    )
    expires_in = expires_in_field()
    labels = labels_field()
    group = group_field("The group of its tasks.", allow_none=True)
    callback = callback_field()
    pause_on_failure = Switch(
        truthy={True}, falsy={False}, metadata={"description": "Pause when a task of it ends in ERROR."}
    )


class TaskScheduleRequest(OneRule, OperationRequest, ScheduleFields):
    """A schedule to create."""

    operation = operation_field(required=True)
    params = params_field(load_default=dict)
    priority = priority_field(load_default=5)
    max_retries = max_retries_field(load_default=None, allow_none=True)
    retry = retry_field()

    @post_load
    def resolve(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        return resolve_operation(overlap_columns(data))


class TaskScheduleChange(OperationRequest, ScheduleFields):
    """The fields to change. The others stay."""

    together: ClassVar[dict[str, Any]] = {"dependentRequired": {"params": ["operation"]}}

    operation = operation_field()
    params = params_field()
    priority = priority_field()
    max_retries = max_retries_field()
    retry = retry_field()

    @validates_schema(pass_original=True, skip_on_field_errors=False)
    def check_params_have_operation(self, data: dict[str, Any], original: Any, **_: Any) -> None:
        if "params" in data and "operation" not in original:
            raise ValidationError({"operation": ["Needed when params change."]})

    @post_load
    def resolve(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        data = overlap_columns(data)
        if "operation" not in data:
            return data
        given = set(data) | {"operation", "params"}
        resolved = resolve_operation({"params": {}, "max_retries": None} | data)
        # The service resolves it, see services/retries.py.
        as_given = {"retry": data["retry"]} if "retry" in data else {}
        return {name: value for name, value in resolved.items() if name in given} | as_given


class PauseRequest(RequestSchema):
    """Nothing, or why."""

    is_optional = True
    note = fields.String(
        load_default=None,
        allow_none=True,
        validate=[validate.Length(1, 500), NO_NUL],
        metadata={"description": "Why, for people.", "example": "the warehouse is being moved"} | WITHOUT_NUL,
    )


class UpcomingQuery(QuerySchema):
    """Which of the next times."""

    limit = Number(1, 200, load_default=10, metadata={"description": "Times at most."})
    after = Time(
        load_default=None, metadata={"description": "Only times later than this. Without it, times later than now."}
    )


class BackfillRequest(RequestSchema):
    """A period of the past: `start` belongs to it, `end` does not."""

    start = Time(required=True, metadata={"example": "2026-01-01T00:00:00Z"})
    end = Time(required=True, metadata={"example": "2026-01-08T00:00:00Z"})


class ClockChangeOut(AnswerSchema):
    """How a change of the clocks moves or repeats a time. The times here are those of the rule's zone."""

    kind = fields.String(
        metadata={
            "enum": [kind.value for kind in Kind],
            "description": "`gap`: the clock never shows the time that the rule names, so it fires at the gap's end."
            " `repeated_once`: the clock shows it twice, and it fires the first time. `repeated_twice`: it fires both"
            " times, since the rule runs through the day.",
            "example": "gap",
        }
    )
    named = LocalTime(metadata={"description": "What the rule names.", "example": "2030-03-31T03:30:00"})
    clock_from = LocalTime(metadata={"description": "From where the clock changes …", "example": "2030-03-31T03:00:00"})
    clock_to = LocalTime(metadata={"description": "… to where.", "example": "2030-03-31T04:00:00"})


class UpcomingOut(AnswerSchema):
    """A time of a rule."""

    utc = Time(metadata={"example": "2030-03-31T01:00:00Z"})
    local = fields.DateTime(
        format="iso", metadata={"description": "In the rule's zone.", "example": "2030-03-31T04:00:00+03:00"}
    )
    clock_change = fields.Nested(
        ClockChangeOut, allow_none=True, metadata={"description": "null: no change of the clocks matters to it."}
    )
    run_at = Time(
        metadata={
            "description": "When its task is due: later than `utc` by this time's part of the schedule's `jitter`.",
            "example": "2030-03-31T01:00:00Z",
        }
    )


class TaskScheduleOut(AnswerSchema):
    """A schedule and its current state."""

    task_schedule_id = fields.Integer(metadata={"example": 3})
    name = fields.String(allow_none=True, metadata={"example": "nightly report"})
    operation = fields.String(metadata={"example": "calculate"})
    params = fields.Dict(metadata={"example": {"expression": "4+7"}})
    priority = fields.Integer(metadata={"example": 5})
    max_retries = fields.Integer(metadata={"example": 5})
    retry = RetryOf()
    labels = LabelsOf()
    group = fields.String(allow_none=True, metadata={"description": "The group of its tasks.", "example": None})
    callback = CallbackOf()
    expires_in = fields.Integer(
        allow_none=True, metadata={"description": "Seconds in which a task must begin.", "example": None}
    )
    every_x_days = fields.Integer(allow_none=True)
    every_x_hours = fields.Integer(allow_none=True, metadata={"example": 1})
    every_x_minutes = fields.Integer(allow_none=True)
    cron = fields.String(allow_none=True)
    rrule = fields.String(allow_none=True)
    timezone = fields.String(metadata={"example": "UTC"})
    start_at = Time(allow_none=True)
    end_at = Time(allow_none=True)
    schedule_x_times = fields.Integer(allow_none=True, metadata={"example": 2})
    times_scheduled = fields.Integer(
        metadata={"description": "Tasks created so far, without those of triggers and backfills.", "example": 1}
    )
    overlap = OverlapOf()
    jitter = fields.Integer(metadata={"description": JITTER, "example": 0})
    catch_up = fields.String(metadata={"enum": [choice.value for choice in CatchUp], "example": "latest"})
    catch_up_window = fields.Integer(metadata={"description": "Seconds.", "example": 86_400})
    pause_on_failure = Switch(metadata={"example": False})
    paused = fields.Boolean(metadata={"example": False})
    pause_note = fields.String(allow_none=True, metadata={"description": "Why it is paused."})
    next_run_at = Time(
        allow_none=True, metadata={"description": "The next time it fires; null when it has ended or is paused."}
    )
    last_run_at = Time(allow_none=True, metadata={"description": "The latest time that became a task."})
    checked_scheduling_at = Time(allow_none=True, metadata={"description": "When the scheduler last acted on it."})
    missed = fields.Integer(metadata={"description": "Times left out because they were late.", "example": 0})
    skipped = fields.Integer(metadata={"description": "Times left out because of `overlap`.", "example": 0})
    owner = fields.String(
        allow_none=True,
        metadata={"description": "Whose file names it, see `flask schedules apply`; null: nobody's.", "example": None},
    )
    created_at = Time()
    created_by = fields.String(
        allow_none=True, metadata={"description": "Name of the key that created it.", "example": "shop"}
    )


class LeftOutOut(AnswerSchema):
    """A time that got no task, or several in a row that got none for the same reason."""

    scheduled_for = Time(metadata={"description": "The first of them.", "example": "2030-07-01T04:30:00Z"})
    last_for = Time(metadata={"description": "The last of them.", "example": "2030-07-01T04:30:00Z"})
    times = fields.Integer(
        metadata={
            "description": f"How many. Of a pause and of a change {task_schedules.COUNTED:,} are counted at most;"
            " `last_for` is then its end.",
            "example": 1,
        }
    )
    reason = fields.String(
        metadata={
            "enum": [reason.value for reason in LeftOut],
            "description": "`superseded`: missed, as was a newer time. `too_late`: missed by more than"
            " `catch_up_window`, or at all with `catch_up: none`. `overlap`: a task had not finished. `paused`: the"
            " schedule was paused; recorded when it is resumed. `changed`: missed, and then the rule was changed.",
            "example": "superseded",
        }
    )
    recorded_at = Time(metadata={"description": "When it was left out.", "example": "2030-07-01T06:30:00Z"})


class TaskScheduleDetailOut(TaskScheduleOut):
    """A schedule with its latest ten tasks and the latest ten times that got none, newest first."""

    tasks = fields.List(fields.Nested(ListedTaskOut))
    left_out = fields.List(fields.Nested(LeftOutOut))
