"""The base classes of all request schemas and all answer schemas."""

from collections.abc import Collection
from typing import Any, ClassVar

from marshmallow import Schema, ValidationError, validates_schema
from marshmallow.fields import Field

from scheduler_app.spelling import explain_unknown


class RequestSchema(Schema):
    """The base of requests. It reports all errors at once, each with the values that are allowed."""

    error_messages = {"type": "Must be a JSON object."}  # noqa: RUF012 (marshmallow's own way)
    is_optional = False  # whether a missing body counts as an empty object
    together: ClassVar[dict[str, Any]] = {}  # JSON Schema of what its checks ask of all fields together

    def handle_error(self, error: ValidationError, data: Any, **_: Any) -> None:
        explain_unknown(error.messages_dict, [field.data_key or name for name, field in self.load_fields.items()])


class QuerySchema(RequestSchema):
    """The parameters after the `?` of a URL."""

    @validates_schema(pass_original=True, skip_on_field_errors=False)
    def check_text(self, data: Any, original: Any, **_: Any) -> None:
        """PostgreSQL's text cannot hold NUL."""
        if wrong := [name for name in self.load_fields if any("\0" in value for value in original.getlist(name))]:
            raise ValidationError({name: ["Must not contain NUL."] for name in wrong})

    @validates_schema(pass_original=True, skip_on_field_errors=False)
    def check_given_once(self, data: Any, original: Any, **_: Any) -> None:
        fields = self.load_fields.items()
        single = [name for name, field in fields if not getattr(field, "is_multiple", False)]
        if repeated := [name for name in single if len(original.getlist(name)) > 1]:
            raise ValidationError({name: ["Given more than once; it takes one value."] for name in repeated})


class NoQuery(QuerySchema):
    """For calls that take no parameters."""

    def __init__(self, in_body: Collection[str] = ()) -> None:
        super().__init__()
        self.in_body = in_body  # the fields that the call takes there

    def handle_error(self, error: ValidationError, data: Any, **kwargs: Any) -> None:
        super().handle_error(error, data, **kwargs)
        misplaced = error.messages_dict.keys() & self.in_body
        error.messages_dict.update({name: ["Not allowed after the `?`: put it into the body."] for name in misplaced})


class AnswerSchema(Schema):
    """The base of answers. Every field is always there, unless its metadata says `optional`."""

    def on_bind_field(self, field_name: str, field_obj: Field[Any]) -> None:
        field_obj.required = not field_obj.metadata.get("optional", False)
