"""The state of the queue of each priority."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import func, select

from scheduler_app.config import PRIORITIES
from scheduler_app.extensions import broker, db, settings
from scheduler_app.models import FAILING, UNSENT, PausedPriority, Status, Task
from scheduler_app.services import pauses

MOST_SCHEDULED = 100_000


def find(*, now: datetime) -> list[dict[str, Any]]:
    """One row per priority, the most urgent first. Raises RedisError."""
    found, paused = depths(now=now), pauses.find()
    retrying, failed = count(Status.RETRYING), count(Status.ERROR)
    return [
        {
            **depth,
            "queue": name,
            "weight": settings.priority_weights[priority],
            "retrying": retrying.get(priority, 0),
            "dead_letters": failed.get(priority, 0),
            **pause_of(priority, paused),
        }
        for priority, name, depth in zip(PRIORITIES, broker.weights, found, strict=True)
    ]


def depths(*, now: datetime) -> list[dict[str, Any]]:
    """What waits and runs at each priority, and no more, so that it may be asked often. Raises RedisError."""
    waiting, oldest, running = broker.waiting(), _oldest_run_at(broker.heads()), count(Status.STARTED)
    return [
        {
            "priority": priority,
            "waiting": waiting[priority],
            "oldest_waiting_seconds": _age(oldest.get(priority), now),
            "running": running.get(priority, 0),
        }
        for priority in PRIORITIES
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


def count(status: Status) -> dict[int, int]:
    """How many tasks are STARTED, RETRYING or in ERROR, by priority."""
    query = select(Task.priority, func.count()).where(Task.status == status).group_by(Task.priority)
    if status != Status.STARTED:  # few tasks at a time, for which the index by status is enough
        query = query.where(FAILING)  # SQLite takes a partial index only when the query repeats its condition
    return {row.priority: row[1] for row in db.session.execute(query)}


def scheduled(*, now: datetime) -> int:
    """How many tasks wait for their time; MOST_SCHEDULED at most are counted."""
    later = select(Task.task_id).where(UNSENT, Task.run_at > now).limit(MOST_SCHEDULED).subquery()
    return db.session.execute(select(func.count()).select_from(later)).scalar_one()


def _oldest_run_at(heads: list[int]) -> dict[int, datetime]:
    """When the tasks at the heads of the queues were due, by priority."""
    oldest = select(Task.priority, func.min(Task.run_at)).where(Task.task_id.in_(heads)).group_by(Task.priority)
    return {row[0]: row[1] for row in db.session.execute(oldest)}
