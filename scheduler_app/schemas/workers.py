"""Workers and queues, as answers show them."""

from marshmallow import fields

from scheduler_app.schemas.base import AnswerSchema
from scheduler_app.schemas.fields import Time
from scheduler_app.schemas.tasks import TaskOut


class RunningOut(TaskOut):
    """A task that a worker is running."""

    class Meta:
        fields = ("task_id", "operation", "priority", "attempts", "started_at", "progress")


class WorkerOut(AnswerSchema):
    """A living worker process."""

    worker_id = fields.String(metadata={"example": "0b7c1a52-6f8e-4d3b-9a39-1f1c1f6a2f10"})
    host = fields.String(metadata={"example": "worker-1"})
    pid = fields.Integer(metadata={"example": 4711})
    threads = fields.Integer(metadata={"description": "How many tasks it can run at once.", "example": 8})
    queues = fields.List(fields.String(), metadata={"example": ["tasks.p0", "tasks.p1"]})
    started_at = Time()
    seen_at = Time(metadata={"description": "Its latest heartbeat."})
    clock_offset = fields.Float(
        allow_none=True,
        metadata={
            "description": "How many seconds its machine's clock is ahead of the database's clock.",
            "example": 0.02,
        },
    )
    running = fields.List(fields.Nested(RunningOut))


class PauseOut(AnswerSchema):
    """Whether a priority is paused."""

    priority = fields.Integer(metadata={"example": 5})
    paused = fields.Boolean(metadata={"description": "Whether none of its tasks begins.", "example": True})
    pause_note = fields.String(
        allow_none=True, metadata={"description": "Why it is paused.", "example": "the partner's API is down"}
    )
    paused_at = Time(allow_none=True)
    paused_by = fields.String(allow_none=True, metadata={"description": "The key that paused it.", "example": "ops"})


class QueueOut(PauseOut):
    """The state of one priority's queue."""

    queue = fields.String(metadata={"example": "tasks.p5"})
    weight = fields.Float(
        metadata={
            "description": "Its weight: starts are shared by weight while all queues have tasks waiting.",
            "example": 16,
        }
    )
    waiting = fields.Integer(metadata={"description": "Due, and waiting for a worker.", "example": 120})
    oldest_waiting_seconds = fields.Float(
        allow_none=True, metadata={"description": "How many seconds the first of them has been due.", "example": 0.4}
    )
    running = fields.Integer(metadata={"example": 8})
    retrying = fields.Integer(metadata={"description": "Failed, and waiting for their next attempt.", "example": 2})
    dead_letters = fields.Integer(metadata={"description": "In ERROR: see `GET /tasks/?status=ERROR`.", "example": 1})


class PurgedOut(AnswerSchema):
    """What a purge did."""

    cancelled = fields.Integer(metadata={"example": 1000})
    remaining = fields.Integer(
        metadata={
            "description": "How many still wait; 10,000 means that many or more. Call again.",
            "example": 0,
        }
    )
