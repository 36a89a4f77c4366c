"""What is told elsewhere when a task ends, in requests and answers."""

from typing import Any

from marshmallow import fields, post_load, validate

from scheduler_app.models import FINISHED, Status
from scheduler_app.outgoing import MAX_URL, NAME, check_secret_name, check_url
from scheduler_app.schemas.base import AnswerSchema, RequestSchema

ENDS = [status.value for status in FINISHED]
URL = "https://shop.example.com/hooks/tasks"


class CallbackRequest(RequestSchema):
    """Where to tell that a task has ended."""

    url = fields.String(
        required=True,
        validate=[validate.Length(max=MAX_URL), check_url],
        metadata={
            "description": "http or https, without user and password. It gets a POST with the task.",
            "example": URL,
            "pattern": r"^[hH][tT][tT][pP][sS]?://[\x21-\x7e]+$",
        },
    )
    on = fields.List(
        fields.String(validate=validate.OneOf(ENDS)),
        load_default=lambda: [*ENDS],
        validate=validate.Length(1, len(ENDS)),
        metadata={"description": "The final statuses that are told. Without it, all.", "example": ["SUCCESS", "ERROR"]},
    )
    sign_with = fields.String(
        allow_none=True,
        validate=check_secret_name,
        metadata={
            "description": "The name of the secret that signs it as Standard Webhooks say.",
            "example": "SHOP_SIGNING_KEY",
            "pattern": f"^{NAME}$",
        },
    )

    @post_load
    def sort(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        """As it is kept."""
        kept = data | {"on": [status for status in ENDS if status in data["on"]]}
        return {name: value for name, value in kept.items() if value is not None}


def callback_field() -> fields.Nested:
    description = "A URL that is told when the task ends. The key needs the right to the operation `callback`."
    return fields.Nested(CallbackRequest, allow_none=True, metadata={"description": description})


class CallbackOut(AnswerSchema):
    """Where it is told when the task ends."""

    url = fields.String(metadata={"example": URL})
    on = fields.List(fields.String(metadata={"enum": ENDS}), metadata={"example": ["SUCCESS", "ERROR"]})
    sign_with = fields.String(
        dump_default=None,
        allow_none=True,
        metadata={"description": "The name of the secret that signs it.", "example": "SHOP_SIGNING_KEY"},
    )


class CallbackOf(fields.Nested):
    """The `callback` of a row; null for none."""

    def __init__(self) -> None:
        super().__init__(
            CallbackOut,
            allow_none=True,
            metadata={"description": "Where it is told when the task ends; null: nowhere."},
        )


class DeliveryOut(AnswerSchema):
    """The task that delivers the news of the end."""

    task_id = fields.Integer(metadata={"example": 18})
    status = fields.String(metadata={"enum": [status.value for status in Status], "example": "SUCCESS"})
