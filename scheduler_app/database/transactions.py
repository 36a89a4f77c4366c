"""A transaction that writes, and the time that all processes share."""

from datetime import UTC, datetime

from sqlalchemy import text

from scheduler_app.extensions import db


def begin_write() -> None:
    """Opens a transaction that reads before it writes, in place of the one that may be open.

    SQLite must know before the first read: a reader that turns writer fails when another has written meanwhile.
    """
    db.session.rollback()
    db.session.connection(execution_options={"sqlite_begin": "BEGIN IMMEDIATE"})


def clock() -> datetime:
    """The time by the database's clock, which all processes share; those of several machines may differ.

    On SQLite, where there is one machine, that machine's.
    """
    if db.engine.dialect.name == "sqlite":
        return datetime.now(UTC)
    now: datetime = db.session.execute(text("SELECT clock_timestamp()")).scalar_one()
    return now.astimezone(UTC)
