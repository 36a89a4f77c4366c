"""The history as pages show it: what came in and ended, how long it waited and ran, by time, operation and priority."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Integer, Row, cast, func, select

from scheduler_app.config import PRIORITIES
from scheduler_app.database import BOUNDS, entries
from scheduler_app.extensions import db, settings
from scheduler_app.models import ALL, Depth, History, HistoryMark, Status
from scheduler_app.services.spans import CREATED, HOUR, QUARTER, SHORTEST, begin_of

UNRUN = (Status.CANCELLED, Status.EXPIRED)  # ended without an outcome of the operation
NEVER = datetime(1970, 1, 1, tzinfo=UTC)
SLOWEST = 0.95  # the quantile that tells of the slow ones
_APART = (History.operation != ALL[0],)  # each operation at each priority


class Period(StrEnum):
    """Which stretch of the past."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


class Shape(NamedTuple):
    span: int  # seconds of a slice, which is one span
    slices: int


SHAPES = {
    Period.HOUR: Shape(60, 60),
    Period.DAY: Shape(QUARTER, 96),
    Period.MONTH: Shape(6 * HOUR, 120),
}


class Totals:
    """So many tasks, however they came in or ended."""

    def __init__(self) -> None:
        self.by_status: Counter[str] = Counter()
        self.waiting: Counter[int] = Counter()  # by bucket
        self.running: Counter[int] = Counter()

    def add(self, row: Row[Any]) -> None:
        self.by_status[row.status] += row.tasks
        self.waiting.update({int(number): count for number, count in row.waiting.items()})
        self.running.update({int(number): count for number, count in row.running.items()})

    @property
    def finished(self) -> int:
        return self.by_status.total() - self.by_status[CREATED]

    def figures(self) -> dict[str, Any]:
        return {
            "created": self.by_status[CREATED],
            "finished": self.finished,
            "failed": self.by_status[Status.ERROR],
            "cancelled": self.by_status[Status.CANCELLED],
            "expired": self.by_status[Status.EXPIRED],
            "waiting_p50": quantile(self.waiting, 0.5),
            "waiting_p95": quantile(self.waiting, SLOWEST),
            "running_p50": quantile(self.running, 0.5),
            "running_p95": quantile(self.running, SLOWEST),
        }


def series(
    period: Period, *, now: datetime, operation: str | None = None, priority: int | None = None
) -> list[dict[str, Any]]:
    """The figures of each slice of the period, oldest first. `complete` is False for a slice that is still counted."""
    shape, to = SHAPES[period], counted_to()
    slices: defaultdict[datetime, Totals] = defaultdict(Totals)
    for row in _rows(period, now, _only(operation, priority)):
        slices[row.begins_at].add(row)
    return [
        {
            "begins_at": begin,
            "seconds": shape.span,
            **slices[begin].figures(),
            "complete": begin + timedelta(seconds=shape.span) <= to,
        }
        for begin in _begins(period, now)
    ]


def totals(
    period: Period, *, now: datetime, operation: str | None = None, priority: int | None = None
) -> dict[str, Any]:
    """The figures of the whole period."""
    found = Totals()
    for row in _rows(period, now, _only(operation, priority)):
        found.add(row)
    return found.figures()


def by_operation(period: Period, *, now: datetime) -> dict[str, dict[str, Any]]:
    """What became of each operation's tasks, and the p95 of its running time.

    "other" stands for the operations beyond the first 200.
    """
    ended, ran = _ended_by(History.operation, period, now), _running_by_operation(period, now)
    minutes = SHAPES[period].span * SHAPES[period].slices / 60
    found = {}
    for operation in sorted({operation for operation, _ in ended}):
        succeeded, failed = ended[operation, Status.SUCCESS], ended[operation, Status.ERROR]
        finished = succeeded + failed + sum(ended[operation, status] for status in UNRUN)
        found[operation] = {
            "finished": finished,
            "failed": failed,
            "per_minute": finished / minutes,
            "failed_share": failed / (succeeded + failed) if succeeded + failed else None,
            "running_p95": quantile(ran[operation], SLOWEST),
        }
    return found


def top_failing(period: Period, *, now: datetime, limit: int = 5) -> list[dict[str, Any]]:
    """The operations with the most failures, in that order; none without a failure."""
    ended = _ended_by(History.operation, period, now)
    failing = [(operation, failed) for (operation, status), failed in ended.items() if status == Status.ERROR]
    found = []
    for operation, failed in sorted(failing, key=lambda one: -one[1])[:limit]:
        ran = ended[operation, Status.SUCCESS] + failed
        finished = ran + sum(ended[operation, status] for status in UNRUN)
        found.append({"operation": operation, "failed": failed, "finished": finished, "failed_share": failed / ran})
    return found


def by_priority(period: Period, *, now: datetime) -> list[dict[str, Any]]:
    """What each priority got of all that ran, and what was due to it: by its weight, but no more than it had to do."""
    ended = _ended_by(History.priority, period, now)
    ran = [ended[priority, Status.SUCCESS] + ended[priority, Status.ERROR] for priority in PRIORITIES]
    waiting = _latest_waiting(now)
    wanted = [done + waiting.get(priority, 0) for priority, done in zip(PRIORITIES, ran, strict=True)]
    due = fair_parts(sum(ran), wanted, settings.priority_weights)
    everything = sum(ran) or 1
    return [
        {
            "priority": priority,
            "weight": settings.priority_weights[priority],
            "finished": ran[priority] + sum(ended[priority, status] for status in UNRUN),
            "failed": ended[priority, Status.ERROR],
            "got": ran[priority] / everything,
            "due": due[priority] / everything,
        }
        for priority in PRIORITIES
    ]


def depth(period: Period, *, now: datetime) -> dict[int, list[dict[str, Any]]]:
    """The highest figures in each slice, by priority, oldest first."""
    shape = SHAPES[period]
    query = select(Depth).where(Depth.span == shape.span, Depth.begins_at >= _begins(period, now)[0])
    rows = db.session.scalars(query)
    highest = {(row.priority, row.begins_at): [row.waiting, row.running, row.oldest_seconds] for row in rows}
    return {
        priority: [_depth(begin, shape.span, highest.get((priority, begin))) for begin in _begins(period, now)]
        for priority in PRIORITIES
    }


def rates(*, now: datetime, seconds: int = 60, priority: int | None = None) -> dict[str, float]:
    """How many tasks a minute came in and ended lately, `in` and `out`."""
    to = min(counted_to(), now)
    since = to - timedelta(seconds=seconds)
    moments = History.begins_at >= since, History.begins_at < to
    query = select(History.status, History.tasks).where(History.span == SHORTEST, *moments, *_only(None, priority))
    counted: Counter[bool] = Counter()
    for row in db.session.execute(query):
        counted[row.status == CREATED] += row.tasks
    return {"in": counted[True] * 60 / seconds, "out": counted[False] * 60 / seconds}


def counted_to() -> datetime:
    """How far the history is complete. NEVER when no scheduler has counted."""
    return db.session.scalar(select(HistoryMark.finished_to)) or NEVER


def failed_since(moment: datetime) -> int:
    """How many tasks ended in ERROR since the hour of this moment began."""
    hours = History.span == HOUR, History.begins_at >= begin_of(moment, HOUR), History.status == Status.ERROR
    return db.session.scalar(select(func.sum(History.tasks)).where(*hours, *_only(None, None))) or 0


def quantile(buckets: Counter[int], part: float) -> float | None:
    """The duration in seconds that this part of all stays below; None of none. Exact to the bucket."""
    rank, below = part * buckets.total(), 0
    for number, count in sorted(buckets.items()):
        if count and below + count >= rank:
            begin, end = BOUNDS[number] / 1.5, BOUNDS[number]
            return float(begin * (end / begin) ** ((rank - below) / count))
        below += count
    return None


def fair_parts(available: float, wanted: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Parts of what is available, by weight. What one does not want goes to the others."""
    parts = [0.0] * len(wanted)
    hungry = [number for number, amount in enumerate(wanted) if amount > 0]
    while hungry and available > 1e-9:
        unit = available / sum(weights[number] for number in hungry)
        sated = [number for number in hungry if wanted[number] <= unit * weights[number]]
        for number in sated or hungry:
            parts[number] = wanted[number] if sated else unit * weights[number]
            available -= parts[number]
        hungry = [number for number in hungry if number not in sated] if sated else []
    return parts


def _only(operation: str | None, priority: int | None) -> tuple[ColumnElement[bool], ...]:
    if operation is None and priority is None:
        return History.operation == ALL[0], History.priority == ALL[1]
    chosen = {History.operation: operation, History.priority: priority}
    return *_APART, *(column == value for column, value in chosen.items() if value is not None)


def _rows(period: Period, now: datetime, conditions: tuple[ColumnElement[bool], ...]) -> Sequence[Row[Any]]:
    return db.session.execute(select(*History.__table__.c).where(*_within(period, now), *conditions)).all()


def _within(period: Period, now: datetime) -> tuple[ColumnElement[bool], ...]:
    return History.span == SHAPES[period].span, History.begins_at >= _begins(period, now)[0]


def _begins(period: Period, now: datetime) -> list[datetime]:
    """Of the slices; the last one has begun and is not over."""
    shape = SHAPES[period]
    last = begin_of(now, shape.span)
    return [last - timedelta(seconds=shape.span * ago) for ago in reversed(range(shape.slices))]


def _ended_by(column: Any, period: Period, now: datetime) -> Counter[tuple[Any, str]]:
    """How many tasks came in or ended, by the value of the column and the status."""
    query = select(column, History.status, func.sum(History.tasks)).where(*_within(period, now), *_APART)
    rows = db.session.execute(query.group_by(column, History.status))
    return Counter({(value, status): int(tasks) for value, status, tasks in rows})


def _running_by_operation(period: Period, now: datetime) -> defaultdict[str, Counter[int]]:
    """The buckets of each operation. The database adds them up: there may be tens of thousands of rows."""
    bucket = entries(History.running)
    number, tasks = cast(bucket.c.key, Integer), func.sum(cast(bucket.c.value, Integer))
    query = select(History.operation, number, tasks).where(*_within(period, now), *_APART)
    found: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for operation, key, count in db.session.execute(query.group_by(History.operation, number)):
        found[operation][key] = int(count)
    return found


def _latest_waiting(now: datetime) -> dict[int, int]:
    latest = Depth.span == SHORTEST, Depth.begins_at >= now - timedelta(seconds=3 * SHORTEST)
    query = select(Depth.priority, func.max(Depth.waiting)).where(*latest).group_by(Depth.priority)
    return {row.priority: row[1] for row in db.session.execute(query)}


def _depth(begin: datetime, seconds: int, figures: list[float] | None) -> dict[str, Any]:
    waiting, running, oldest = figures or (0, 0, 0.0)
    named = {"waiting": waiting, "running": running, "oldest_seconds": oldest}
    return {"begins_at": begin, "seconds": seconds, **named}
