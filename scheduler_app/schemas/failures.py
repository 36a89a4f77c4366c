"""Why tasks failed, as answers show it."""

from marshmallow import fields

from scheduler_app.schemas.fields import Time
from scheduler_app.schemas.tasks import CAUSE, ErrorOut
from scheduler_app.services.causes import SHOWN


class CauseOut(ErrorOut):
    """Failed tasks of one operation whose errors differ only in numbers, ids and quoted text."""

    cause = fields.String(
        allow_none=True,
        metadata={
            "description": "With it lists and the calls for many tasks choose these tasks. Null for tasks that failed"
            " in a release that kept no cause; they are grouped by operation.",
            "example": CAUSE,
        },
    )
    operation = fields.String(metadata={"example": "http_request"})
    message = fields.String(
        metadata={
            "description": f"Of the task that failed last, at most {SHOWN} characters.",
            "example": "Connection to example.com timed out.",
        }
    )
    count = fields.Integer(metadata={"description": "How many of these tasks.", "example": 12})
    first_at = Time(metadata={"description": "When the first of them failed."})
    last_at = Time()
    task_id = fields.Integer(metadata={"description": "The task that failed last.", "example": 17})
