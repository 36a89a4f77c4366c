"""The table of the history: how many tasks came in and ended in each span, and how long they waited and ran."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import Integer, Row, SmallInteger, Text, and_, cast, delete, select, true

from scheduler_app.database import SLOT, as_table, insert, parameters
from scheduler_app.database.columns import Json, UTCDateTime
from scheduler_app.extensions import db
from scheduler_app.models import ALL, Depth, History

QUARTER, HOUR = 900, 3600  # seconds
# For so long, by the seconds of a span. A page reads some hundred spans of each kind of task: more would take too long.
KEPT = {
    SLOT: timedelta(hours=2),
    60: timedelta(hours=3),
    QUARTER: timedelta(days=2),
    HOUR: timedelta(days=400),
    6 * HOUR: timedelta(days=40),
}
SHORTEST = min(KEPT)
MOST_OPERATIONS = 200  # that one hour tells apart
OTHER = "other"  # stands for the operations beyond these
CREATED = "CREATED"  # stands beside the final statuses, for tasks that came in
ASKED = {"span": Integer(), "begins_at": UTCDateTime(), "operation": Text()}
GIVEN = {
    "span": Integer(),
    "begins_at": UTCDateTime(),
    "operation": Text(),
    "priority": SmallInteger(),
    "status": Text(),
    "tasks": Integer(),
    "waiting": Text(),
    "running": Text(),
}


class Key(NamedTuple):
    span: int  # seconds
    begins_at: datetime
    operation: str
    priority: int
    status: str


class Counted(NamedTuple):
    """So many tasks of one kind that ended in one of the shortest spans, in the same buckets."""

    slot: int  # number of the shortest span, counted from 1970
    operation: str
    priority: int
    status: str
    waiting: int | None  # number of the bucket
    running: int | None
    tasks: int


@dataclass
class Tally:
    """So many tasks, and how many of them waited and ran for so long, by number of the bucket."""

    tasks: int = 0
    waiting: Counter[int] = field(default_factory=Counter)
    running: Counter[int] = field(default_factory=Counter)

    def count(self, part: Counted, sign: int) -> None:
        tasks = sign * part.tasks
        self.tasks += tasks
        if part.waiting is not None and part.running is not None:
            self.waiting[part.waiting] += tasks
            self.running[part.running] += tasks

    def add(self, other: "Tally") -> None:
        self.tasks += other.tasks
        for mine, more in ((self.waiting, other.waiting), (self.running, other.running)):
            for number, tasks in more.items():
                mine[number] += tasks


Tallies = defaultdict[Key, Tally]


def add(counted: Iterable[Counted], *, now: datetime, sign: int = 1) -> None:
    """Adds to the spans that are still kept; takes away with a sign of -1. The caller holds the mark, and commits."""
    tallies = _in_all_spans(_with_known_operations(_in_shortest_span(counted, sign)), now)
    if not tallies:
        return
    for row in _stored_for(tallies):
        tallies[Key._make(row[:5])].add(Tally(row.tasks, read_buckets(row.waiting), read_buckets(row.running)))
    _write(tallies)


def _in_shortest_span(counted: Iterable[Counted], sign: int) -> Tallies:
    tallies: Tallies = defaultdict(Tally)
    for part in counted:
        key = Key(SHORTEST, _begin_of_slot(part.slot), part.operation, part.priority, part.status)
        tallies[key].count(part, sign)
    return tallies


def _with_known_operations(tallies: Tallies) -> Tallies:
    known: dict[datetime, set[str]] = {}
    result: Tallies = defaultdict(Tally)
    for key, tally in tallies.items():
        hour = begin_of(key.begins_at, HOUR)
        if hour not in known:
            known[hour] = _operations_of(hour)
        if key.operation in known[hour] or len(known[hour]) < MOST_OPERATIONS:
            known[hour].add(key.operation)
            result[key].add(tally)
        else:
            result[key._replace(operation=OTHER)].add(tally)
    return result


def _in_all_spans(tallies: Tallies, now: datetime) -> Tallies:
    result: Tallies = defaultdict(Tally)
    for key, tally in tallies.items():
        for span, kept in KEPT.items():
            if key.begins_at >= now - kept:
                begins_at = begin_of(key.begins_at, span)
                result[key._replace(span=span, begins_at=begins_at)].add(tally)
                result[Key(span, begins_at, *ALL, key.status)].add(tally)
    return result


@lru_cache(maxsize=1_000)
def _begin_of_slot(number: int) -> datetime:
    return datetime.fromtimestamp(number * SHORTEST, UTC)


@lru_cache(maxsize=1_000)
def begin_of(moment: datetime, span: int) -> datetime:
    return datetime.fromtimestamp(moment.timestamp() // span * span, UTC)


def forget_old(now: datetime) -> None:
    """Deletes the spans that are kept no longer. The caller commits."""
    for table in (History, Depth):
        for span, kept in KEPT.items():
            old = table.span == span, table.begins_at < now - kept
            db.session.execute(delete(table).where(*old).execution_options(synchronize_session=False))


def _operations_of(hour: datetime) -> set[str]:
    query = select(History.operation).where(History.span == HOUR, History.begins_at == hour)
    return set(db.session.scalars(query.distinct())) - {ALL[0], OTHER}


def _stored_for(keys: Iterable[Key]) -> Sequence[Row[Any]]:
    # All keys are one parameter: a batch can have more of them than PostgreSQL takes parameters.
    asked = as_table(ASKED)
    same = and_(*(getattr(History, name) == asked.c[name] for name in ASKED))
    query = select(*History.__table__.c).join(asked, same)
    return db.session.execute(query, parameters(ASKED, {key[:3] for key in keys})).all()


def read_buckets(stored: dict[str, int]) -> Counter[int]:
    return Counter({int(number): tasks for number, tasks in stored.items()})


def _write(tallies: Tallies) -> None:
    given = as_table(GIVEN)
    stored = {name: cast(given.c[name], Json) if name in ("waiting", "running") else given.c[name] for name in GIVEN}
    statement = insert(History.__table__).from_select(list(stored), select(*stored.values()).where(true()))
    new = {name: statement.excluded[name] for name in ("tasks", "waiting", "running")}
    upsert = statement.on_conflict_do_update(index_elements=list(Key._fields), set_=new)
    db.session.execute(upsert, parameters(GIVEN, (_row(key, tally) for key, tally in tallies.items())))


def _row(key: Key, tally: Tally) -> tuple[Any, ...]:
    return *key, tally.tasks, stored_buckets(tally.waiting), stored_buckets(tally.running)


def stored_buckets(buckets: Counter[int]) -> str:
    return json.dumps({number: tasks for number, tasks in sorted(buckets.items()) if tasks})
