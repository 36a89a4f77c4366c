"""What operations log, as answers show it."""

from marshmallow import fields

from scheduler_app.schemas.base import AnswerSchema, QuerySchema
from scheduler_app.schemas.fields import Number, Switch

MOST = 2**31 - 1


class LogQuery(QuerySchema):
    """Which part of a log."""

    attempt = Number(
        1,
        MOST,
        metadata={"description": "Which attempt. Without it, the latest that has logged something."},
    )
    after = Number(0, MOST, load_default=0, metadata={"description": "Only lines with a higher number."})
    follow = Switch(
        load_default=False,
        metadata={"description": "Text, line by line as it comes, until the task or the given attempt has ended."},
    )


class LogLineOut(AnswerSchema):
    """A line of a log."""

    number = fields.Integer(metadata={"description": "From 1 in each attempt.", "example": 1})
    text = fields.String(metadata={"example": "2030-07-01T04:30:00.021Z INFO shop: 12 orders"})
    left_out = fields.Integer(
        metadata={"description": "So many lines from this number on are not kept; 0 for a real line.", "example": 0}
    )


class LogOut(AnswerSchema):
    """What one attempt has logged."""

    attempts = fields.List(
        fields.Integer(metadata={"example": 1}), metadata={"description": "Those that have logged something."}
    )
    attempt = fields.Integer(allow_none=True, metadata={"description": "Whose lines these are.", "example": 1})
    lines = fields.List(fields.Nested(LogLineOut))
    complete = fields.Boolean(metadata={"description": "Whether that attempt has ended.", "example": True})
