"""A form from a marshmallow schema, such as that of an operation's parameters, and back from the form to JSON.

    inputs(operation.params, values={"shops": [1, 2]}, prefix="params.")   # for the macro `inputs` in forms.html
    read(operation.params, request.form, prefix="params.")                # JSON for the schema; raises Unreadable

Simple fields get an input each, nested schemas a group of them. What has no simple input, and what the text of an input
could not say, is written as JSON: such an input's name ends in JSON.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from typing import Any

from marshmallow import INCLUDE, Schema, ValidationError, fields, missing, validate

from scheduler_app.schemas import json_values

MARK = ":json"  # ends the names of inputs with JSON
REST = "*"  # names the input for what the schema does not list, but takes
DEEPEST = 3  # nested groups; what lies deeper is JSON
LONG = 200  # characters: a value with more needs an input of several lines
MANY = 1_000  # characters: so does a field that allows more
MOST = 65_536  # characters of one input
YES, NO = "true", "false"
NUMBERS = (fields.Integer, fields.Float, fields.Decimal)
TEXTS = (
    *(fields.String, fields.UUID, fields.DateTime, fields.Date, fields.Time, fields.Enum),
    *(fields.IP, fields.IPInterface, fields.TimeDelta),
)
HINTS: dict[type[fields.Field[Any]], str] = {
    fields.AwareDateTime: "A time with an offset, such as 2030-01-31T12:00:00Z.",
    fields.DateTime: "A time, such as 2030-01-31T12:00:00.",
    fields.Date: "A date, such as 2030-01-31.",
    fields.Time: "A time of day, such as 12:00:00.",
}


class Unreadable(ValidationError):
    """Its messages are by field, as those of a schema are."""


@dataclass
class Input:
    name: str  # in the posted form
    label: str
    kind: str  # text, number, long, lines, choice, json, group
    value: str = ""
    hint: str = ""
    required: bool = False
    default: str = ""  # what counts when it is left empty
    choices: list[tuple[str, str]] = field(default_factory=list)  # value and words
    errors: list[str] = field(default_factory=list)
    inner: list["Input"] = field(default_factory=list)  # of a group

    @property
    def key(self) -> str:
        """For ids on the page."""
        return "".join(sign if sign.isalnum() else "-" for sign in self.name)


def inputs(
    schema: type[Schema] | Schema,
    values: Mapping[str, Any] | None = None,
    *,
    prefix: str = "",
    posted: Mapping[str, str] | None = None,
    errors: Any = None,
) -> list[Input]:
    """What to show for each field, in the schema's order.

    `values` is JSON that the schema would take. `posted` is what somebody has typed, and comes first. `errors` are
    marshmallow's messages.
    """
    made = schema() if isinstance(schema, type) else schema
    return _inputs(made, values or {}, prefix, posted, errors or {}, 1)


def read(schema: type[Schema] | Schema, posted: Mapping[str, str], *, prefix: str = "") -> dict[str, Any]:
    """JSON for the schema's `load`, which then says what is wrong with it. Empty inputs are left out."""
    made = schema() if isinstance(schema, type) else schema
    wrong: dict[str, Any] = {}
    values = _read(made, posted, prefix, wrong, 1)
    if wrong:
        raise Unreadable(wrong)
    return values


def _fields(schema: Schema) -> Iterator[tuple[str, fields.Field[Any]]]:
    return ((one.data_key or name, one) for name, one in schema.load_fields.items())


def _inputs(
    schema: Schema, values: Mapping[str, Any], prefix: str, posted: Mapping[str, str] | None, errors: Any, depth: int
) -> list[Input]:
    found = []
    for name, one in _fields(schema):
        at = errors.get(name) if isinstance(errors, dict) else None
        as_json = f"{prefix}{name}{MARK}" in (posted or {})
        if _is_group(one, depth) and isinstance(values.get(name, {}), dict) and not as_json:
            assert isinstance(one, fields.Nested)
            group = Input(f"{prefix}{name}", _label(name, one), "group", hint=_hint(one), required=one.required)
            inner = values.get(name, {})
            group.inner = _inputs(one.schema, inner, f"{prefix}{name}.", posted, at or {}, depth + 1)
            group.errors = _messages(at) if not isinstance(at, dict) else _messages(at.get("_schema"))
            found.append(group)
        else:
            found.append(_input(name, one, values.get(name, missing), prefix, posted, at))
    known = {name for name, _ in _fields(schema)}
    rest = {name: value for name, value in values.items() if name not in known}
    others = {name: at for name, at in errors.items() if name not in known} if isinstance(errors, dict) else {}
    if schema.unknown == INCLUDE or rest or f"{prefix}{REST}{MARK}" in (posted or {}):
        found.append(_rest(rest, prefix, posted, others))
    return found


def _input(
    name: str, one: fields.Field[Any], value: Any, prefix: str, posted: Mapping[str, str] | None, errors: Any
) -> Input:
    kind, text = _kind(one), "" if value is missing else _text(one, value)
    in_json = f"{prefix}{name}{MARK}"
    if kind == "json" or text is None or (posted is not None and in_json in posted):
        kind, text = "json", "" if value is missing else _pretty(value)
    made = Input(in_json if kind == "json" else f"{prefix}{name}", _label(name, one), kind, text or "")
    if posted is not None:
        made.value = _typed(posted, made.name)
    if kind == "text" and (len(made.value) > LONG or "\n" in made.value):
        made.kind = "long"
    made.hint, made.required, made.errors = _hint(one), one.required, _messages(errors)
    made.default = "" if callable(one.load_default) or one.load_default in (missing, None) else _shown(one.load_default)
    made.choices = _choices(one)
    return made


def _rest(rest: dict[str, Any], prefix: str, posted: Mapping[str, str] | None, errors: Any) -> Input:
    made = Input(f"{prefix}{REST}{MARK}", "Other parameters", "json", hint="A JSON object.")
    made.value = _pretty(rest) if rest else ""
    made.value = _typed(posted, made.name) if posted is not None else made.value
    made.errors = _messages(errors)
    return made


def _typed(posted: Mapping[str, str], name: str) -> str:
    """Browsers end lines with CR and LF. One character more than allowed, so that it is noticed."""
    return posted.get(name, "")[: 2 * MOST].replace("\r\n", "\n")[: MOST + 1]


def _is_group(one: Any, depth: int) -> bool:
    return isinstance(one, fields.Nested) and not one.many and not one.schema.many and depth < DEEPEST


def _kind(one: fields.Field[Any]) -> str:
    if _choices(one):
        return "choice"
    if isinstance(one, fields.List):
        inner = one.inner
        simple = isinstance(inner, (*NUMBERS, *TEXTS)) and not isinstance(inner, fields.Boolean)
        return "json" if not simple else "text" if isinstance(inner, NUMBERS) else "lines"
    if isinstance(one, NUMBERS):
        return "number"
    if not isinstance(one, TEXTS) and not _or_number(one):
        return "json"
    return "long" if _is_long(one) else "text"


def _or_number(one: fields.Field[Any]) -> bool:
    """Whether it takes a text or a whole number, as its schema says."""
    allowed = {kind.get("type") for kind in one.metadata.get("anyOf", ())}
    return allowed == {"string", "integer"}


def _is_long(one: fields.Field[Any]) -> bool:
    if isinstance(one, fields.Url) or str(one.name).lower().endswith(("url", "uri")):
        return False
    allowed = [check.max or 0 for check in one.validators if isinstance(check, validate.Length)]
    return bool(max([*allowed, one.metadata.get("maxLength", 0)]) > MANY)


def _choices(one: fields.Field[Any]) -> list[tuple[str, str]]:
    if isinstance(one, fields.Boolean):
        return [(YES, "yes"), (NO, "no")]
    if isinstance(one, fields.Enum):
        return [(name, name) for name in one.enum.__members__] if not one.by_value else []
    found = [check for check in one.validators if isinstance(check, validate.OneOf)]
    if not found or not isinstance(one, (fields.String, *NUMBERS)):
        return []
    return [(str(choice), label or str(choice)) for choice, label in _labelled(found[0])]


def _labelled(check: validate.OneOf) -> Iterator[tuple[Any, str]]:
    yield from zip_longest(check.choices, check.labels, fillvalue="")


def _label(name: str, one: fields.Field[Any]) -> str:
    return str(one.metadata.get("title") or name)


def _hint(one: fields.Field[Any]) -> str:
    said = str(one.metadata.get("description") or "")
    own = next((hint for kind, hint in HINTS.items() if isinstance(one, kind)), "")
    if isinstance(one, fields.List) and _kind(one) == "text":
        own = "Numbers, with commas between."
    if isinstance(one, fields.List) and _kind(one) == "lines":
        own = "One in each line."
    return f"{said} {own}".strip() if own not in said else said


def _text(one: fields.Field[Any], value: Any) -> str | None:
    """The value as its input shows it; None when that would read back as another value."""
    text = _shown(value)
    if isinstance(one, fields.List):
        between = "\n" if _kind(one) == "lines" else ", "
        text = between.join(map(_shown, value)) if isinstance(value, list) else ""
    try:
        return text if text.strip() and "\r" not in text and _value(one, text) == value else None
    except ValueError:
        return None


def _pretty(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, indent=2)
    except RecursionError:  # nested too deep for lines that are indented
        return json.dumps(value)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _messages(errors: Any) -> list[str]:
    """Those of a field, whatever lies below it: of a list by position, of a dict by key."""
    if isinstance(errors, dict):
        return [
            message if key in ("_schema", "key", "value") else f"{_place(key)}: {message}"
            for key, inner in errors.items()
            for message in _messages(inner)
        ][:10]
    return [str(error) for error in errors] if isinstance(errors, list) else [str(errors)] if errors else []


def _place(key: Any) -> str:
    return f"Number {key + 1}" if isinstance(key, int) else str(key)


def _read(schema: Schema, posted: Mapping[str, str], prefix: str, wrong: dict[str, Any], depth: int) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, one in _fields(schema):
        text, in_json = _typed(posted, f"{prefix}{name}"), _typed(posted, f"{prefix}{name}{MARK}")
        if in_json.strip():
            _keep(values, wrong, name, _json, in_json)
        elif isinstance(one, fields.Nested) and _is_group(one, depth):
            below: dict[str, Any] = {}
            inner = _read(one.schema, posted, f"{prefix}{name}.", below, depth + 1)
            values |= {name: inner} if inner or one.required else {}
            wrong |= {name: below} if below else {}
        elif text.strip():
            _keep(values, wrong, name, partial(_value, one), text)
        elif depth == 1 and f"{prefix}{name}" in posted and one.required and isinstance(one, fields.String):
            values[name] = ""  # in a group nobody knows whether it is left out
    if rest := _typed(posted, f"{prefix}{REST}{MARK}").strip():
        _keep(values, wrong, REST, _object, rest)
        values = values.pop(REST, {}) | values
    return values


def _keep(
    values: dict[str, Any], wrong: dict[str, Any], name: str, understand: Callable[[str], Any], text: str
) -> None:
    try:
        if len(text) > MOST:
            raise ValueError(f"At most {MOST:,} characters.")
        values[name] = understand(text)
    except (ValueError, RecursionError) as error:
        wrong[name] = [str(error)]


def _value(one: fields.Field[Any], text: str) -> Any:
    """The JSON that a text in an input stands for. Raises ValueError, which says what is allowed."""
    if isinstance(one, fields.List) and _kind(one) == "text":
        return [_value(one.inner, part.strip()) for part in text.split(",") if part.strip()]
    if isinstance(one, fields.List) and _kind(one) == "lines":
        return [line for line in text.split("\n") if line]
    if isinstance(one, fields.Boolean):
        return text == YES
    if isinstance(one, NUMBERS) or (_or_number(one) and text.strip().isdecimal()):
        return _number(text.strip())
    return text


def _number(text: str) -> int | float:
    """Exact: a long whole number stays as it is."""
    try:
        value = _json(text)
    except ValueError:
        value = None
    if type(value) not in (int, float):
        raise ValueError("Not a number.")
    return value  # type: ignore[no-any-return]


def _json(text: str) -> Any:
    try:
        value = json.loads(text, parse_constant=_refuse)
    except ValueError as error:
        raise ValueError(f"Not JSON: {error}") from None
    try:
        json_values.check(value)
    except ValueError as error:
        raise ValueError(f"It {error}.") from None
    return value


def _object(text: str) -> dict[str, Any]:
    value = _json(text)
    if not isinstance(value, dict):
        raise ValueError("Must be a JSON object.")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")
