"""Opens a transaction that writes, and tries a transaction again."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from sqlalchemy.exc import DBAPIError

from scheduler_app.database.failures import is_victim
from scheduler_app.extensions import db

P = ParamSpec("P")
T = TypeVar("T")


def begin_write() -> None:
    """Opens a transaction that reads before it writes. If another one is open, that is rolled back.

    SQLite must know before the first read that the transaction will write. Else its first write would fail if another
    process has written since the read.
    """
    db.session.rollback()
    db.session.connection(execution_options={"sqlite_begin": "BEGIN IMMEDIATE"})


def tried_again(function: Callable[P, T]) -> Callable[P, T]:
    """Calls the function once more when the database has rolled back its transaction so that another could go on."""

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
