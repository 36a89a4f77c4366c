"""How due tasks get to Redis. The only place that publishes.

A row is committed first and published after, so that Redis never knows of a task that the database does not. What
was not published (Redis was down, the process died in between, the time had not come) is found by the relay.
Publishing what is still in Redis does nothing, so it is safe to do it again whenever in doubt.
"""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from redis import RedisError
from sqlalchemy import Row, select, tuple_, update

from scheduler_app.broker import Delivery
from scheduler_app.config import PRIORITIES
from scheduler_app.extensions import broker, db
from scheduler_app.models import WAITING, Task

log = logging.getLogger(__name__)

GRACE = timedelta(seconds=2)  # what was just posted is being published by the process that took it


def publish(tasks: Sequence[Row[Any]]) -> bool:
    """Sends committed tasks that are due. False when Redis does not answer: the relay sends them later."""
    try:
        broker.publish(Delivery(task.task_id, task.claims, task.operation, task.priority) for task in tasks)
    except RedisError as error:
        log.warning("%d tasks wait for the relay: %s", len(tasks), error)
        return False
    return True


def relay(*, now: datetime, limit: int = 1000) -> int:
    """Sends what is due and not yet known to be in Redis, the most urgent first; returns how many it sent.

    Any number of relays may run at once: what two of them send is delivered once.
    """
    tasks = _unsent(now, limit)
    db.session.rollback()
    if not tasks or not publish(tasks):
        return 0
    _mark_sent(tasks, now)
    db.session.commit()
    return len(tasks)


def _unsent(now: datetime, limit: int) -> list[Row[Any]]:
    # Level by level, so that the index gives the most urgent without sorting all that waits.
    tasks: list[Row[Any]] = []
    for priority in PRIORITIES:
        query = (
            select(Task.task_id, Task.claims, Task.operation, Task.priority)
            .where(Task.status.in_(WAITING), Task.enqueued_at.is_(None), Task.priority == priority)
            .where(Task.run_at <= now, (Task.run_at <= now - GRACE) | (Task.run_at > Task.created_at))
            .order_by(Task.run_at)
            .limit(limit - len(tasks))
        )
        tasks += db.session.execute(query)
        if len(tasks) == limit:
            break
    return tasks


def _mark_sent(tasks: Sequence[Row[Any]], now: datetime) -> None:
    # claims as well: a task that has failed in between waits for another message than the one just sent.
    sent = [(task.task_id, task.claims) for task in tasks]
    db.session.execute(
        update(Task)
        .where(tuple_(Task.task_id, Task.claims).in_(sent), Task.status.in_(WAITING))
        .values(enqueued_at=now)
        .execution_options(synchronize_session=False)
    )
