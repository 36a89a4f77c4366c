"""Operations, as they go out."""

import json
from typing import Any

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from marshmallow import fields

from scheduler_app.operations import Operation
from scheduler_app.schemas.base import AnswerSchema


def json_schema(operation: Operation) -> dict[str, Any]:
    """The JSON Schema (2020-12) of the operation's parameters; schemas nested in it stand in its `$defs`."""
    plugin = MarshmallowPlugin()
    spec = APISpec(title="", version="", openapi_version="3.1.0", plugins=[plugin])
    assert plugin.converter is not None  # made by APISpec
    schema = plugin.converter.schema2jsonschema(operation.params())  # type: ignore[no-untyped-call]
    nested = spec.components.to_dict().get("schemas")
    text = json.dumps(schema | ({"$defs": nested} if nested else {}))
    described: dict[str, Any] = json.loads(text.replace('"#/components/schemas/', '"#/$defs/'))
    return described


class OperationOut(AnswerSchema):
    """A kind of task, and what it needs."""

    name = fields.String(metadata={"description": "What `operation` of a task names.", "example": "calculate"})
    description = fields.String(metadata={"description": "What it does.", "example": "Computes an expression."})
    params = fields.Function(
        json_schema,
        metadata={
            "type": "object",
            "description": "JSON Schema of the parameters.",
            "example": {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]},
        },
    )
    max_retries = fields.Integer(
        metadata={"description": "Attempts after the first, when the task does not say.", "example": 5}
    )
    time_limit = fields.Float(metadata={"description": "Seconds that one attempt may take.", "example": 600})
