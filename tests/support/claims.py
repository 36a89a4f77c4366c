"""Writes about a task what a worker would write, without a worker."""

import json
from contextlib import closing
from datetime import datetime
from typing import Any

from scheduler_app.broker import Message, message_id, queue_name
from scheduler_app.services.attempts import Attempt
from scheduler_app.worker.status_writer import StatusWriter, Success


def message(task_id: int, claims: int = 0) -> Message:
    return Message(queue_name(5), message_id(task_id, claims), task_id, claims)


def success(attempt: Attempt, result: str = "2", *, progress: str | None = None, now: datetime) -> Success:
    return Success(attempt, result, progress, now, now)


def begun(writer: StatusWriter, one: Message, *, now: datetime) -> Attempt | None:
    """Claims the task for an attempt that begins at once."""
    return writer.settle([], [one], begun=True, now=now).claimed.get(one)


def ended(writer: StatusWriter, attempt: Attempt, result: str = "2", *, now: datetime) -> bool:
    return attempt[:2] in writer.settle([success(attempt, result, now=now)], [], now=now).succeeded


def claim(task_id: int, claims: int, *, worker_id: str, in_company: bool = False, now: datetime) -> Attempt | None:
    one = message(task_id, claims)
    with closing(StatusWriter(worker_id)) as writer:
        return writer.settle([], [one], begun=not in_company, now=now).claimed.get(one)


def succeed(attempt: Attempt, result: Any, *, now: datetime) -> bool:
    with closing(StatusWriter("")) as writer:
        return ended(writer, attempt, json.dumps(result), now=now)
