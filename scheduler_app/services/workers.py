"""Who works: each worker process keeps a row alive, and what a lost one had begun is begun again.

A worker is lost when its heartbeat has been still for DEAD_AFTER. Its row goes, and an attempt whose worker has no
row counts as failed. A worker that was only slow finds its attempts taken away, and comes back with its next heartbeat.
"""

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, exists, select, update

from scheduler_app.database import begin_write
from scheduler_app.extensions import db
from scheduler_app.models import Status, Task, Worker
from scheduler_app.services import attempts
from scheduler_app.services.attempts import WorkerLost

HEARTBEAT = 3.0  # seconds
DEAD_AFTER = timedelta(seconds=12)
SETTLED = timedelta(seconds=6)  # an attempt younger than this may have a worker that just comes back to its row
STALL = 3.0  # seconds without a look at the heartbeats, after which they prove nothing


def beat(worker: dict[str, Any], *, clock_offset: float, now: datetime) -> None:
    """Renews the worker's row; makes it, for a new worker and for one that was taken for dead."""
    seen = {"seen_at": now, "clock_offset": clock_offset}
    renewed = db.session.execute(update(Worker).where(Worker.worker_id == worker["worker_id"]).values(**seen))
    if not renewed.rowcount:  # type: ignore[attr-defined]
        db.session.add(Worker(**worker, **seen))
    db.session.commit()


def leave(worker_id: str, *, now: datetime) -> None:
    """For a worker that ends: its row goes, and what it has not finished is begun again elsewhere."""
    begin_write()
    db.session.execute(delete(Worker).where(Worker.worker_id == worker_id))
    _abandon(attempts.started(Task.worker_id == worker_id), "The worker was stopped before the attempt was done.", now)
    db.session.commit()


def disown(worker_id: str, running: Sequence[int], *, now: datetime) -> int:
    """Fails attempts that stand as this worker's and do not run there: the answer to their claim was lost."""
    begin_write()
    conditions = (Task.worker_id == worker_id, Task.task_id.not_in(running), Task.started_at < now - SETTLED)
    lost = attempts.started(*conditions)
    _abandon(lost, "The worker did not hear that it had claimed the task.", now)
    db.session.commit()
    return len(lost)


class Reaper:
    """Finds lost workers, and fails the attempts that they had begun."""

    def __init__(self) -> None:
        self._looked_at = float("-inf")
        self._trusts_from = float("-inf")

    def reap(self, *, now: datetime) -> int:
        """Returns how many attempts it failed; now is by the database's clock.

        When the database or this process has stood still, every heartbeat looks old: the workers get time to renew it.
        """
        if not self._trusted():
            return 0
        begin_write()
        silent = select(Worker.worker_id).where(Worker.seen_at < now - DEAD_AFTER)
        db.session.execute(delete(Worker).where(Worker.worker_id.in_(silent.with_for_update(skip_locked=True))))
        alive = exists().where(Worker.worker_id == Task.worker_id)
        lost = attempts.started(~alive, Task.started_at < now - SETTLED)
        _abandon(lost, "The worker that ran the attempt was lost: it was killed, or silent for too long.", now)
        db.session.commit()
        return len(lost)

    def _trusted(self) -> bool:
        previous, self._looked_at = self._looked_at, time.monotonic()
        if self._looked_at - previous > STALL:
            self._trusts_from = self._looked_at + 2 * HEARTBEAT
        return self._looked_at >= self._trusts_from


def find() -> list[dict[str, Any]]:
    """Each living worker with the tasks that it runs now."""
    workers = db.session.scalars(select(Worker).order_by(Worker.started_at)).all()
    running = db.session.scalars(select(Task).where(Task.status == Status.STARTED).order_by(Task.started_at)).all()
    return [
        vars(worker) | {"running": [task for task in running if task.worker_id == worker.worker_id]}
        for worker in workers
    ]


def _abandon(lost: Sequence[attempts.Attempt], message: str, now: datetime) -> None:
    for attempt in lost:
        attempts.record_failure(attempt, WorkerLost(message), now=now)
