"""Operations, as answers show them."""

import json
from typing import Any

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from marshmallow import fields

from scheduler_app.operations import Operation
from scheduler_app.schemas.base import AnswerSchema
from scheduler_app.schemas.retries import RetryOut


def json_schema(operation: Operation) -> dict[str, Any]:
    """The JSON Schema (2020-12) of the operation's parameters. Nested schemas are in its `$defs`."""
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

    name = fields.String(metadata={"description": "The name to give in a task's `operation`.", "example": "calculate"})
    summary = fields.String(
        attribute="operation.summary",
        metadata={"description": "What it does, in one line.", "example": "Computes an expression."},
    )
    description = fields.String(
        metadata={
            "description": "The full description: what it needs, returns, retries and refuses.",
            "example": "Computes an expression.",
        }
    )
    params = fields.Function(
        lambda known: json_schema(known["operation"]),
        metadata={
            "type": "object",
            "description": "JSON Schema of the parameters.",
            "example": {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]},
        },
    )
    max_retries = fields.Integer(
        metadata={"description": "Attempts after the first, unless the task sets its own number.", "example": 5}
    )
    retry = fields.Nested(
        RetryOut,
        metadata={
            "description": "What holds unless the task says otherwise. The first lost worker of a task costs no pause."
        },
    )
    time_limit = fields.Float(metadata={"description": "Seconds that one attempt may take.", "example": 600})
    internal = fields.Boolean(
        attribute="operation.internal",
        metadata={"description": "Whether Backbeat makes such tasks itself, so that none can be posted."},
    )
    workers = fields.Integer(metadata={"description": "How many living workers know it.", "example": 2})
    secrets = fields.List(
        fields.String(),
        metadata={
            "description": "Names of the secrets that these workers know, if its parameters may name secrets.",
            "example": ["SHOP_TOKEN"],
        },
    )
