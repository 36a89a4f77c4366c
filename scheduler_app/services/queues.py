"""The state of the queue of each priority."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import func, select

from scheduler_app.config import PRIORITIES
from scheduler_app.extensions import broker, db, settings
from scheduler_app.models import PausedPriority, Status, Task
from scheduler_app.services import pauses


def find(*, now: datetime) -> list[dict[str, Any]]:
    """One row per priority, the most urgent first. Raises RedisError."""
    waiting, oldest = broker.waiting(), _oldest_run_at(broker.heads())
    counted, paused = _counts(), pauses.find()
    return [
        {
            "priority": priority,
            "queue": name,
            "weight": settings.priority_weights[priority],
            "waiting": waiting[priority],
            "oldest_waiting_seconds": _age(oldest.get(priority), now),
            "running": counted.get((priority, Status.STARTED), 0),
            "retrying": counted.get((priority, Status.RETRYING), 0),
            "dead_letters": counted.get((priority, Status.ERROR), 0),
            **pause_of(priority, paused),
        }
        for priority, name in zip(PRIORITIES, broker.weights, strict=True)
    ]


def pause_of(priority: int, paused: Mapping[int, PausedPriority]) -> dict[str, Any]:
    """Whether the priority is paused, and why, since when and by whom, as answers show it."""
    row = paused.get(priority)
    return {
        "paused": row is not None,
        "pause_note": row and row.note,
        "paused_at": row and row.paused_at,
        "paused_by": row and row.paused_by,
    }


def _age(run_at: datetime | None, now: datetime) -> float | None:
    return None if run_at is None else max(0.0, (now - run_at).total_seconds())


def _counts() -> dict[tuple[int, str], int]:
    query = select(Task.priority, Task.status, func.count()).group_by(Task.priority, Task.status)
    statuses = (Status.STARTED, Status.RETRYING, Status.ERROR)  # as ix_task_not_done has them
    rows = db.session.execute(query.where(Task.status.in_(statuses)))
    return {(priority, status): count for priority, status, count in rows}


def _oldest_run_at(heads: list[int | None]) -> dict[int, datetime]:
    """When the tasks at the heads of the queues were due, by priority."""
    ids = [task_id for task_id in heads if task_id is not None]
    rows = db.session.execute(select(Task.priority, Task.run_at).where(Task.task_id.in_(ids)))
    return {row.priority: row.run_at for row in rows}
