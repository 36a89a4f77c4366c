"""What has come in and ended since counting began, for figures that only rise. The history adds to it as it counts."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Row, SmallInteger, Text, cast, select, true

from scheduler_app.database import as_table, insert, parameters
from scheduler_app.database.columns import Json
from scheduler_app.extensions import db
from scheduler_app.models import HistoryTotal
from scheduler_app.services.spans import OTHER, Counted, Tally, read_buckets, stored_buckets

MOST_OPERATIONS = 100  # that are told apart: each has some hundred series at most
GIVEN = {
    "operation": Text(),
    "priority": SmallInteger(),
    "status": Text(),
    "tasks": BigInteger(),
    "waiting": Text(),
    "running": Text(),
}


class Kind(NamedTuple):
    operation: str
    priority: int
    status: str


def add(counted: Iterable[Counted], *, sign: int = 1) -> None:
    """The caller holds the mark of the history, and commits."""
    tallies: defaultdict[Kind, Tally] = defaultdict(Tally)
    known = set(db.session.scalars(select(HistoryTotal.operation).distinct())) - {OTHER}
    for part in counted:
        if part.operation not in known and len(known) < MOST_OPERATIONS:
            known.add(part.operation)
        operation = part.operation if part.operation in known else OTHER
        tallies[Kind(operation, part.priority, part.status)].count(part, sign)
    if tallies:
        for row in _stored({kind.operation for kind in tallies}):
            if (kind := Kind._make(row[:3])) in tallies:
                tallies[kind].add(Tally(row.tasks, read_buckets(row.waiting), read_buckets(row.running)))
        _write(tallies)


def find() -> Sequence[Row[Any]]:
    """Operation, priority, status (or CREATED), how many tasks, and how many of them waited and ran for so long."""
    columns = HistoryTotal.__table__.c
    return db.session.execute(select(*columns).order_by(*columns[:3])).all()


def _stored(operations: set[str]) -> Sequence[Row[Any]]:
    return db.session.execute(select(*HistoryTotal.__table__.c).where(HistoryTotal.operation.in_(operations))).all()


def _write(tallies: dict[Kind, Tally]) -> None:
    given = as_table(GIVEN)
    stored = {name: cast(given.c[name], Json) if name in ("waiting", "running") else given.c[name] for name in GIVEN}
    statement = insert(HistoryTotal.__table__).from_select(list(stored), select(*stored.values()).where(true()))
    new = {name: statement.excluded[name] for name in ("tasks", "waiting", "running")}
    upsert = statement.on_conflict_do_update(index_elements=list(Kind._fields), set_=new)
    db.session.execute(upsert, parameters(GIVEN, (_row(kind, tally) for kind, tally in tallies.items())))


def _row(kind: Kind, tally: Tally) -> tuple[Any, ...]:
    return *kind, tally.tasks, stored_buckets(tally.waiting), stored_buckets(tally.running)
