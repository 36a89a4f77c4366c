"""How the database is spoken to: pools, and what SQLite needs to be safe with many processes."""

from pathlib import Path
from sqlite3 import Connection as SQLiteConnection
from typing import Any

from sqlalchemy import Connection, Engine, event, make_url

from scheduler_app.config import Settings
from scheduler_app.extensions import db

BUSY_TIMEOUT = 30  # seconds that a writer on SQLite waits for the others


def engine_options(settings: Settings) -> dict[str, Any]:
    threads = settings.worker_threads + 4
    pool = {"pool_size": threads, "max_overflow": 4, "pool_timeout": 5, "pool_pre_ping": True}
    url = make_url(settings.database_url)
    if url.get_backend_name() == "postgresql":
        return pool | {"connect_args": {"connect_timeout": 3}}
    if url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    return pool | {"connect_args": {"timeout": BUSY_TIMEOUT}}


def prepare(engine: Engine) -> None:
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)


def begin_write() -> None:
    """Opens a transaction that reads before it writes, in place of the one that may be open.

    SQLite must know before the first read: a reader that turns writer fails when another has written meanwhile.
    """
    db.session.rollback()
    db.session.connection(execution_options={"sqlite_begin": "BEGIN IMMEDIATE"})


def _configure_sqlite(connection: SQLiteConnection, record: object) -> None:
    connection.isolation_level = None  # transactions are begun by _begin_sqlite, not by the driver
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN"))
