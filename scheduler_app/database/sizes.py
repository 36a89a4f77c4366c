"""How large a value is, found without reading it where the database can do so."""

from typing import Any

from sqlalchemy import ColumnElement, Text, case, cast, func, or_, true

from scheduler_app.extensions import db

HEADER = 4  # bytes that PostgreSQL counts in addition


def is_longer(column: Any, size: int) -> ColumnElement[bool]:
    """Whether the JSON of a column has more than so many characters. Null is not longer."""
    if db.engine.dialect.name == "postgresql":
        # What is stored may be compressed. A value that is large even so is not read.
        longer = or_(func.pg_column_size(column) > size + HEADER, func.octet_length(cast(column, Text)) > size)
    else:
        longer = func.length(column) > size
    return case((longer, true()), else_=~true())
