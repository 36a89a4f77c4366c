"""Limits, in requests and answers."""

from marshmallow import fields, validate

from scheduler_app.limits import LONGEST, MOST_COUNT, MOST_RUNNING, PER
from scheduler_app.schemas.base import AnswerSchema, RequestSchema
from scheduler_app.schemas.fields import Amount, Time, WholeNumber

OPERATION_NAME = r"[a-z][a-z0-9_.]{0,63}"
MAX_RUNNING = "So many of its tasks run at once, over all workers."
COUNT = "So many of its tasks begin in that time, evenly."
SECONDS = "The length of that time."
BURST = "So many may begin at once after a pause. In no such time do more than `count + burst` begin."
PER_WHAT = "Whether it holds for all tasks of the operation together, or for those of each group."


class RateRequest(RequestSchema):
    """How many tasks begin in a time."""

    count = WholeNumber(1, MOST_COUNT, required=True, metadata={"description": COUNT, "example": 10})
    seconds = Amount(0.001, LONGEST, load_default=1, metadata={"description": SECONDS, "example": 1})
    burst = WholeNumber(1, MOST_COUNT, load_default=1, metadata={"description": BURST, "example": 5})


class LimitRequest(RequestSchema):
    """A limit of an operation. With neither number, one that is given in the code is lifted."""

    operation = fields.String(
        validate=validate.Regexp(rf"\A{OPERATION_NAME}\Z", error="Must be an operation's name."),
        metadata={
            "description": "Needed for a new limit.",
            "example": "http_request",
            "pattern": f"^{OPERATION_NAME}$",
        },
    )
    per = fields.String(validate=validate.OneOf(PER), metadata={"description": PER_WHAT, "example": "group"})
    max_running = WholeNumber(1, MOST_RUNNING, allow_none=True, metadata={"description": MAX_RUNNING, "example": 4})
    rate = fields.Nested(RateRequest, allow_none=True)


class RateOut(AnswerSchema):
    """How many tasks begin in a time."""

    count = fields.Integer(metadata={"description": COUNT, "example": 10})
    seconds = fields.Float(metadata={"description": SECONDS, "example": 1})
    burst = fields.Integer(metadata={"description": BURST, "example": 5})


class LimitNumbersOut(AnswerSchema):
    """The numbers of a limit. With neither, it limits nothing."""

    max_running = fields.Integer(allow_none=True, metadata={"description": MAX_RUNNING, "example": 4})
    rate = fields.Nested(RateOut, allow_none=True)


class LimitGroupOut(AnswerSchema):
    """How much of a limit a group has."""

    group = fields.String(
        allow_none=True, metadata={"description": "null: tasks without a group.", "example": "api.example.com"}
    )
    used = fields.Integer(metadata={"example": 4})


class LimitOut(LimitNumbersOut):
    """A limit of an operation, and what it holds up."""

    name = fields.String(metadata={"example": "http_request:group"})
    operation = fields.String(metadata={"example": "http_request"})
    per = fields.String(metadata={"enum": PER, "description": PER_WHAT, "example": "group"})
    used = fields.Integer(
        allow_none=True,
        metadata={
            "description": "How many count as running, if there is a `max_running`; null while Redis does not answer.",
            "example": 7,
        },
    )
    waiting = fields.Integer(
        metadata={"description": "How many tasks of the operation wait; counts at most 10,000.", "example": 120}
    )
    groups = fields.Nested(
        LimitGroupOut, many=True, metadata={"description": "Those of the groups that have most of it running."}
    )
    code = fields.Nested(
        LimitNumbersOut, allow_none=True, metadata={"description": "What the code gives; null if it gives none."}
    )
    changed_at = Time(allow_none=True, metadata={"description": "null: it counts as the code gives it."})
    changed_by = fields.String(allow_none=True, metadata={"description": "Name of the key.", "example": "ops"})
