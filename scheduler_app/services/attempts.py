"""One attempt at a task, and its failure. Only here and in worker/status_writer.py does a worker change a status.

Each change is a compare-and-set. A claim checks the number of claims so far. The record of an outcome checks the number
that its claim gave. So a second delivery of a message, or a late reply, finds nothing to change.

An attempt that has not begun does not count: it is given back. Of an attempt whose worker was lost it may be unknown
whether it had begun. It is given back as well, but suspected: it may be what ended the worker.
"""

import traceback
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, CursorResult, Text, case, cast, insert, literal, null, select, tuple_, update

from scheduler_app.database import begin_write
from scheduler_app.database.columns import Json, UTCDateTime
from scheduler_app.extensions import db
from scheduler_app.models import Failure, Status, Task
from scheduler_app.operations import USUAL, PermanentError, RetryLater
from scheduler_app.services.callbacks import CALLS_BACK, ended
from scheduler_app.services.causes import fingerprint
from scheduler_app.services.row_locks import lock_schedules, update_tasks
from scheduler_app.services.task_schedules import pause_after_failure
from scheduler_app.tracing.contexts import Trace, kept

LATEST = 3_600.0  # seconds that an error may ask to wait
OPERATION_MAY_COME = timedelta(days=1)  # so long a task waits for a worker that knows its operation
MIN_WAIT = 5.0  # seconds until it is tried whether a worker knows the operation now
MAX_WAIT = 60.0
MAX_MESSAGE = 2_000  # characters of an error that are kept
MAX_TRACEBACK = 20_000


class Attempt(NamedTuple):
    """A task that this worker runs now. Its `claims` tell it from every earlier and later attempt at the same task."""

    task_id: int
    claims: int  # Task.claims since it was claimed: a later claim or retry has a higher one
    number: int  # 1 for the first
    max_retries: int
    operation: str
    params: dict[str, Any]
    begun: bool = True  # the table says so: it was claimed to be begun at once
    trace: Trace | None = None  # in which it runs
    calls_back: bool = False  # the task has a callback: its end is recorded with the delivery


class UnknownOperation(Exception):
    """This worker does not have the operation. Another worker, or a later release of this one, may have it."""


class WorkerLost(Exception):
    """The worker that ran the attempt is gone: it was killed, was stopped too early, or was silent for too long."""


def succeed(
    attempt: Attempt, result: str, *, progress: dict[str, Any] | None = None, started_at: datetime, now: datetime
) -> bool:
    """Records the success of a task with a callback, and makes its delivery. `result` is JSON.

    Returns False when the task has moved on without this attempt.
    """
    begin_write()
    values = {
        "status": Status.SUCCESS,
        "result": cast(literal(result, Text()), Json),
        "started_at": started_at,
        "finished_at": now,
    }
    won = _finish(attempt, progress, cancel_requested=False, suspected=False, **values)
    if won:
        ended([attempt], now=now)
    db.session.commit()
    return won


def fail(
    attempt: Attempt,
    error: BaseException,
    *,
    progress: dict[str, Any] | None = None,
    started_at: datetime | None = None,
    now: datetime,
) -> bool:
    """Sets the task to RETRYING with a backoff, and stores the error.

    It becomes ERROR instead when no retry is left or none would help, and CANCELLED when that was requested. Returns
    False when the task has moved on without this attempt.

    started_at: when it began, if that is known better than when it was claimed.
    """
    begin_write()
    if is_last(attempt, error):
        lock_schedules([attempt.task_id])
    won = record_failure(attempt, error, progress=progress, started_at=started_at, now=now)
    db.session.commit()
    return won


def record_failure(
    attempt: Attempt,
    error: BaseException,
    *,
    progress: dict[str, Any] | None = None,
    started_at: datetime | None = None,
    now: datetime,
) -> bool:
    """Like `fail`, but the caller commits, and has locked the schedule that this may pause."""
    described = _described(error)
    values: dict[str, Any]
    last = is_last(attempt, error)
    if last:
        values = {"status": _unless_cancelled(Status.ERROR), "finished_at": now}
    else:
        values = {
            "status": _unless_cancelled(Status.RETRYING),
            "run_at": now + _delay(attempt, error),
            "enqueued_at": None,
            "finished_at": case((Task.cancel_requested, literal(now, UTCDateTime())), else_=null()),
        }
    values |= {"error": described, "error_type": described["type"]}
    values |= {"cause": fingerprint(attempt.operation, described)}
    values |= {"started_at": started_at} if started_at else {}
    values |= {} if isinstance(error, WorkerLost) else {"suspected": False}
    values |= {"trace": trace} if (trace := kept(attempt.trace)) else {}
    won = _finish(attempt, progress, unknown_since=None, cancel_requested=False, **values)
    if won:
        _keep(attempt, described, error, now)
        ended([attempt], now=now)  # or it is tried again, which who waits will see
        if last:
            pause_after_failure(attempt.task_id)
    return won


def wait_for_operation(attempt: Attempt, *, now: datetime) -> bool:
    """Gives the attempt back. The task is tried again after 5 s, and the longer it waits the later, up to 60 s.

    False when it has waited for OPERATION_MAY_COME, or has moved on without this attempt.
    """
    begin_write()
    since = db.session.scalar(select(Task.unknown_since).where(Task.task_id == attempt.task_id)) or now
    waited = now - since
    if waited >= OPERATION_MAY_COME:
        db.session.rollback()
        return False
    delay = min(MAX_WAIT, max(MIN_WAIT, waited.total_seconds() / 10))
    won = give_back([attempt], run_at=now + timedelta(seconds=delay), unknown_since=since, now=now)
    db.session.commit()
    return bool(won)


def give_back(given: Collection[Attempt], *, now: datetime, **values: Any) -> Sequence[Any]:
    """Undoes claims whose operations have not begun: these attempts do not count. The caller commits.

    `claims` rises all the same, and so each task needs a new message, which the relay sends. It returns the tasks that
    have not moved on without these attempts, with what a message needs.
    """
    if not given:
        return []
    before = case((Task.attempts == 1, Status.PENDING), else_=Status.RETRYING)
    changed = {
        "status": _unless_cancelled(before),
        "claims": Task.claims + 1,
        "attempts": Task.attempts - 1,
        "started_at": None,
        "enqueued_at": None,
        "finished_at": case((Task.cancel_requested, literal(now, UTCDateTime())), else_=null()),
        "cancel_requested": False,
    }
    statement = update_tasks(*_standing(given)).values(changed | values)
    columns = (Task.task_id, Task.claims, Task.operation, Task.priority, Task.group, Task.status, CALLS_BACK)
    given_back = db.session.execute(statement.returning(*columns)).all()
    ended((task for task in given_back if task.status == Status.CANCELLED), now=now)
    return given_back


def begin(attempt: Attempt, started_at: datetime) -> bool:
    """Records of an attempt that was claimed in company that it has begun. The caller commits.

    Also returns False while somebody else holds the row.
    """
    return _finish(attempt, None, _is_free(attempt), begun=True, started_at=started_at)


def is_last(attempt: Attempt, error: BaseException) -> bool:
    """Whether no attempt follows when this one fails so."""
    # An unknown operation has been waited for, before it counts as a failure.
    return isinstance(error, PermanentError | UnknownOperation) or attempt.number > attempt.max_retries


def _described(error: BaseException) -> dict[str, str]:
    return {"type": type(error).__name__[:200], "message": _printable(str(error))[:MAX_MESSAGE]}


def _unless_cancelled(status: Any) -> Any:
    return case((Task.cancel_requested, Status.CANCELLED), else_=status)


def _delay(attempt: Attempt, error: BaseException) -> timedelta:
    # A lost worker says little about the task, unless it happens again.
    if isinstance(error, WorkerLost) and attempt.number == 1:
        return timedelta(0)
    pauses = db.session.scalar(select(Task.retry).where(Task.task_id == attempt.task_id))
    asked = min(error.seconds, LATEST) if isinstance(error, RetryLater) else 0.0
    return timedelta(seconds=max(USUAL.changed(pauses).pause(attempt.number), asked))


def _standing(given: Collection[Attempt]) -> tuple[ColumnElement[bool], ...]:
    ids = [(attempt.task_id, attempt.claims) for attempt in given]
    return tuple_(Task.task_id, Task.claims).in_(ids), Task.status == Status.STARTED


def _finish(attempt: Attempt, progress: dict[str, Any] | None, *conditions: ColumnElement[bool], **values: Any) -> bool:
    if progress:
        values["progress"] = progress
    statement = (
        update(Task)
        .where(Task.task_id == attempt.task_id, Task.claims == attempt.claims, Task.status == Status.STARTED)
        .where(*conditions)
        .values(**values)
        .execution_options(synchronize_session=False)
    )
    result = db.session.execute(statement)
    assert isinstance(result, CursorResult)
    return result.rowcount == 1


def started(*conditions: ColumnElement[bool]) -> list[Attempt]:
    """Locks and returns the attempts that are STARTED and meet the conditions. Tasks that others hold are left out.

    First it locks the schedules that a failure of these attempts may pause.
    """
    running = Task.status == Status.STARTED, *conditions
    task_ids = db.session.scalars(select(Task.task_id).where(*running)).all()
    if not task_ids:
        return []
    lock_schedules(task_ids)
    query = select(Task.task_id, Task.claims, Task.attempts, Task.max_retries, Task.operation, Task.params)
    query = query.add_columns(Task.begun, CALLS_BACK)
    query = query.where(Task.task_id.in_(task_ids), *running).with_for_update(skip_locked=True)
    attempts = ((Attempt(*row), bool(calls_back)) for *row, calls_back in db.session.execute(query))
    return [attempt._replace(calls_back=calls_back) for attempt, calls_back in attempts]


def save_progress(attempt: Attempt, progress: dict[str, Any]) -> bool:
    """The caller commits. Also returns False while somebody else holds the row: progress is not worth a wait."""
    return _finish(attempt, progress, _is_free(attempt))


def _is_free(attempt: Attempt) -> ColumnElement[bool]:
    free = select(Task.task_id).where(Task.task_id == attempt.task_id).with_for_update(skip_locked=True)
    return Task.task_id.in_(free)


def _keep(attempt: Attempt, described: dict[str, str], error: BaseException, now: datetime) -> None:
    lines = "".join(traceback.format_exception(error))
    db.session.execute(
        insert(Failure).values(
            task_id=attempt.task_id,
            claim=attempt.claims,
            attempt=attempt.number,
            **described,
            traceback=_printable(lines)[-MAX_TRACEBACK:],
            started_at=select(Task.started_at).where(Task.task_id == attempt.task_id).scalar_subquery(),
            failed_at=now,
        )
    )


def _printable(text: str) -> str:
    # PostgreSQL stores neither NUL nor lone surrogates.
    return text.encode("utf-8", "replace").decode().replace("\0", "�")
