"""Many rows in one statement, as a table that it can select from and join with."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, BigInteger, FromClause, bindparam, func, select

from scheduler_app.database import sqlite_time
from scheduler_app.extensions import db
from scheduler_app.models import UTCDateTime


def as_table(names: Sequence[str], rows: Sequence[Sequence[int | datetime | None]]) -> FromClause:
    """One parameter a column or less: with one a value, the driver takes longer than the database.

    A column whose name ends in _at is of times, any other of integers.
    """
    return (_from_arrays if db.engine.dialect.name == "postgresql" else _from_json)(names, rows)


def _from_arrays(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> FromClause:
    arrays = [
        bindparam(name, list(column), ARRAY(UTCDateTime if name.endswith("_at") else BigInteger))
        for name, column in zip(names, zip(*rows, strict=True), strict=True)
    ]
    return func.unnest(*arrays).table_valued(*names).render_derived()


def _from_json(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> FromClause:
    # SQLite has no arrays.
    row = func.json_each(json.dumps(rows, default=sqlite_time)).table_valued("value").c.value
    return select(*(func.json_extract(row, f"$[{i}]").label(name) for i, name in enumerate(names))).subquery()
