"""Changes to tasks after they were posted: cancel, retry, and change when or how urgently they run."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, case, literal, null

from scheduler_app.database import begin_write
from scheduler_app.database.columns import UTCDateTime
from scheduler_app.errors import WrongState
from scheduler_app.extensions import db
from scheduler_app.models import WAITING, Status, Task
from scheduler_app.services import audit, backlog, callers, dispatch, history, retries, tasks, unique
from scheduler_app.services.callbacks import CALLS_BACK, ended
from scheduler_app.services.row_locks import update_tasks

CANCELLABLE = (*WAITING, Status.STARTED)
RETRIABLE = (Status.ERROR, Status.CANCELLED, Status.EXPIRED)


def cancel(task_id: int, *, now: datetime) -> Task:
    """A waiting task is CANCELLED at once. A running task is asked to stop; if it still succeeds, it is a SUCCESS."""
    reached = cancel_all([task_id], now=now)
    if reached:
        audit.record("task.cancel", task_id, now=now)
    db.session.commit()
    task = tasks.get(task_id)
    if not reached:
        raise WrongState(f"Task {task_id} is {task.status}; only one that waits or runs can be cancelled.")
    return task


def cancel_all(task_ids: Sequence[int], *, now: datetime) -> set[int]:
    """Like `cancel`, for many. Leaves finished tasks alone. Returns the ids of the others. The caller commits."""
    # One statement for all statuses: between two statements a worker could begin a task.
    runs = Task.status == Status.STARTED
    statement = update_tasks(*_reached(task_ids), Task.status.in_(CANCELLABLE)).values(
        status=case((runs, Status.STARTED), else_=Status.CANCELLED),
        finished_at=case((runs, null()), else_=literal(now, UTCDateTime())),
        cancel_requested=runs,
    )
    reached = db.session.execute(statement.returning(Task.task_id, CALLS_BACK)).all()
    ended(reached, now=now)
    return {task.task_id for task in reached}


def retry(task_id: int, *, now: datetime) -> Row[Any]:
    """Sets a task in ERROR, CANCELLED or EXPIRED back to PENDING, with no attempts counted."""
    backlog.check_room()
    return unique.raced(lambda: _retry(task_id, now))


def _retry(task_id: int, now: datetime) -> Row[Any]:
    begin_write()
    again = start_again([task_id], *Task.__table__.c, now=now)
    if again:
        audit.record("task.retry", task_id, now=now)
    db.session.commit()
    if not again:
        raise WrongState(_why_not_again(tasks.get(task_id)))
    dispatch.publish(again)
    return again[0]


def _why_not_again(task: Task) -> str:
    if task.status not in RETRIABLE:
        return f"Task {task.task_id} is {task.status}; only one in ERROR, CANCELLED or EXPIRED can be retried."
    key = (task.unique or {}).get("key")
    return f"Task {task.task_id} cannot run again now: task {unique.holder_of(task)} has its key {key!r}."


def change(task_id: int, *, now: datetime, **fields: Any) -> Row[Any]:
    """Changes `run_at`, `expires_at`, `priority`, `max_retries` and `retry` of a waiting task.

    A `run_at` of None or in the past means now.
    """
    named = sorted(fields)
    if "retry" in fields:
        fields = retries.changed(tasks.get(task_id).operation, fields)
    if "run_at" in fields:
        fields["run_at"] = max(fields["run_at"] or now, now)
    if fields.keys() & {"run_at", "priority"}:
        # The task gets a new message: the old one is in another queue, or comes too early. A worker that gets the old
        # one finds it out of date.
        fields |= {"claims": Task.claims + 1, "enqueued_at": None}
    statement = update_tasks(*_reached([task_id]), Task.status.in_(WAITING)).values({"task_id": Task.task_id} | fields)
    task = db.session.execute(statement.returning(*Task.__table__.c)).one_or_none()
    if task:
        audit.record("task.change", task_id, details={"fields": named}, now=now)
    db.session.commit()
    if task is None:
        raise WrongState(f"Task {task_id} is {tasks.get(task_id).status}; only one that waits can be changed.")
    if "claims" in fields and task.run_at <= now:
        dispatch.publish([task])
    return task


def start_again(task_ids: Sequence[int], *columns: Any, now: datetime) -> list[Row[Any]]:
    """Like `retry`, for many. Leaves other tasks alone, and those whose `unique` key another one holds.

    Returns these columns. The caller commits, then publishes.
    """
    ended = set(history.leave(*_reached(task_ids), Task.status.in_(RETRIABLE), now=now))
    ended -= unique.take_again([*ended], now=now)
    statement = update_tasks(Task.task_id.in_(ended)).values(
        status=Status.PENDING,
        claims=Task.claims + 1,  # the task gets a new message: the old one may be about to be acknowledged
        attempts=0,
        run_at=now,
        expires_at=case((Task.expires_at <= now, null()), else_=Task.expires_at),
        finished_at=None,
        enqueued_at=None,
        unknown_since=None,
        progress=null(),
        cancel_requested=False,
    )
    return list(db.session.execute(statement.returning(*columns)))


def _reached(task_ids: Sequence[int]) -> list[ColumnElement[bool]]:
    return [Task.task_id.in_(task_ids), *callers.within_reach(Task.operation)]
