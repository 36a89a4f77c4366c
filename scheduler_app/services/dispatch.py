"""How due tasks get to Redis. The only place that publishes.

A row is committed first and published afterwards, so that Redis never knows a task that the database does not know. The
relay finds the tasks that were not published: Redis was down, the process died in between, or the task was not due.
Publishing a message that is still in Redis does nothing, so it is safe to publish again whenever in doubt.
"""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from operator import attrgetter
from types import SimpleNamespace
from typing import Any

from redis import RedisError
from sqlalchemy import Row, select, tuple_

from scheduler_app.broker import Delivery, NotAsked, message_id
from scheduler_app.config import PRIORITIES
from scheduler_app.extensions import broker, db
from scheduler_app.models import WAITING, Task
from scheduler_app.services.row_locks import update_tasks

log = logging.getLogger(__name__)

RESYNC_BATCH = 5_000
GRACE = timedelta(seconds=2)  # the process that accepts a task publishes it; the relay leaves it that much time


def publish(tasks: Sequence[Row[Any] | SimpleNamespace], *, first: bool = False) -> bool:
    """Sends committed tasks that are due. False when Redis is away or full: the relay sends them later.

    first: they come before all that waits at their priority, the last one of them at the very front.
    """
    deliveries = (Delivery(task.task_id, task.claims, task.operation, task.priority, task.group) for task in tasks)
    try:
        broker.publish(deliveries, first=first)
    except NotAsked:
        return False
    except RedisError as error:
        log.warning("%d tasks wait for the relay: %s", len(tasks), error)
        return False
    return True


def relay(*, now: datetime, limit: int = 1000) -> int:
    """Sends the due tasks that are not known to be in Redis, the most urgent first. Returns how many it sent.

    Any number of relays may run at once: a task that two of them send is delivered once.
    """
    tasks = _unsent(now, limit)
    db.session.rollback()
    if not tasks or not publish(tasks):
        return 0
    _mark(tasks, enqueued_at=now)
    db.session.commit()
    return len(tasks)


def resync(*, now: datetime, thorough: bool = False) -> int:
    """Restores the messages that Redis has lost. Returns how many.

    Messages that only the lists have lost go back at once. If Redis may have lost messages too, this finds the tasks
    whose message is missing, and the relay sends them again. With `thorough` it also looks when there is no sign of a
    loss, since a message may have been evicted, or lost just before its task was marked as sent. It reads the waiting
    tasks in batches, so that a million of them do not fill the memory.
    """
    if restored := broker.lists.restore():
        log.warning("Redis has lost %d messages from its lists; they are back", restored)
    if broker.marker.intact() and not thorough:
        return restored
    begun = broker.marker.begin()
    missing, last = 0, 0
    while batch := _sent(after=last):
        missing += _mark_unsent(batch)
        last = batch[-1].task_id
    broker.marker.end(begun)
    if missing:
        log.warning("Redis has lost %d messages; they are sent again", missing)
    return restored + missing


def _sent(*, after: int) -> Sequence[Row[Any]]:
    query = select(Task.task_id, Task.claims, Task.priority).where(Task.enqueued_at.is_not(None))
    query = query.where(Task.status.in_(WAITING), Task.task_id > after).order_by(Task.task_id).limit(RESYNC_BATCH)
    rows: list[Row[Any]] = list(db.session.execute(query))
    db.session.rollback()
    return rows


def _mark_unsent(tasks: Sequence[Row[Any]]) -> int:
    ids: dict[int, list[str]] = {}
    for task in tasks:
        ids.setdefault(task.priority, []).append(message_id(task.task_id, task.claims))
    held = broker.holds(ids)
    missing = [task for task in tasks if message_id(task.task_id, task.claims) not in held]
    _mark(missing, enqueued_at=None)
    db.session.commit()
    return len(missing)


def _unsent(now: datetime, limit: int) -> list[Row[Any]]:
    # One priority at a time, so that the index gives the most urgent tasks without a sort of all waiting ones.
    tasks: list[Row[Any]] = []
    for priority in PRIORITIES:
        query = (
            select(Task.task_id, Task.claims, Task.operation, Task.priority, Task.group, Task.run_at)
            .where(Task.status.in_(WAITING), Task.enqueued_at.is_(None), Task.priority == priority)
            .where(Task.run_at <= now, (Task.run_at <= now - GRACE) | (Task.run_at > Task.created_at))
            .order_by(Task.run_at)
            .limit(limit - len(tasks))
        )
        # Those of one batch have the same time, and the index has them as they happen to stand in the table.
        tasks += sorted(db.session.execute(query), key=attrgetter("run_at", "task_id"))
        if len(tasks) == limit:
            break
    return tasks


def _mark(tasks: Sequence[Row[Any]], *, enqueued_at: datetime | None) -> None:
    # `claims` must match as well: a task that has failed in between waits for a newer message.
    sent = [(task.task_id, task.claims) for task in tasks]
    db.session.execute(
        update_tasks(tuple_(Task.task_id, Task.claims).in_(sent), Task.status.in_(WAITING)).values(
            enqueued_at=enqueued_at
        )
    )
