"""Whether the system keeps up and what needs attention, as answers show it."""

from marshmallow import fields

from scheduler_app.schemas.base import AnswerSchema
from scheduler_app.schemas.fields import Time
from scheduler_app.services.attention import KINDS, TARGETS, Severity
from scheduler_app.services.verdict import BEHIND_AFTER, State


class VerdictOut(AnswerSchema):
    """Whether it keeps up. Priorities that are paused do not count."""

    state = fields.String(
        metadata={
            "enum": [state.value for state in State],
            "description": f"`falling_behind`: a due task has waited for {BEHIND_AFTER:.0f} s. `unknown`: Redis, which"
            " has what waits, does not answer.",
            "example": "falling_behind",
        }
    )
    text = fields.String(metadata={"description": "The same, with the figures that matter, for people."})
    in_per_minute = fields.Float(
        allow_none=True, metadata={"description": "Tasks that come in; null while no scheduler counts.", "example": 640}
    )
    out_per_minute = fields.Float(allow_none=True, metadata={"description": "Tasks that end.", "example": 2020})
    waiting = fields.Integer(
        allow_none=True,
        metadata={"description": "Tasks that are due; null while Redis does not answer.", "example": 12_430},
    )
    running = fields.Integer(metadata={"example": 24})
    priority = fields.Integer(
        allow_none=True, metadata={"description": "That falls behind, where most wait.", "example": 5}
    )
    oldest_seconds = fields.Float(
        allow_none=True, metadata={"description": "For which the first task there has been due.", "example": 240}
    )
    empty_in_seconds = fields.Float(
        allow_none=True,
        metadata={
            "description": "Until nothing waits there, if as much comes and goes as in the last minute; null when that"
            " is never.",
            "example": 540,
        },
    )


class TargetOut(AnswerSchema):
    """Where to look."""

    kind = fields.String(metadata={"enum": TARGETS, "example": "priority"})
    id = fields.String(allow_none=True, metadata={"description": "Null: all of that kind.", "example": "7"})


class NeedOut(AnswerSchema):
    """Something that somebody should look at."""

    kind = fields.String(metadata={"enum": KINDS, "example": "paused_priority"})
    severity = fields.String(
        metadata={
            "enum": [severity.value for severity in Severity],
            "description": "`error`: work stands still, or may be refused. `warning`: somebody should know.",
            "example": "warning",
        }
    )
    text = fields.String()
    target = fields.Nested(TargetOut, allow_none=True)
    since = Time(allow_none=True)


class AttentionOut(AnswerSchema):
    """What somebody who runs Backbeat wants to know first."""

    verdict = fields.Nested(VerdictOut)
    needs = fields.List(fields.Nested(NeedOut), metadata={"description": "What needs attention, the worst first."})
