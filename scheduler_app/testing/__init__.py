"""For tests of one's own operations: one operation alone, or everything."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from scheduler_app.operations import Operation, lookup, registered
from scheduler_app.services.attempts import Attempt
from scheduler_app.testing.everything import Backbeat, StartFailed, everything
from scheduler_app.worker import running
from scheduler_app.worker.execution import perform

__all__ = ["Backbeat", "Done", "StartFailed", "everything", "run"]

TASK_ID = 17


@dataclass(frozen=True)
class Done:
    """What an attempt that has succeeded leaves."""

    result: Any  # as it is read from JSON
    progress: dict[str, Any] | None  # percent and message, as the operation last said


def run(
    operation: str | Callable[..., Any],
    params: Mapping[str, Any] | None = None,
    *,
    task_id: int = TASK_ID,
    attempt: int = 1,
    time_limit: float | None = None,
    cancelled: bool = False,
) -> Done:
    """Runs an operation, or the function that is one, as a worker would: in this thread, and without any server.

    Raises marshmallow's ValidationError for parameters with which a post would be refused, and what the operation
    raises. A worker would try again after any error but a PermanentError. `time_limit` stands in for the operation's
    own, and `cancelled` is a task that is to stop when it begins.
    """
    known = _known(operation)
    given = json.loads(json.dumps(params or {}))
    known.check(given)
    claimed = Attempt(task_id, attempt, attempt, known.max_retries, known.name, given)
    with running.registered(claimed) as task:
        if cancelled:
            task.cancel()
        result = perform(task, time_limit=time_limit)
        return Done(json.loads(result), task.take_progress())


def _known(operation: str | Callable[..., Any]) -> Operation:
    if isinstance(operation, str):
        found = lookup(operation)
    else:
        found = next((known for known in registered() if known.function is operation), None)
    if found is None:
        raise LookupError(f"{operation!r} is no operation; has its module been imported?")
    return found
