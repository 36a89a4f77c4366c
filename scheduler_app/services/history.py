"""What has come in and what has ended, added up in spans of 10 s, 1 min and 1 h.

The scheduler rolls up. One row, the mark, says how far: the tasks that ended before `finished_to` are counted, and so
are those up to `task_id` as created. Whoever counts locks the mark, so any number of schedulers count nothing twice.
One transaction counts a bounded number of tasks of a bounded number of kinds. After an outage the same loop catches up.

Whoever makes a finished task unfinished, or deletes it, calls `leave` before, so that it is counted first.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, case, cast, literal, null, or_, select

from scheduler_app.database import begin_write, insert, settled, tally
from scheduler_app.database.columns import UTCDateTime
from scheduler_app.extensions import db
from scheduler_app.models import HistoryMark, Status, Task
from scheduler_app.services import spans, totals
from scheduler_app.services.spans import CREATED, Counted, forget_old

T = TypeVar("T")

BATCH = 50_000  # tasks that one transaction counts
# Operations, priorities and statuses, each in each of the shortest spans, that one transaction adds to all spans. They
# take about a second of Python, and PostgreSQL ends a transaction that is idle for long.
KINDS = 3_000
FIRST = {"mark_id": 1, "finished_to": datetime(1970, 1, 1, tzinfo=UTC), "task_id": 0}
RAN = or_(Task.status.in_((Status.SUCCESS, Status.ERROR)), Task.started_at >= Task.run_at)  # in its latest attempt


def roll_up(*, now: datetime) -> int:
    """Counts a batch of what has ended and come in since the mark. Returns 0 once nothing is left to count now."""
    begin_write()
    mark = _lock_mark()
    until = settled(now)
    count_finished = _take_back if now < mark.finished_to else _count_finished
    left = max(count_finished(mark, until, now), _count_created(mark, until, now))
    if not left:
        forget_old(now)
    db.session.commit()
    return left


def leave(*conditions: ColumnElement[bool], now: datetime, skip_locked: bool = False) -> Sequence[int]:
    """Locks the tasks that meet the conditions, and counts those of them that have ended and are not counted yet.

    Returns their ids. To be called in the transaction that makes finished tasks unfinished or deletes them, before it
    locks any task.
    """
    mark = _lock_mark()
    query = select(Task.task_id, Task.finished_at).where(*conditions).order_by(Task.task_id)
    rows = db.session.execute(query.with_for_update(skip_locked=skip_locked)).all()
    new = [row.task_id for row in rows if row.finished_at and row.finished_at >= mark.finished_to]
    if new:
        _add(_finished(Task.task_id.in_(new)), now=now)
    return [row.task_id for row in rows]


def _lock_mark() -> HistoryMark:
    db.session.execute(insert(HistoryMark).values(FIRST).on_conflict_do_nothing())
    return db.session.scalars(select(HistoryMark).with_for_update().execution_options(populate_existing=True)).one()


def _count_finished(mark: HistoryMark, until: datetime, now: datetime) -> int:
    since = mark.finished_to
    if until <= since:
        return 0
    ended = Task.finished_at >= since, Task.finished_at < until
    times = select(Task.finished_at).where(*ended).order_by(Task.finished_at).limit(1)

    def before(batch: int) -> tuple[datetime | None, list[Counted]]:
        last = db.session.scalar(times.offset(batch))
        if last == since:  # more than a batch ended at one moment
            last += timedelta.resolution
        return last, _finished(Task.finished_at >= since, Task.finished_at < (last or until))

    last, counted = _of_few_kinds(before)
    mark.finished_to = last or until
    _add(counted, now=now)
    return BATCH if last else 0


def _take_back(mark: HistoryMark, until: datetime, now: datetime) -> int:
    """The clock was set back: moves the mark back with it. What ended after the mark's new time is counted again later,
    together with what ends meanwhile.
    """
    ended = Task.finished_at >= until, Task.finished_at < mark.finished_to
    times = select(Task.finished_at).where(*ended).order_by(Task.finished_at.desc()).limit(1)

    def after(batch: int) -> tuple[datetime | None, list[Counted]]:
        first = db.session.scalar(times.offset(batch - 1))
        return first, _finished(Task.finished_at >= (first or until), Task.finished_at < mark.finished_to)

    first, counted = _of_few_kinds(after)
    _add(counted, now=now, sign=-1)
    mark.finished_to = first or until
    return BATCH if first else 0


def _count_created(mark: HistoryMark, until: datetime, now: datetime) -> int:
    # The ids of transactions that still run are higher than that of each task of the settled time.
    since = mark.task_id
    query = select(Task.task_id).where(Task.task_id > since, Task.created_at < until)
    last = db.session.scalar(query.order_by(Task.task_id.desc()).limit(1))
    if last is None:
        return 0

    def up_to(batch: int) -> tuple[int, list[Counted]]:
        end = min(last, since + batch)
        return end, _created(Task.task_id > since, Task.task_id <= end)

    mark.task_id, counted = _of_few_kinds(up_to)
    _add(counted, now=now)
    return BATCH if mark.task_id < last else 0


def _of_few_kinds(take: Callable[[int], tuple[T, list[Counted]]]) -> tuple[T, list[Counted]]:
    """What is taken of a batch, or of a smaller one: so small that it has KINDS at most."""
    batch = BATCH
    mark, counted = take(batch)
    while batch > KINDS and len({part[:4] for part in counted}) > KINDS:
        batch = max(batch // 4, KINDS)
        mark, counted = take(batch)
    return mark, counted


def _add(counted: Sequence[Counted], *, now: datetime, sign: int = 1) -> None:
    spans.add(counted, now=now, sign=sign)
    totals.add(counted, sign=sign)


def _finished(*conditions: ColumnElement[bool]) -> list[Counted]:
    times = case((RAN, Task.run_at)), Task.started_at, Task.finished_at
    return _tally(Task.status, times, *conditions)


def _created(*conditions: ColumnElement[bool]) -> list[Counted]:
    return _tally(literal(CREATED), (cast(null(), UTCDateTime), Task.created_at, Task.created_at), *conditions)


def _tally(status: Any, times: tuple[Any, Any, Any], *conditions: ColumnElement[bool]) -> list[Counted]:
    kind = Task.operation, Task.priority, status
    return [Counted._make(row) for row in tally(kind, times[-1], times, *conditions)]
