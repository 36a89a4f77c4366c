"""Loads valid data by a marshmallow schema, with less work than marshmallow.

Most data is valid. So it is read in a quick way first, which ends at the first error; then marshmallow finds them all.
"""

from collections.abc import Callable, Mapping
from typing import Any

from marshmallow import RAISE, Schema, ValidationError, missing
from marshmallow.decorators import POST_LOAD, PRE_LOAD, VALIDATES, VALIDATES_SCHEMA
from marshmallow.fields import Field

Load = Callable[[Any], Any]
Read = Callable[[Any, str, Mapping[str, Any]], Any]  # gets a value, its key, and all data
Hook = Callable[[Any, Any], Any]  # gets what is loaded, and from what

WHOLE = {"many": False, "partial": None, "unknown": RAISE}  # what marshmallow tells the hooks of one complete object
# What a schema or a field may have of its own, so that it is left to marshmallow.
LOADS = ("load", "_do_load", "_deserialize")
READS = ("deserialize", "_validate", "_validate_all", "_validate_missing")


def loader(schema: Schema) -> Load:
    """The schema's `load`, or a quicker one that does the same."""
    if not _is_usual(schema):
        return schema.load
    quick = Quick(schema)

    def load(data: Any) -> Any:
        try:
            return quick.load(data)
        except ValidationError:
            pass
        return schema.load(data)

    return load


def _is_usual(schema: Schema) -> bool:
    """Whether the quick way does all that marshmallow does for this schema."""
    hooks = schema._hooks
    known = [hook for tag in (VALIDATES_SCHEMA, POST_LOAD) for hook in hooks[tag]]
    return (
        _is_as_in(Schema, schema, LOADS)
        and (schema.many, schema.partial, schema.unknown) == tuple(WHOLE.values())
        and not (hooks[PRE_LOAD] or hooks[VALIDATES])
        and not any(pass_collection for _, pass_collection, _ in known)
        and not any("." in (field.attribute or "") for field in schema.load_fields.values())
    )


def _is_as_in(base: type, one: object, names: tuple[str, ...]) -> bool:
    return all(getattr(type(one), name) is getattr(base, name) for name in names)


class Quick:
    """The quick way of one schema. It knows what requests use, see `_is_usual`."""

    def __init__(self, schema: Schema) -> None:
        # By the key in the JSON.
        named = {field.data_key or name: (field.attribute or name, field) for name, field in schema.load_fields.items()}
        given = {key: (name, field.load_default) for key, (name, field) in named.items()}
        self.fields = {key: (name, _reader(field)) for key, (name, field) in named.items()}
        self.required = {key for key, (_, field) in named.items() if field.required}
        self.made = {key: (name, default) for key, (name, default) in given.items() if callable(default)}
        self.defaults = {
            name: default for key, (name, default) in given.items() if default is not missing and key not in self.made
        }
        self.checks = _hooks(schema, VALIDATES_SCHEMA)
        self.changes = _hooks(schema, POST_LOAD)

    def load(self, data: Mapping[str, Any]) -> Any:
        """Raises ValidationError at the first error."""
        if not isinstance(data, (dict, Mapping)):  # dict first: that is quick
            raise ValidationError("no object")
        if not self.required <= data.keys() <= self.fields.keys():
            raise ValidationError("a field is missing or unknown")
        loaded: Any = self.defaults | {name: make() for key, (name, make) in self.made.items() if key not in data}
        for key, value in data.items():
            name, read = self.fields[key]
            loaded[name] = read(value, key, data)
        for check in self.checks:
            check(loaded, data)
        for change in self.changes:
            loaded = change(loaded, data)
        return loaded


def _reader(field: Field[Any]) -> Read:
    """The field's `deserialize`, or a quicker one that does the same."""
    if field.pre_load or field.post_load or not _is_as_in(Field, field, READS):
        return field.deserialize
    deserialize, validators = field._deserialize, field.validators

    def read(value: Any, key: str, data: Mapping[str, Any]) -> Any:
        if value is None:
            return field.deserialize(value, key, data)
        loaded = deserialize(value, key, data)
        for validate in validators:
            validate(loaded)
        return loaded

    return read


def _hooks(schema: Schema, tag: str) -> list[Hook]:
    return [_hook(getattr(schema, name), **options) for name, _, options in schema._hooks[tag]]


def _hook(function: Callable[..., Any], *, pass_original: bool = False, **_: Any) -> Hook:
    if pass_original:
        return lambda loaded, data: function(loaded, data, **WHOLE)
    return lambda loaded, _: function(loaded, **WHOLE)
