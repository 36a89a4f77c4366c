"""What a schedule does while tasks of it have not finished, in requests and answers."""

from typing import Any

from marshmallow import ValidationError, fields

from scheduler_app.models import Overlap

OVERLAP = (
    "When a task of the schedule has not finished: `allow` creates the next one anyway, `skip` leaves the time"
    ' out, `cancel_previous` cancels what has not finished, `{"max": 3}` leaves the time out while three have not.'
)
MOST_AT_ONCE = 1_000
NAMED = [choice.value for choice in Overlap if choice != Overlap.MAX]
OVERLAPS: list[dict[str, Any]] = [
    {"type": "string", "enum": NAMED},
    {
        "type": "object",
        "properties": {"max": {"type": "integer", "minimum": 1, "maximum": MOST_AT_ONCE}},
        "required": ["max"],
        "additionalProperties": False,
    },
]


class OverlapField(fields.Field[Any]):
    """One of NAMED, or how many may be unfinished."""

    allowed = f'Must be {", ".join(NAMED)} or {{"max": 3}}, with a whole number from 1 to {MOST_AT_ONCE}.'

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, str) and value in NAMED:
            return value
        most: Any = value["max"] if isinstance(value, dict) and value.keys() == {"max"} else None
        if type(most) in (int, float) and most == int(most) and 1 <= most <= MOST_AT_ONCE:
            return {"max": int(most)}
        raise ValidationError(self.allowed)


class OverlapOf(fields.Field[Any]):
    """The `overlap` of a row with the columns `overlap` and `overlap_max`."""

    def __init__(self) -> None:
        super().__init__(metadata={"description": OVERLAP, "anyOf": OVERLAPS, "example": "allow"})

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> Any:
        return {"max": obj.overlap_max} if value == Overlap.MAX else value


def overlap_field() -> OverlapField:
    return OverlapField(metadata={"description": OVERLAP, "anyOf": OVERLAPS, "example": "skip"})


def overlap_columns(data: dict[str, Any]) -> dict[str, Any]:
    """The fields of a request, with `overlap` as the columns have it."""
    if "overlap" not in data:
        return data
    given = data["overlap"]
    most = given["max"] if isinstance(given, dict) else None
    return data | {"overlap": Overlap.MAX.value if most else given, "overlap_max": most}
