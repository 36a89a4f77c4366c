"""Counts that never read a big table to its end."""

from typing import Any

from sqlalchemy import Select, func, select

from scheduler_app.extensions import db

MOST = 10_000


def capped(query: Select[Any], *, limit: int = MOST) -> int:
    """How many rows the query finds. `limit` means that many or more."""
    return db.session.scalar(select(func.count()).select_from(query.limit(limit).subquery())) or 0
