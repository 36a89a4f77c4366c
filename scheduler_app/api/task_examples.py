"""Example tasks that can be posted unchanged: one for each registered operation, and one for a later time."""

from typing import Any

from apispec import BasePlugin

from scheduler_app.operations import Operation, offered
from scheduler_app.schemas.operations import json_schema

Examples = dict[str, dict[str, Any]]

BY_TYPE: dict[str, Any] = {"string": "", "integer": 1, "number": 1.0, "boolean": True, "array": [], "object": {}}


class TaskExamples(BasePlugin):
    """Puts the examples into the specification when the application is made, since operations are known only then."""

    def __init__(self, *, port: int) -> None:
        self.port = port

    def operation_helper(
        self, path: str | None = None, operations: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        if kwargs["rule"].endpoint == "tasks.submit_task":
            body = (operations or {})["post"]["requestBody"]["content"]["application/json"]
            body["examples"] = task_examples(self.port)


def task_examples(port: int) -> Examples:
    """The examples by name. Swagger shows the first one."""
    others = [operation for operation in offered() if operation.name not in ("calculate", "http_request")]
    return {
        "calculate": _example("an arithmetic expression", operation="4+7"),
        "later": _example("a task for later", operation="4+7", run_at="2040-01-01T00:00:00Z", priority=9),
        # The task calls this server itself: it surely runs, and a call of /livez does no harm.
        "http_request": _example(
            "an HTTP call", operation="http_request", params={"url": f"http://127.0.0.1:{port}/livez"}, max_retries=1
        ),
    } | {
        operation.name: _example(
            operation.summary or operation.name, operation=operation.name, params=_params(operation)
        )
        for operation in others
    }


def _example(summary: str, **value: Any) -> dict[str, Any]:
    return {"summary": summary, "value": value}


def _params(operation: Operation) -> dict[str, Any]:
    """The required parameters: each with its own example, else with a value of its type."""
    schema = json_schema(operation)
    return {name: _value(schema["properties"][name]) for name in schema.get("required", ())}


def _value(schema: dict[str, Any]) -> Any:
    if "example" in schema:
        return schema["example"]
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type", "object")
    return schema.get("minimum", BY_TYPE.get(kind if isinstance(kind, str) else kind[0]))
