"""How often a task or a schedule's tasks are tried again, and after which pauses, as requests change it."""

from typing import Any

from scheduler_app import operations
from scheduler_app.operations import USUAL


def changed(operation: str, fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a change as columns. What `retry` does not give of the pauses, the operation says."""
    if "retry" not in fields:
        return fields
    given: dict[str, Any] = fields["retry"] or {}
    known = operations.lookup(operation)
    pauses = (known.retry if known else USUAL).changed(given).pauses
    number = {"max_retries": given["max_retries"]} if "max_retries" in given else {}
    return fields | {"retry": pauses} | number
