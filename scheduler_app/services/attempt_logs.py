"""What operations have logged, attempt by attempt: the workers write it, and whoever may read a task reads it.

Of the log of an attempt the first HEAD and the last TAIL bytes are kept. Lines are numbered, so what is left out shows.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Integer, SmallInteger, Text, and_, delete, literal, or_, select, tuple_

from scheduler_app.database import as_table, insert, parameters
from scheduler_app.database.columns import ID, UTCDateTime
from scheduler_app.extensions import db
from scheduler_app.models import Status, Task, TaskLog
from scheduler_app.services import tasks

HEAD, TAIL = 65_536, 196_608  # bytes
GIVEN = {
    "task_id": ID,
    "claim": Integer(),
    "attempt": SmallInteger(),
    "chunk": Integer(),
    "first_line": Integer(),
    "lines": Integer(),
    "text": Text(),
}


class Place(NamedTuple):
    """Whose log it is."""

    task_id: int
    claim: int  # Task.claims of the attempt
    attempt: int


class Chunk(NamedTuple):
    """Some lines in a row."""

    task_id: int
    claim: int
    attempt: int
    chunk: int  # numbers the chunks of the attempt, from 1
    first_line: int
    lines: int
    text: str

    @property
    def key(self) -> tuple[int, int, int]:
        return self.task_id, self.claim, self.chunk


class Line(NamedTuple):
    claim: int
    attempt: int
    number: int  # from 1 in each attempt
    text: str
    left_out: int = 0  # so many lines are not kept, of which this is the first


START = (0, 0)  # claim and number of a line before all


def write(chunks: Sequence[Chunk], gone: Sequence[tuple[int, int, int]], *, now: datetime) -> None:
    """Stores chunks, and deletes those that give way. What is there already, and what has no task any more, is left."""
    given = as_table(GIVEN)
    there = given.c.task_id.in_(select(Task.task_id))
    # In the order of the ids, because each row locks its task against being deleted.
    rows = (
        select(*(given.c[name] for name in GIVEN), literal(now, UTCDateTime())).where(there).order_by(given.c.task_id)
    )
    statement = insert(TaskLog.__table__).from_select([*GIVEN, "written_at"], rows).on_conflict_do_nothing()
    db.session.execute(statement, parameters(GIVEN, chunks))
    if gone:
        key = tuple_(TaskLog.task_id, TaskLog.claim, TaskLog.chunk)
        db.session.execute(delete(TaskLog).where(key.in_(gone)).execution_options(synchronize_session=False))
    db.session.commit()


def attempts(task_id: int) -> list[Place]:
    """Those of the task that have logged something, the first one first. Raises TaskNotFound."""
    tasks.has_ended(task_id)
    query = select(TaskLog.task_id, TaskLog.claim, TaskLog.attempt).where(TaskLog.task_id == task_id).distinct()
    return [Place(*row) for row in db.session.execute(query.order_by(TaskLog.claim))]


def read(task_id: int, *, claim: int | None = None, after: tuple[int, int] = START) -> list[Line]:
    """The lines of one attempt, or of all that have logged, that come after a line, given by its claim and number."""
    last_line = TaskLog.first_line + TaskLog.lines - 1
    later = or_(TaskLog.claim > after[0], and_(TaskLog.claim == after[0], last_line > after[1]))
    query = select(TaskLog).where(TaskLog.task_id == task_id, later).order_by(TaskLog.claim, TaskLog.chunk)
    if claim is not None:
        query = query.where(TaskLog.claim == claim)
    return list(_lines(db.session.scalars(query), after))


def is_over(task_id: int, claim: int | None) -> bool:
    """Whether the attempt, or without a claim the task, logs no more. Its last lines may still be on their way."""
    query = select(Task.status, Task.claims, Task.finished_at).where(Task.task_id == task_id)
    task = db.session.execute(query).one_or_none()
    if task is None or claim is None:
        return task is None or task.finished_at is not None
    return bool(task.status != Status.STARTED or task.claims != claim)


def _lines(chunks: Iterable[TaskLog], after: tuple[int, int]) -> Iterator[Line]:
    claim, last = after
    for chunk in chunks:
        if chunk.claim != claim:
            claim, last = chunk.claim, 0
        if chunk.first_line > last + 1:
            missing = chunk.first_line - last - 1
            text = f"{missing:,} {'line' if missing == 1 else 'lines'} left out"
            yield Line(claim, chunk.attempt, last + 1, text, missing)
        for number, text in enumerate(chunk.text.split("\n"), chunk.first_line):
            if number > last:
                yield Line(claim, chunk.attempt, number, text)
        last = max(last, chunk.first_line + chunk.lines - 1)
