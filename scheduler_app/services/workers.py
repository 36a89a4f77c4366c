"""The worker processes. Each keeps a row alive; the tasks of a lost worker are begun again.

A worker is lost when its heartbeat has not changed for DEAD_AFTER seconds. Then its row is deleted, and an attempt
without a worker's row counts as failed. A worker that was only slow loses its attempts, and comes back with its next
heartbeat. No process compares its own time with the time of another.
"""

import time
from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from itertools import chain
from typing import Any

from sqlalchemy import delete, exists, select, tuple_, update

from scheduler_app import operations
from scheduler_app.database import begin_write
from scheduler_app.extensions import db
from scheduler_app.models import Status, Task, Worker
from scheduler_app.services import attempts, callers
from scheduler_app.services.attempts import WorkerLost
from scheduler_app.services.sightings import Sightings

HEARTBEAT = 3.0  # seconds
SILENT_AFTER = 3 * HEARTBEAT
DEAD_AFTER = 12.0  # seconds
SETTLED = 6.0  # seconds until an attempt without a worker's row fails: the worker may be about to renew its row
SHOWN = (  # of a task that runs
    *(Task.task_id, Task.operation, Task.priority, Task.attempts, Task.started_at, Task.progress),
    *(Task.worker_id, Task.cancel_requested),
)
WITHOUT_WORKER = ~exists().where(Worker.worker_id == Task.worker_id)


def beat(worker: dict[str, Any], *, clock_offset: float, secrets: Sequence[str] = (), now: datetime) -> None:
    """Renews the worker's row. Creates it for a new worker, and for one that was taken for dead.

    secrets: the names of those that it knows now.
    """
    seen = {"seen_at": now, "clock_offset": clock_offset, "secrets": list(secrets)}
    renewed = db.session.execute(update(Worker).where(Worker.worker_id == worker["worker_id"]).values(**seen))
    if not renewed.rowcount:  # type: ignore[attr-defined]
        db.session.add(Worker(**worker, **seen))
    db.session.commit()


def leave(worker_id: str, *, now: datetime) -> None:
    """Deletes the row of a worker that ends. Its unfinished tasks are begun again elsewhere."""
    begin_write()
    db.session.execute(delete(Worker).where(Worker.worker_id == worker_id))
    _abandon(attempts.started(Task.worker_id == worker_id), "The worker was stopped before the attempt was done.", now)
    db.session.commit()


class Reaper:
    """Finds lost workers, and fails the attempts that they had begun.

    It only trusts what it has seen itself: a heartbeat that does not change, whatever time it shows.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._heartbeats = Sightings[tuple[str, datetime]](monotonic)
        self._ownerless = Sightings[tuple[int, int]](monotonic)

    def reap(self, *, now: datetime) -> int:
        """Returns how many attempts it failed."""
        silent, ownerless = self._silent(), self._without_worker()
        db.session.rollback()
        if not silent and not ownerless:
            return 0
        begin_write()
        gone = _remove(silent)
        theirs = Task.worker_id.in_(gone) | tuple_(Task.task_id, Task.claims).in_(ownerless)
        lost = attempts.started(WITHOUT_WORKER, theirs)
        _abandon(lost, "The worker that ran the attempt was lost: it was killed, or silent for too long.", now)
        db.session.commit()
        return len(lost)

    def _silent(self) -> list[tuple[str, datetime]]:
        rows = db.session.execute(select(Worker.worker_id, Worker.seen_at))
        return self._heartbeats.look((row.worker_id, row.seen_at) for row in rows).lasting(DEAD_AFTER)

    def _without_worker(self) -> list[tuple[int, int]]:
        rows = db.session.execute(
            select(Task.task_id, Task.claims).where(Task.status == Status.STARTED, WITHOUT_WORKER)
        )
        return self._ownerless.look((row.task_id, row.claims) for row in rows).lasting(SETTLED)


class Strays:
    """Attempts that the table gives to this worker but that do not run here: the answer to their claim was lost."""

    def __init__(self, worker_id: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.worker_id = worker_id
        self._seen = Sightings[tuple[int, int]](monotonic)

    def disown(self, here: Collection[tuple[int, int]], *, now: datetime) -> int:
        """Fails the strays that it has seen for SETTLED seconds, and returns how many.

        It waits that long because a task that was just claimed may still be on its way to the thread that runs it.

        here: `task_id` and `claims` of the attempts that run here, or are about to.
        """
        theirs = select(Task.task_id, Task.claims).where(
            Task.status == Status.STARTED, Task.worker_id == self.worker_id
        )
        standing = {(row.task_id, row.claims) for row in db.session.execute(theirs)}
        db.session.rollback()
        strays = self._seen.look(standing.difference(here)).lasting(SETTLED)
        if not strays:
            return 0
        begin_write()
        lost = attempts.started(Task.worker_id == self.worker_id, tuple_(Task.task_id, Task.claims).in_(strays))
        _abandon(lost, "The worker did not hear that it had claimed the task.", now)
        db.session.commit()
        return len(lost)


def living(*, now: datetime) -> Sequence[Worker]:
    """Those that have a fresh heartbeat."""
    fresh = Worker.seen_at >= now - timedelta(seconds=DEAD_AFTER)
    return db.session.scalars(select(Worker).where(fresh).order_by(Worker.started_at)).all()


def silent(*, now: datetime) -> Sequence[Worker]:
    """Those that have missed two heartbeats, and may be lost."""
    missed = Worker.seen_at < now - timedelta(seconds=SILENT_AFTER)
    return db.session.scalars(select(Worker).where(missed).order_by(Worker.seen_at)).all()


def find() -> list[dict[str, Any]]:
    """Each living worker with the tasks that it runs now, of those that the caller reaches, as plain data."""
    workers = db.session.execute(select(*Worker.__table__.c).order_by(Worker.started_at)).mappings().all()
    started = select(*SHOWN).where(Task.status == Status.STARTED, *callers.within_reach(Task.operation))
    running = db.session.execute(started.order_by(Task.started_at)).mappings().all()
    return [
        {**worker, "running": [dict(task) for task in running if task["worker_id"] == worker["worker_id"]]}
        for worker in workers
    ]


def known_operations() -> list[dict[str, Any]]:
    """What each operation that the caller reaches is; how many `workers` know it, and which `secrets` they know."""
    known = db.session.execute(select(Worker.operations, Worker.secrets)).all()
    found = []
    for operation in operations.registered():
        if not callers.wrong_reach(operation.name):
            secrets = [names or [] for here, names in known if operation.name in (here or [])]
            named = sorted({*chain(*secrets)}) if operation.takes_secrets else []
            told = {"operation": operation, "max_retries": operation.max_retries}
            found.append(vars(operation) | told | {"workers": len(secrets), "secrets": named})
    return found


def _remove(silent: Sequence[tuple[str, datetime]]) -> Sequence[str]:
    """Deletes the rows of those workers that have not renewed them since. Returns the workers' ids."""
    still = select(Worker.worker_id).where(tuple_(Worker.worker_id, Worker.seen_at).in_(silent))
    statement = delete(Worker).where(Worker.worker_id.in_(still.with_for_update(skip_locked=True)))
    return db.session.scalars(statement.returning(Worker.worker_id)).all()


def _abandon(lost: Sequence[attempts.Attempt], message: str, now: datetime) -> None:
    """Nobody knows of an attempt that was claimed in company whether it had begun. So it does not count this time."""
    attempts.give_back([attempt for attempt in lost if not attempt.begun], run_at=now, suspected=True, now=now)
    for attempt in lost:
        if attempt.begun:
            attempts.record_failure(attempt, WorkerLost(message), now=now)
