"""Counts rows by kind, by slot of time, and by how long two durations took, in one pass over the rows.

Durations are counted in buckets that grow by half. Bucket 0 holds those under 1 ms. Each further bucket ends 1.5 times
later. The 41st ends at 3 h, and also holds all longer ones.
"""

import json
from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime
from sqlite3 import Connection as SQLiteConnection
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Float, cast, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY

from scheduler_app.extensions import db

SLOT = 10  # seconds
BUCKETS = 41
BOUNDS = [0.001 * 1.5**number for number in range(BUCKETS)]  # seconds at which each bucket ends
STARTS = BOUNDS[:-1]  # of the second bucket and of each that follows
RADIX = 64  # two buckets are counted as one number; this is more than there are buckets

Times = tuple[Any, Any, Any]  # columns: the first duration begins, it ends and the second begins, that ends
parsed = datetime.fromisoformat


def tally(kind: Sequence[Any], moment: Any, times: Times, *conditions: ColumnElement[bool]) -> list[list[Any]]:
    """How many rows meet the conditions, as lists of the slot of the moment, the kind, the two buckets and the count.

    The slot is the number of its 10 s, counted from 1970. Without one of the times the buckets are None.
    """
    if db.engine.dialect.name == "sqlite":
        answer = db.session.scalar(select(func.tally(moment, *times, *kind)).where(*conditions))
        return [_apart(row) for row in json.loads(answer or "[]")]
    begin, middle, end = times
    columns = [cast(func.floor(func.date_part("epoch", moment) / SLOT), BigInteger), *kind]
    columns.append(_bucket(begin, middle) * RADIX + _bucket(middle, end))
    rows = select(*(column.label(f"part_{number}") for number, column in enumerate(columns))).where(*conditions)
    parts = rows.subquery().c
    return [_apart(row) for row in db.session.execute(select(*parts, func.count()).group_by(*parts))]


def define_functions(connection: SQLiteConnection) -> None:
    """SQLite's own way would sort the rows, and its functions for times are exact to the millisecond only."""
    connection.create_aggregate("tally", -1, _Tally)  # type: ignore[arg-type]


class _Tally:
    def __init__(self) -> None:
        self.counts: dict[tuple[Any, ...], int] = {}

    def step(self, moment: str, begin: str | None, middle: str | None, end: str | None, *kind: Any) -> None:
        number = None
        if begin and middle and end:
            between = parsed(middle)
            first, second = between - parsed(begin), parsed(end) - between
            number = bisect_right(STARTS, first.total_seconds()) * RADIX
            number += bisect_right(STARTS, second.total_seconds())
        key = (moment[:18], *kind, number)  # all but the last digit of the seconds
        self.counts[key] = self.counts.get(key, 0) + 1

    def finalize(self) -> str:
        return json.dumps([[_slot(key[0]), *key[1:], count] for key, count in self.counts.items()])


def _slot(beginning: str) -> int:
    return int(parsed(f"{beginning}0").replace(tzinfo=UTC).timestamp()) // SLOT


def _bucket(begin: Any, end: Any) -> Any:
    return func.width_bucket(func.date_part("epoch", end - begin), literal(STARTS, ARRAY(Float)))


def _apart(row: Sequence[Any]) -> list[Any]:
    *kind, number, count = row
    return [*kind, *((None, None) if number is None else divmod(number, RADIX)), count]
