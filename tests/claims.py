"""What a worker writes about a task, without a worker."""

import json
from datetime import datetime
from typing import Any

from scheduler_app.database import DIRECT
from scheduler_app.extensions import db
from scheduler_app.services.attempts import Attempt
from scheduler_app.services.status_writer import StatusWriter


def claim(task_id: int, claims: int, *, worker_id: str, now: datetime) -> Attempt | None:
    return StatusWriter(db.engines[DIRECT], worker_id).claim((task_id, claims), now=now)


def succeed(attempt: Attempt, result: Any, *, now: datetime) -> bool:
    return StatusWriter(db.engines[DIRECT], "").succeed(attempt, json.dumps(result), now=now)[0]
