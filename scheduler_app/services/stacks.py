"""Where a running attempt stands: somebody asks, and the worker that runs it answers with its next look.

The worker looks for cancellations twice a second, and the same statement finds what is asked. So asking takes neither
Redis nor, of a worker that nobody asks, anything.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Row, and_, delete, literal, or_, select, update

from scheduler_app.database import begin_write, insert
from scheduler_app.database.columns import UTCDateTime
from scheduler_app.errors import TaskNotFound, WrongState
from scheduler_app.extensions import db
from scheduler_app.models import Status, Task
from scheduler_app.services import callers
from scheduler_app.services.attempts import Attempt
from scheduler_app.stack_models import TaskStack

OUTERMOST, INNERMOST = 20, 80  # frames of a stack that are kept
KEPT = timedelta(hours=1)  # since somebody last asked
UNANSWERED = and_(TaskStack.task_id == Task.task_id, TaskStack.answered < TaskStack.asked)


@dataclass(frozen=True)
class Stack:
    """Of the thread that runs an attempt, as a traceback has it: the innermost call comes last."""

    attempt: int
    frames: list[dict[str, Any]]  # {file, line, function, code, library}; no value of a variable
    left_out: int  # so many frames stood between the first and the last of them; they are not kept
    taken_at: datetime


class Wanted(NamedTuple):
    """What is asked of an attempt that runs."""

    claims: int
    cancel: bool  # it is to stop
    asked: int | None  # its stack is to be shown; the number of the asking


def ask(task_id: int, *, now: datetime) -> int:
    """Asks the worker for the task's stack. Returns the number of the asking, for `answer_to`.

    Raises TaskNotFound, and WrongState unless the task runs.
    """
    _check_running(_task(task_id))
    db.session.rollback()
    begin_write()
    db.session.execute(delete(TaskStack).where(TaskStack.asked_at < now - KEPT))
    runs = select(Task.task_id, literal(1), literal(0), literal(now, UTCDateTime()))
    runs = runs.where(Task.task_id == task_id, Task.status == Status.STARTED)
    first = insert(TaskStack.__table__).from_select(["task_id", "asked", "answered", "asked_at"], runs)
    again = {"asked": TaskStack.asked + 1, "asked_at": now}
    statement = first.on_conflict_do_update(index_elements=["task_id"], set_=again)
    number: int | None = db.session.scalar(statement.returning(TaskStack.__table__.c.asked))
    db.session.commit()
    if number is None:  # it has ended in between
        _check_running(_task(task_id))
    return number or 0


def answer_to(task_id: int, number: int) -> Stack | None:
    """The stack that was asked for; None while there is no answer. Raises TaskNotFound and WrongState as `ask`."""
    task = _task(task_id)
    if task.stack and task.answered >= number:
        return Stack(task.attempt, **task.stack, taken_at=task.taken_at)
    _check_running(task)
    return None


def latest(task_id: int) -> Stack | None:
    """The stack of the attempt that runs now, as it was last taken."""
    task = _task(task_id)
    if task.stack and task.status == Status.STARTED and task.claim == task.claims:
        return Stack(task.attempt, **task.stack, taken_at=task.taken_at)
    return None


def wanted(task_ids: Collection[int]) -> dict[tuple[int, int], Wanted]:
    """What is asked of those of the tasks that run, by task and claims."""
    asked = select(Task.task_id, Task.claims, Task.cancel_requested, TaskStack.asked).outerjoin(TaskStack, UNANSWERED)
    asked = asked.where(Task.task_id.in_(task_ids), Task.status == Status.STARTED)
    rows = db.session.execute(asked.where(or_(Task.cancel_requested, TaskStack.asked.is_not(None))))
    return {(task_id, claims): Wanted(claims, cancel, number) for task_id, claims, cancel, number in rows}


def answer(attempt: Attempt, number: int, stack: dict[str, Any], *, now: datetime) -> None:
    """Keeps the stack of an attempt as the answer to this asking and those before. The caller commits."""
    values = {"claim": attempt.claims, "attempt": attempt.number, "stack": stack}
    mine = TaskStack.task_id == attempt.task_id, TaskStack.answered < number
    db.session.execute(update(TaskStack).where(*mine).values(**values, answered=number, taken_at=now))


def _check_running(task: Row[Any]) -> None:
    if task.status != Status.STARTED:
        raise WrongState(f"Task {task.task_id} is {task.status}; only a task that runs has a stack.")


def _task(task_id: int) -> Row[Any]:
    columns = Task.task_id, Task.operation, Task.status, Task.claims
    query = select(*columns, *TaskStack.__table__.c[1:]).outerjoin(TaskStack, TaskStack.task_id == Task.task_id)
    task = db.session.execute(query.where(Task.task_id == task_id)).one_or_none()
    if task is None or callers.wrong_reach(task.operation):
        raise TaskNotFound(task_id)
    return task
