"""Priorities that are paused: no task of theirs begins. Tasks that run go on, and posting goes on.

The table is the truth. Redis has a copy, which every pull reads, so that all workers pause at the same moment. Whoever
changes the table renews the copy. So does the scheduler every second, and a worker whenever Redis may have lost it.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from flask import Flask
from redis import RedisError
from sqlalchemy import Row, Select, delete, select
from sqlalchemy.exc import SQLAlchemyError

from scheduler_app import database
from scheduler_app.broker import message_id, queue_name
from scheduler_app.config import PRIORITIES
from scheduler_app.database import DIRECT, begin_write
from scheduler_app.errors import PriorityNotFound
from scheduler_app.extensions import broker, db
from scheduler_app.models import WAITING, PausedPriority, Status, Task
from scheduler_app.services import audit, callers, counts
from scheduler_app.services.callbacks import CALLS_BACK, ended
from scheduler_app.services.row_locks import update_tasks

log = logging.getLogger(__name__)

MAX_NOTE = 500  # characters
PURGED = 1_000  # tasks that one call cancels
PATIENCE = 2.0  # seconds that a worker waits for the table


def find() -> dict[int, PausedPriority]:
    """Those that are paused, by priority."""
    return {row.priority: row for row in db.session.scalars(select(PausedPriority))}


def pause(priority: int, *, note: str | None = None, now: datetime) -> PausedPriority:
    """No worker begins a task of it from now on. Of a paused one this changes the note. Raises PriorityNotFound."""
    _check(priority)
    values = {"priority": priority, "note": note, "paused_at": now, "paused_by": callers.name()}
    statement = database.insert(PausedPriority).values(**values)
    db.session.execute(statement.on_conflict_do_update(index_elements=["priority"], set_={"note": note}))
    audit.record("queue.pause", priority, details={"note": note}, now=now)
    db.session.commit()
    _copy_now()
    return db.session.get_one(PausedPriority, priority)


def resume(priority: int, *, now: datetime) -> None:
    """Workers go on with it at once. Does nothing if it is not paused. Raises PriorityNotFound."""
    _check(priority)
    resumed = db.session.execute(delete(PausedPriority).where(PausedPriority.priority == priority))
    if resumed.rowcount:  # type: ignore[attr-defined]
        audit.record("queue.resume", priority, now=now)
    db.session.commit()
    _copy_now()


def purge(priority: int, *, now: datetime, limit: int = PURGED) -> dict[str, int]:
    """Cancels the oldest tasks of the priority that are due and wait, at most `limit`.

    Returns how many were `cancelled`, and how many `remaining` ones wait, which counts at most 10,000. Raises
    PriorityNotFound.
    """
    _check(priority)
    begin_write()
    waiting = _due(priority, now)
    purged = _cancel(db.session.scalars(waiting.order_by(Task.task_id).limit(limit)).all(), now)
    if purged:
        audit.record("queue.purge", priority, count=len(purged), now=now)
    db.session.commit()
    with suppress(RedisError):  # a worker that gets such a message finds its task out of date
        broker.discard(priority, (message_id(task.task_id, task.claims) for task in purged))
    return {"cancelled": len(purged), "remaining": counts.capped(waiting)}


def waiting(priority: int, *, now: datetime) -> int:
    """How many tasks a purge would reach; counts at most 10,000. Raises PriorityNotFound."""
    _check(priority)
    return counts.capped(_due(priority, now))


def renew(*, now: datetime) -> int:
    """Copies the table to Redis. A duty of the scheduler. Raises RedisError."""
    broker.pauses.copy(_paused_queues)
    return 0


def ask(app: Flask) -> set[str] | None:
    """The queues that are paused, for a thread without a session; None when the table does not tell."""
    try:
        with database.deadline(PATIENCE), app.app_context():
            return _paused_queues()
    except SQLAlchemyError as error:
        log.warning("no task begins until the table tells which priorities are paused: %s", error)
        return None


def _due(priority: int, now: datetime) -> Select[Any]:
    return select(Task.task_id).where(Task.status.in_(WAITING), Task.priority == priority, Task.run_at <= now)


def _check(priority: int) -> None:
    if priority not in PRIORITIES:
        raise PriorityNotFound(priority)


def _cancel(task_ids: Sequence[int], now: datetime) -> list[Row[Any]]:
    statement = update_tasks(Task.task_id.in_(task_ids), Task.status.in_(WAITING))
    statement = statement.values(status=Status.CANCELLED, finished_at=now)
    cancelled: list[Row[Any]] = list(db.session.execute(statement.returning(Task.task_id, Task.claims, CALLS_BACK)))
    ended(cancelled, now=now)
    return cancelled


def _paused_queues() -> set[str]:
    with db.engines[DIRECT].connect() as connection:
        return {queue_name(priority) for priority in connection.scalars(select(PausedPriority.priority))}


def _copy_now() -> None:
    try:
        broker.pauses.copy(_paused_queues)
    except RedisError as error:
        log.warning("Redis does not know yet which priorities are paused: %s", error)
