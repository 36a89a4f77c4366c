"""API keys and the audit log, as they come in and go out."""

from marshmallow import fields, validate

from scheduler_app.access_models import Scope
from scheduler_app.schemas.base import AnswerSchema, RequestSchema
from scheduler_app.schemas.fields import Time, WholeNumber

KEY_NAME = r"[a-z0-9][a-z0-9._-]{0,63}"
REACH = r"[a-z][a-z0-9_.]{0,63}(\.\*)?"
RATE = r"[1-9]\d{0,5}/[smh]"
ALLOWED = "A small letter or a digit, then up to 63 of a-z, 0-9, '.', '_' and '-'."
SCOPES = [scope.value for scope in Scope]


def form(pattern: str, allowed: str) -> validate.Regexp:
    return validate.Regexp(rf"\A(?:{pattern})\Z", error=allowed)


class KeyRequest(RequestSchema):
    """A key to make."""

    name = fields.String(
        required=True,
        validate=form(KEY_NAME, ALLOWED),
        metadata={"description": f"Who or what uses it. {ALLOWED}", "example": "shop", "pattern": f"^{KEY_NAME}$"},
    )
    scope = fields.Enum(
        Scope,
        by_value=True,
        required=True,
        metadata={"description": "write contains read, admin contains both.", "example": "write"},
    )
    expires_at = Time(
        load_default=None, allow_none=True, metadata={"description": "From then on it is refused; null: never."}
    )
    operations = fields.List(
        fields.String(
            validate=form(REACH, "The name of an operation, or the beginning of names, such as shop.*."),
            metadata={"pattern": f"^{REACH}$"},
        ),
        load_default=None,
        allow_none=True,
        validate=validate.Length(1, 50),
        metadata={
            "description": "It can post, steer and read only the tasks and schedules of these; null: of all.",
            "example": ["http_request", "shop.*"],
        },
    )
    rate = fields.String(
        load_default=None,
        allow_none=True,
        validate=form(RATE, "Such as 100/s, 600/m or 5000/h."),
        metadata={
            "description": "Requests that it may make; null: any number.",
            "example": "100/s",
            "pattern": f"^{RATE}$",
        },
    )


class RotateRequest(RequestSchema):
    """Nothing, or for how long the old secret works."""

    is_optional = True
    overlap_hours = WholeNumber(
        0, 720, load_default=24, metadata={"description": "For so long the secret before works, too.", "example": 24}
    )


class KeyOut(AnswerSchema):
    """A key, without its secret."""

    name = fields.String(metadata={"example": "shop"})
    key_id = fields.String(metadata={"description": "The public part, after `bb_`.", "example": "0a1b2c3d4e5f"})
    scope = fields.String(metadata={"enum": SCOPES, "example": "write"})
    operations = fields.List(fields.String(), allow_none=True, metadata={"example": ["http_request"]})
    rate = fields.String(allow_none=True, metadata={"example": "100/s"})
    created_at = Time()
    expires_at = Time(allow_none=True)
    last_used_at = Time(allow_none=True, metadata={"description": "To the minute."})
    revoked_at = Time(allow_none=True)


class NewKeyOut(KeyOut):
    """A key with its secret."""

    key = fields.String(metadata={"description": "Shown this once.", "example": f"bb_0a1b2c3d4e5f_{'x' * 43}"})


class AuditOut(AnswerSchema):
    """A change that somebody made."""

    audit_id = fields.Integer(metadata={"example": 1})
    at = Time()
    caller = fields.String(
        metadata={
            "description": "The key's name; `admin` for `BACKBEAT_API_KEY`, `local` without a key.",
            "example": "shop",
        }
    )
    action = fields.String(metadata={"example": "task.cancel"})
    target = fields.String(
        allow_none=True, metadata={"description": "An id or a name; null for many.", "example": "17"}
    )
    count = fields.Integer(metadata={"description": "How many it reached.", "example": 1})
    details = fields.Dict(allow_none=True, metadata={"description": "Such as the filters.", "example": None})
    address = fields.String(allow_none=True, metadata={"description": "Null for the command line."})
