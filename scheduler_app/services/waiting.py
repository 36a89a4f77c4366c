"""Why a task does not run yet."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from redis import RedisError
from sqlalchemy import select

from scheduler_app.broker import message_id, queue_name
from scheduler_app.extensions import broker, db
from scheduler_app.models import WAITING, PausedPriority, Task, Worker


class WaitingFor(StrEnum):
    """Why a task does not run yet. If several reasons hold, the first in this order is given."""

    EXPIRY = "expiry"  # its time to begin is over; the scheduler has yet to end it
    OPERATION = "operation"  # no worker that could take it knows its operation
    TIME = "time"  # its run_at has not come
    PAUSED = "paused"  # it is due, and its priority is paused
    REDIS = "redis"  # it is due, and Redis does not answer
    RELAY = "relay"  # it is due, and the scheduler has yet to send it to Redis
    WORKER = "worker"  # no living worker takes tasks from its queue
    LIMIT = "limit"  # a limit of its operation has no room
    TURN = "turn"  # others come before it, or all workers are busy


def reason(task: Task, *, now: datetime) -> dict[str, Any] | None:
    """The `reason`, with details about it. None for a task that does not wait."""
    if task.status not in WAITING:
        return None
    if task.expires_at and task.expires_at <= now:
        return {"reason": WaitingFor.EXPIRY, "expires_at": task.expires_at}
    known = _known_to_workers(task)
    if task.unknown_since or known is False:
        return {"reason": WaitingFor.OPERATION, "operation": task.operation, "run_at": task.run_at}
    if task.run_at > now:
        return {"reason": WaitingFor.TIME, "run_at": task.run_at}
    if pause := db.session.get(PausedPriority, task.priority):
        note = {"note": pause.note, "paused_at": pause.paused_at}
        return {"reason": WaitingFor.PAUSED, "priority": task.priority, **note}
    return _place(task, has_worker=known is not None)


def _known_to_workers(task: Task) -> bool | None:
    """Whether a worker of its queue knows its operation; None when its queue has no worker."""
    queue, workers = queue_name(task.priority), db.session.execute(select(Worker.queues, Worker.operations))
    known = [operations is None or task.operation in operations for queues, operations in workers if queue in queues]
    return any(known) if known else None


def _place(task: Task, *, has_worker: bool) -> dict[str, Any]:
    try:
        place = broker.place(task.priority, message_id(task.task_id, task.claims))
    except RedisError:
        return {"reason": WaitingFor.REDIS}
    if place is None:
        return {"reason": WaitingFor.RELAY}
    if not has_worker:
        return {"reason": WaitingFor.WORKER, "queue": queue_name(task.priority)}
    if place.limit:
        return {"reason": WaitingFor.LIMIT, "limit": place.limit, "seconds": place.seconds, "ahead": place.ahead}
    return {
        "reason": WaitingFor.TURN,
        "priority": task.priority,
        "ahead": place.ahead,
        "more_urgent": place.more_urgent,
    }
