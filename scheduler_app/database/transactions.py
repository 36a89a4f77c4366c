"""A transaction that writes, and the time that all processes share."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from typing import ParamSpec, TypeVar

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from scheduler_app.database.failures import is_victim
from scheduler_app.extensions import db

P = ParamSpec("P")
T = TypeVar("T")


def begin_write() -> None:
    """Opens a transaction that reads before it writes, in place of the one that may be open.

    SQLite must know before the first read: a reader that turns writer fails when another has written meanwhile.
    """
    db.session.rollback()
    db.session.connection(execution_options={"sqlite_begin": "BEGIN IMMEDIATE"})


def tried_again(function: Callable[P, T]) -> Callable[P, T]:
    """Calls it once more when the database has rolled its transaction back so that another could go on."""

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except DBAPIError as error:
            if not is_victim(error):
                raise
        db.session.rollback()
        return function(*args, **kwargs)

    return wrapper


def clock() -> datetime:
    """The time by the database's clock, which all processes share; those of several machines may differ.

    On SQLite, where there is one machine, that machine's.
    """
    if db.engine.dialect.name == "sqlite":
        return datetime.now(UTC)
    now: datetime = db.session.execute(text("SELECT clock_timestamp()")).scalar_one()
    return now.astimezone(UTC)
