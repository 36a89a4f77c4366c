"""Where an attempt stands, as answers show it."""

from marshmallow import fields

from scheduler_app.schemas.base import AnswerSchema
from scheduler_app.schemas.fields import Time


class FrameOut(AnswerSchema):
    """A call that has not returned."""

    file = fields.String(
        metadata={"description": "As seen from the folder that it was imported from.", "example": "shop/invoices.py"}
    )
    line = fields.Integer(metadata={"example": 41})
    function = fields.String(metadata={"example": "render"})
    code = fields.String(
        allow_none=True,
        metadata={"description": "The line; null: it is not at hand.", "example": "page = requests.get(url)"},
    )
    library = fields.String(
        allow_none=True,
        metadata={"description": "To which the file belongs; null for the operation's own.", "example": "urllib3"},
    )


class StackOut(AnswerSchema):
    """Where a running attempt stands. It has no values of variables."""

    attempt = fields.Integer(metadata={"description": "1 for the first.", "example": 1})
    frames = fields.List(
        fields.Nested(FrameOut),
        metadata={"description": "The innermost call comes last. Empty between two calls of the operation's own code."},
    )
    left_out = fields.Integer(
        metadata={"description": "Of a very deep stack so many calls in the middle are left out.", "example": 0}
    )
    taken_at = Time()
