"""Many rows in one statement, as a table that it can select from and join with.

They are one parameter, whatever their number: with one a value, the driver takes longer than the database. So the
statement is always the same, and can be kept.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, FromClause, Text, bindparam, cast, column, func, select

from scheduler_app.database import sqlite_time
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
    """What a statement with such a table is executed with; a row has a value a column."""
    write_time = datetime.isoformat if db.engine.dialect.name == "postgresql" else sqlite_time
    return {"rows": json.dumps([dict(zip(columns, row, strict=True)) for row in rows], default=write_time)}
