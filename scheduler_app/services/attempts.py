"""One attempt at a task: claimed, then recorded. The only place where a worker changes a status.

Each change is a compare-and-set. A claim is guarded by the number of claims so far, and a record by the number that
the claim gave: a second delivery of a message or a late reply finds nothing to change.
"""

import random
import traceback
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import CursorResult, insert, update

from scheduler_app.extensions import db
from scheduler_app.models import WAITING, Failure, Status, Task
from scheduler_app.operations import PermanentError

MAX_BACKOFF = 600.0  # seconds
MAX_MESSAGE = 2_000  # characters of an error that are kept
MAX_TRACEBACK = 20_000


@dataclass(frozen=True, slots=True)
class Attempt:
    """A task that this worker runs now; claim fences it off from all that ran or will run."""

    task_id: int
    claim: int
    attempt: int  # 1 for the first
    max_retries: int
    operation: str
    params: dict[str, Any]


def claim(task_id: int, claims: int, *, now: datetime) -> Attempt | None:
    """The attempt, STARTED; None when the message is out of date: deleted, claimed already, or not due."""
    row = db.session.execute(
        update(Task)
        .where(Task.task_id == task_id, Task.claims == claims, Task.status.in_(WAITING))
        .values(status=Status.STARTED, claims=Task.claims + 1, attempts=Task.attempts + 1, started_at=now)
        .returning(Task.attempts, Task.max_retries, Task.operation, Task.params)
        .execution_options(synchronize_session=False)
    ).first()
    db.session.commit()
    return Attempt(task_id, claims + 1, *row) if row else None


def succeed(attempt: Attempt, result: Any, *, now: datetime) -> bool:
    """False when the task has moved on without this attempt; its result is dropped."""
    won = _finish(attempt, status=Status.SUCCESS, result=result, finished_at=now)
    db.session.commit()
    return won


def fail(attempt: Attempt, error: BaseException, *, now: datetime) -> bool:
    """RETRYING with its backoff, or ERROR when no retry is left or would help; keeps the error either way."""
    described = {"type": type(error).__name__[:200], "message": _printable(str(error))[:MAX_MESSAGE]}
    if isinstance(error, PermanentError) or attempt.attempt > attempt.max_retries:
        won = _finish(attempt, status=Status.ERROR, error=described, finished_at=now)
    else:
        delay = timedelta(seconds=backoff(attempt.attempt))
        won = _finish(attempt, status=Status.RETRYING, error=described, run_at=now + delay, enqueued_at=None)
    if won:
        _keep(attempt, described, error, now)
    db.session.commit()
    return won


def backoff(attempt: int) -> float:
    """Seconds until the next attempt: exponential with full jitter, from 1 s up to 10 min."""
    return random.uniform(1, min(MAX_BACKOFF, 2.0**attempt))


def _finish(attempt: Attempt, **values: Any) -> bool:
    statement = (
        update(Task)
        .where(Task.task_id == attempt.task_id, Task.claims == attempt.claim, Task.status == Status.STARTED)
        .values(**values)
        .execution_options(synchronize_session=False)
    )
    result = db.session.execute(statement)
    assert isinstance(result, CursorResult)
    return result.rowcount == 1


def _keep(attempt: Attempt, described: dict[str, str], error: BaseException, now: datetime) -> None:
    lines = "".join(traceback.format_exception(error))
    db.session.execute(
        insert(Failure).values(
            task_id=attempt.task_id,
            claim=attempt.claim,
            attempt=attempt.attempt,
            **described,
            traceback=_printable(lines)[-MAX_TRACEBACK:],
            failed_at=now,
        )
    )


def _printable(text: str) -> str:
    # PostgreSQL stores neither NUL nor lone surrogates.
    return text.encode("utf-8", "replace").decode().replace("\0", "�")
