"""Writes about a task what a worker would write, without a worker."""

import json
from contextlib import closing
from datetime import datetime
from typing import Any

from scheduler_app.services.attempts import Attempt
from scheduler_app.worker.status_writer import StatusWriter


def claim(task_id: int, claims: int, *, worker_id: str, now: datetime) -> Attempt | None:
    with closing(StatusWriter(worker_id)) as writer:
        return writer.claim((task_id, claims), now=now)


def succeed(attempt: Attempt, result: Any, *, now: datetime) -> bool:
    with closing(StatusWriter("")) as writer:
        return writer.succeed(attempt, json.dumps(result), now=now)[0]
