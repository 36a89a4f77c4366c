"""Tasks, in requests and answers."""

from collections.abc import Sequence
from typing import Any

from marshmallow import ValidationError, fields, post_load, validate, validates_schema

from scheduler_app import operations
from scheduler_app.broker import MAX_AHEAD
from scheduler_app.config import PRIORITIES
from scheduler_app.models import Status
from scheduler_app.schemas.base import AnswerSchema, QuerySchema, RequestSchema
from scheduler_app.schemas.callbacks import CallbackOf, DeliveryOut, callback_field
from scheduler_app.schemas.fields import (
    MAX_ID,
    Number,
    PageQuery,
    Switch,
    Time,
    expires_in_field,
    group_field,
    max_retries_field,
    operation_field,
    params_field,
    priority_field,
    repeatable,
)
from scheduler_app.schemas.labels import LabelsOf, label_texts, labels_field
from scheduler_app.schemas.retries import RetryOf, retry_field, wrong_retries
from scheduler_app.schemas.unique import UniqueOut, UniqueRequest, unique_key_field
from scheduler_app.services.listing import COLUMNS, COUNTED, LATEST, SHORT
from scheduler_app.services.waiting import WaitingFor
from scheduler_app.tracing.contexts import trace_id

CAUSE = "5d41402abc4b2a76"
CREATOR = "The schedule that created them."
WHOSE = "Whose task it is, such as a customer or a host. Within a priority the groups take turns."


class OperationRequest(RequestSchema):
    """A request that names an operation. Name and parameters are checked even when other fields have errors."""

    @validates_schema(pass_original=True, skip_on_field_errors=False)
    def check_operation(self, data: dict[str, Any], original: Any, **_: Any) -> None:
        errors = self.wrong_together(data)
        if "operation" in data:
            unreadable = "params" in original and "params" not in data
            try:
                operations.check(data["operation"], None if unreadable else data.get("params", {}))
            except ValidationError as error:
                errors |= error.messages_dict
        if errors:
            raise ValidationError(errors)

    def wrong_together(self, data: dict[str, Any]) -> dict[str, Any]:
        """What is wrong with fields that are given together. One check for all: each hook takes its time."""
        return wrong_retries(data) if "retry" in data else {}


def expires_at_field() -> Time:
    description = "What has not begun by then ends as EXPIRED. Null: it never expires."
    return Time(allow_none=True, metadata={"description": description, "example": "2030-01-31T13:00:00Z"})


class TaskRequest(OperationRequest):
    """A task to create. The loaded form is the input of `services.tasks.submit`."""

    error_messages = {  # noqa: RUF012 (marshmallow's own way)
        "type": 'Must be a JSON object, such as {"operation": "4+7"}; for a list of them use /tasks/batch-request/.'
    }

    operation = operation_field(required=True)
    params = params_field(load_default=dict)
    priority = priority_field(load_default=5)
    run_at = Time(
        load_default=None,
        allow_none=True,
        metadata={"description": "When the task is due. Without it, at once.", "example": "2030-01-31T12:00:00Z"},
    )
    expires_at = expires_at_field()
    expires_in = expires_in_field()
    max_retries = max_retries_field(load_default=None, allow_none=True)
    retry = retry_field()
    labels = labels_field()
    group = group_field(WHOSE, allow_none=True, example="customer-17")
    callback = callback_field()
    unique = fields.Nested(
        UniqueRequest, allow_none=True, metadata={"description": "Post it only if no such task is there yet."}
    )

    def wrong_together(self, data: dict[str, Any]) -> dict[str, Any]:
        errors = super().wrong_together(data)
        if data.get("expires_at") is None:
            return errors
        if data.get("expires_in") is not None:
            errors |= {"expires_in": ["Not allowed beside expires_at."]}
        if data.get("run_at") and data["expires_at"] <= data["run_at"]:
            errors |= {"expires_at": ["Must be later than run_at."]}
        return errors

    @post_load
    def resolve(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        return resolve_operation(data)


def resolve_operation(data: dict[str, Any]) -> dict[str, Any]:
    """Replaces the given text by the operation's name, its parameters, and its retries as their columns have them."""
    operation, params = operations.resolve(data["operation"], data["params"])
    retry = operation.retry.changed(given) if (given := data.get("retry")) else operation.retry
    retries = retry.max_retries if data["max_retries"] is None else data["max_retries"]
    return data | {"operation": operation.name, "params": params, "max_retries": retries, "retry": retry.pauses}


class TaskChange(RequestSchema):
    """The fields to change. The others stay."""

    run_at = Time(
        allow_none=True, metadata={"description": "When the task is due. Null, or a time in the past, means at once."}
    )
    expires_at = expires_at_field()
    priority = priority_field()
    max_retries = max_retries_field()
    retry = retry_field()

    @validates_schema(skip_on_field_errors=False)
    def check_retries(self, data: dict[str, Any], **_: Any) -> None:
        if errors := wrong_retries(data):
            raise ValidationError(errors)


PRIORITY = {"type": "integer", "minimum": PRIORITIES[0], "maximum": PRIORITIES[-1]}
ALL_STATUSES = [status.value for status in Status]


def of_status(allowed: Sequence[str]) -> dict[str, Any]:
    """How `repeatable` and `one_or_more` describe it."""
    inner = fields.String(validate=validate.OneOf(allowed))
    return {"inner": inner, "of": {"type": "string", "enum": list(allowed)}}


class TaskFilter(RequestSchema):
    """Which tasks to select. A task must meet all conditions."""

    operation = fields.String(validate=validate.Length(1, 64), metadata={"description": "The operation's name."})
    cause = fields.String(
        validate=validate.Regexp(r"\A[0-9a-f]{16}\Z", error="16 of 0-9 and a-f."),
        metadata={"description": "The cause of the latest failure: see `GET /failures/`.", "pattern": "^[0-9a-f]{16}$"},
    )
    created_after = Time(metadata={"description": "Created later than this."})
    created_before = Time(metadata={"description": "Created earlier than this."})
    error_type = fields.String(
        validate=validate.Length(1, 200), metadata={"description": "The `type` of the latest failure's `error`."}
    )
    finished_after = Time(metadata={"description": "Ended later than this."})
    finished_before = Time(metadata={"description": "Ended earlier than this."})
    group = group_field("Only tasks of this group.")
    unique_key = unique_key_field()


class TaskQuery(PageQuery, TaskFilter):
    """Which tasks to list. A task must meet all conditions."""

    status = repeatable(**of_status(ALL_STATUSES), description="Where they are now.")
    priority = repeatable(Number(PRIORITIES[0], PRIORITIES[-1]), of=PRIORITY, description="0 to 9.")
    task_schedule_id = Number(1, MAX_ID, metadata={"description": CREATOR})
    label = repeatable(**label_texts())


class ErrorOut(AnswerSchema):
    """Why an attempt failed."""

    type = fields.String(metadata={"description": "The exception's name.", "example": "ConnectTimeoutError"})
    message = fields.String(metadata={"example": "Connection to example.com timed out."})


class FailureOut(ErrorOut):
    """An attempt that failed."""

    attempt = fields.Integer(metadata={"description": "1 for the first.", "example": 1})
    traceback = fields.String(
        allow_none=True, metadata={"description": "Where the attempt failed. Of a long traceback only the end is kept."}
    )
    failed_at = Time()


class ProgressOut(AnswerSchema):
    """How far a task is."""

    percent = fields.Float(metadata={"example": 40})
    message = fields.String(metadata={"example": "page 4 of 10"})


class TraceId(fields.String):
    """Of the context that is kept with a task."""

    def _serialize(self, value: Any, *_: Any, **__: Any) -> str | None:
        return trace_id(value)


class TaskOut(AnswerSchema):
    """A task and its outcome."""

    task_id = fields.Integer(metadata={"example": 17})
    operation = fields.String(metadata={"example": "calculate"})
    params = fields.Dict(metadata={"example": {"expression": "4+7"}})
    priority = fields.Integer(metadata={"example": 5})
    status = fields.String(metadata={"enum": [status.value for status in Status], "example": "SUCCESS"})
    result = fields.Raw(allow_none=True, metadata={"description": "What the operation returned.", "example": 11})
    error = fields.Nested(ErrorOut, allow_none=True, metadata={"description": "Of the last failed attempt."})
    cause = fields.String(
        allow_none=True,
        metadata={
            "description": "Of `error`. The same for failures that differ only in numbers, ids and quoted text.",
            "example": CAUSE,
        },
    )
    progress = fields.Nested(
        ProgressOut, allow_none=True, metadata={"description": "The latest progress that the operation reported."}
    )
    cancel_requested = fields.Boolean(
        metadata={"description": "Whether the running task has been asked to stop.", "example": False}
    )
    attempts = fields.Integer(metadata={"description": "Begun so far.", "example": 1})
    max_retries = fields.Integer(metadata={"example": 5})
    retry = RetryOf()
    run_at = Time(metadata={"description": "When the next attempt is due, or when the last one was due."})
    expires_at = Time(
        allow_none=True, metadata={"description": "From then on no attempt begins; null: it never expires."}
    )
    task_schedule = fields.Integer(
        attribute="task_schedule_id", allow_none=True, metadata={"description": "The schedule that created it."}
    )
    scheduled_for = Time(
        allow_none=True, metadata={"description": "The time of the schedule for which it was created."}
    )
    created_at = Time()
    created_by = fields.String(
        allow_none=True,
        metadata={"description": "Name of the key that posted it, or its schedule.", "example": "shop"},
    )
    labels = LabelsOf()
    group = fields.String(allow_none=True, metadata={"description": WHOSE, "example": "customer-17"})
    callback = CallbackOf()
    unique = fields.Nested(UniqueOut, allow_none=True)
    trace_id = TraceId(
        attribute="trace",
        allow_none=True,
        metadata={
            "description": "Of the trace of the request that posted it, or of its schedule's firing. Null: of none.",
            "example": "4bf92f3577b34da6a3ce929d0e0e4736",
        },
    )
    started_at = Time(allow_none=True, metadata={"description": "Of the latest attempt."})
    finished_at = Time(allow_none=True)


FAILURE_COUNT = fields.Integer(
    metadata={
        "description": f"How many attempts failed, also before it was retried by hand; {COUNTED:,} means so many or"
        " more.",
        "example": 0,
    }
)


class ListedTaskOut(TaskOut):
    """A task in a list, where a long value is null. The single task has it."""

    params = fields.Dict(allow_none=True, metadata={"example": {"expression": "4+7"}})
    truncated = fields.Boolean(
        metadata={
            "description": f"Whether one of {', '.join(f'`{name}`' for name in COLUMNS)} is left out, because it has"
            f" more than {SHORT:,} characters of JSON.",
            "example": False,
        }
    )
    failure_count = FAILURE_COUNT


class WaitingForOut(AnswerSchema):
    """Why a task does not run yet. Which other fields are there depends on the reason."""

    reason = fields.String(
        metadata={
            "enum": [reason.value for reason in WaitingFor],
            "description": "`expiry`: its `expires_at` has passed, and the scheduler has yet to end it."
            " `operation`: no worker that could take it knows its operation. It waits for one that does,"
            " for a day at most. `time`: its `run_at` has not come. `paused`: it is due, and its priority is paused."
            " `redis`: it is due, and Redis does not answer."
            " `relay`: it is due, and the scheduler has yet to send it to Redis. `worker`: no living worker takes tasks"
            " from its `queue`. `limit`: a limit of its operation has no room."
            " `turn`: others come before it, or all workers are busy.",
            "example": "turn",
        }
    )
    run_at = Time(metadata={"optional": True, "description": "With `time` and `operation`."})
    expires_at = Time(metadata={"optional": True, "description": "With `expiry`."})
    operation = fields.String(
        metadata={"optional": True, "description": "With `operation`.", "example": "http_request"}
    )
    queue = fields.String(metadata={"optional": True, "description": "With `worker`.", "example": "tasks.p5"})
    priority = fields.Integer(metadata={"optional": True, "description": "With `paused` and `turn`.", "example": 5})
    note = fields.String(
        allow_none=True,
        metadata={"optional": True, "description": "With `paused`: why.", "example": "the partner's API is down"},
    )
    paused_at = Time(metadata={"optional": True, "description": "With `paused`."})
    limit = fields.String(
        metadata={"optional": True, "description": "With `limit`: its name.", "example": "http_request"}
    )
    seconds = fields.Float(
        allow_none=True,
        metadata={"optional": True, "description": "With `limit`: until there is room by its rate.", "example": 0.2},
    )
    ahead = fields.Integer(
        metadata={
            "optional": True,
            "description": "With `turn` and `limit`: how many of its priority come before it, of its group if it has"
            f" one; more than {MAX_AHEAD:,} count as so many.",
            "example": 3,
        }
    )
    more_urgent = fields.Integer(
        metadata={
            "optional": True,
            "description": "With `turn`: how many wait at more urgent priorities, which get more of the starts, see"
            " `GET /queues/`.",
            "example": 0,
        }
    )


class TaskDetailOut(TaskOut):
    """A task with its latest attempts that failed, why it does not run yet, and who tells of its end."""

    waiting_for = fields.Nested(
        WaitingForOut, allow_none=True, metadata={"description": "Null unless it is PENDING or RETRYING."}
    )
    failures = fields.List(
        fields.Nested(FailureOut), metadata={"description": f"The latest {LATEST}, the oldest of these first."}
    )
    failure_count = FAILURE_COUNT
    delivery = fields.Nested(
        DeliveryOut,
        allow_none=True,
        metadata={
            "description": "The task that tells `callback` of the latest end. Null: it has none, or has not ended so."
        },
    )


class BatchError(AnswerSchema):
    """An entry of a batch that was refused."""

    index = fields.Integer(metadata={"description": "Its place in the list, from 0.", "example": 3})
    errors = fields.Dict(
        metadata={"example": {"priority": ["Must be greater than or equal to 0 and less than or equal to 9."]}}
    )


class BatchQuery(QuerySchema):
    atomic = Switch(load_default=False, metadata={"description": "Create all or none."})


class BatchOut(AnswerSchema):
    """What a batch created, and what it did not."""

    tasks = fields.List(fields.Nested(ListedTaskOut))
    existing = fields.List(
        fields.Integer(),
        metadata={
            "optional": True,
            "description": "Those of the tasks that were there before, see `unique`; only there when there are some.",
            "example": [17],
        },
    )
    errors = fields.List(
        fields.Nested(BatchError), metadata={"optional": True, "description": "Only there when some were refused."}
    )
