"""Labels of tasks, in requests and answers."""

import re
from typing import Any

from marshmallow import ValidationError, fields, validate

MAX_LABELS = 8
MAX_LABEL = 100  # characters of a value
LABEL_NAME = "[A-Za-z0-9_.-]{1,32}"
LABEL_VALUE = r"[^\u0000-\u001f\u007f]{1,100}"


class Labels(fields.Dict):
    """Up to MAX_LABELS names with a text each; None when there are none."""

    def __init__(self, *, metadata: dict[str, Any]) -> None:
        text = {"type": "string", "minLength": 1, "maxLength": MAX_LABEL, "pattern": rf"^{LABEL_VALUE}$"}
        names = {"pattern": rf"^{LABEL_NAME}$"}
        shape = {"maxProperties": MAX_LABELS, "propertyNames": names, "additionalProperties": text}
        super().__init__(allow_none=True, metadata=metadata | shape)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        given: Any = super()._deserialize(value, attr, data, **kwargs)  # type: ignore[no-untyped-call]
        if len(given) > MAX_LABELS:
            raise ValidationError(f"At most {MAX_LABELS} labels.")
        errors = {name: wrong for name, text in given.items() if (wrong := _wrong_label(name, text))}
        if errors:
            raise ValidationError(errors)
        return given or None


def _wrong_label(name: Any, text: Any) -> list[str]:
    if not isinstance(name, str) or not re.fullmatch(LABEL_NAME, name):
        return ["A name is 1 to 32 of A-Z, a-z, 0-9, '_', '.' and '-'."]
    if not isinstance(text, str) or not re.fullmatch(LABEL_VALUE, text):
        return [f"Must be a string of 1 to {MAX_LABEL} characters, none of them a control character."]
    return []


def labels_field() -> Labels:
    description = f"Up to {MAX_LABELS} names with a value each, by which it is found: `GET /tasks/?label=order:17`."
    return Labels(metadata={"description": description, "example": {"order": "17"}})


class LabelsOf(fields.Dict):
    """The labels of a row; {} for none."""

    def __init__(self) -> None:
        super().__init__(
            keys=fields.String(),
            values=fields.String(),
            metadata={"description": "By which it is found.", "example": {"order": "17"}},
        )

    def _serialize(self, value: Any, attr: Any, obj: Any, **kwargs: Any) -> dict[str, str]:
        return value or {}


def label_texts() -> dict[str, Any]:
    """How `repeatable` and `one_or_more` describe labels as conditions."""
    pattern = f"{LABEL_NAME}:{LABEL_VALUE}"
    wrong = "Must be a name and a value with a colon between, such as order:17."
    inner = fields.String(validate=validate.Regexp(rf"\A{pattern}\Z", error=wrong))
    said = "Only tasks with this label, such as `order:17`; with all of them, if there are several."
    return {"inner": inner, "of": {"type": "string", "pattern": f"^{pattern}$"}, "description": said}
