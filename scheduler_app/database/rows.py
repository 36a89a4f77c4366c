"""Many rows in one statement, as a table to select from and to join with; and inserts that may meet existing rows.

All rows together are one parameter. With one parameter for each value, the driver would take longer than the database.
It also keeps the statement the same for any number of rows, so that it is compiled once.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import JSON, FromClause, Text, bindparam, cast, column, func, select
from sqlalchemy.dialects import postgresql, sqlite

from scheduler_app.extensions import db

Columns = Mapping[str, Any]  # types of SQLAlchemy's, by name
Value = str | int | datetime | None

ROWS = bindparam("rows", type_=Text)


def as_table(columns: Columns) -> FromClause:
    """A table of the parameter that `parameters` gives, on the database of this application."""
    if db.engine.dialect.name == "postgresql":
        typed = [column(name, type_) for name, type_ in columns.items()]
        return func.json_to_recordset(cast(ROWS, JSON)).table_valued(*typed).render_derived(with_types=True)
    row = func.json_each(ROWS).table_valued("value").c.value
    return select(*(func.json_extract(row, f"$.{name}").label(name) for name in columns)).subquery()


def parameters(columns: Columns, rows: Iterable[Sequence[Value]]) -> dict[str, str]:
    """The parameters of a statement with such a table. Each row has one value per column."""
    write_time = postgres_time if db.engine.dialect.name == "postgresql" else sqlite_time
    return {"rows": json.dumps([dict(zip(columns, row, strict=True)) for row in rows], default=write_time)}


def entries(column: Any) -> FromClause:
    """A table of the entries of a column's JSON objects, `key` and `value`, joined with the rows of the column."""
    each = func.json_each_text if db.engine.dialect.name == "postgresql" else func.json_each
    return each(column).table_valued("key", "value", joins_implicitly=True)


def insert(table: Any) -> postgresql.Insert | sqlite.Insert:
    """An insert that knows `on_conflict_do_nothing` and `on_conflict_do_update`, for the database in use."""
    return postgresql.insert(table) if db.engine.dialect.name == "postgresql" else sqlite.insert(table)


@lru_cache(maxsize=64)  # most rows of a statement have the same times
def postgres_time(moment: datetime) -> str:
    return moment.isoformat()


@lru_cache(maxsize=64)
def sqlite_time(moment: datetime) -> str:
    """A time as SQLAlchemy writes it into SQLite."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
