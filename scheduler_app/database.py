"""How the database is spoken to: pools, and what SQLite needs to be safe with many processes."""

import threading
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from sqlite3 import Connection as SQLiteConnection
from typing import Any

from sqlalchemy import Connection, Engine, ExceptionContext, PoolProxiedConnection, event, make_url, text
from sqlalchemy.exc import DBAPIError

from scheduler_app.config import Settings
from scheduler_app.extensions import db

DIRECT = "direct"  # the bind of execute_directly
BUSY_TIMEOUT = 30  # seconds that a writer on SQLite waits for the others
GOODBYES = {"57P01", "57P02", "57P03", "25P03"}  # PostgreSQL's last words to a session: shut down, crashed, idle …
# A server whose machine has vanished is noticed within about ten seconds.
VANISHED = {
    "connect_timeout": 3,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
IDLE_TIMEOUT = 10  # seconds between two statements of a transaction, after which PostgreSQL ends it


_turn = threading.Lock()  # of the threads that write to SQLite: its own way to wait is to sleep, ever longer


def engine_options(settings: Settings, *, worker: bool) -> dict[str, Any]:
    threads = settings.worker_threads + 4
    # A worker does again what met a broken connection; anybody else would rather ask before than fail.
    pool = {"pool_size": threads, "max_overflow": 4, "pool_timeout": 5, "pool_pre_ping": not worker}
    url = make_url(settings.database_url)
    if url.get_backend_name() == "postgresql":
        return pool | {"connect_args": VANISHED}
    if url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    return pool | {"connect_args": {"timeout": BUSY_TIMEOUT}}


def direct_options(settings: Settings) -> dict[str, Any]:
    """For an engine beside the sessions', whose connections are always between two transactions."""
    return {"url": settings.database_url, "isolation_level": "AUTOCOMMIT", "pool_reset_on_return": None}


def prepare(engine: Engine, *, worker: bool) -> None:
    if engine.dialect.name == "sqlite":
        # What a power cut takes from a worker is only done again; what was accepted must stay.
        event.listen(engine, "connect", partial(_configure_sqlite, synchronous="NORMAL" if worker else "FULL"))
        event.listen(engine, "begin", _begin_sqlite)
    else:
        event.listen(engine, "connect", _configure_postgresql)
        event.listen(engine, "handle_error", _tell_disconnect)


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


def execute_directly(statement: str, parameters: Sequence[Any]) -> tuple[list[Any], int]:
    """One statement in a transaction of its own, on the driver's connection: a fraction of what a session costs.

    Parameters are marked by ? on every database; JSON goes in as text, and on SQLite it comes out as text. Returns the
    rows, if any, and how many were changed; raises SQLAlchemy's errors.
    """
    engine = db.engines[DIRECT]
    sqlite = engine.dialect.name == "sqlite"
    connection: PoolProxiedConnection | None = None
    try:
        connection = engine.raw_connection()
        with _turn if sqlite else nullcontext():
            execute = _execute_on_sqlite if sqlite else _execute_on_postgresql
            return execute(connection.driver_connection, statement, parameters)
    except engine.dialect.loaded_dbapi.Error as error:
        if connection and engine.dialect.is_disconnect(error, connection, None):
            connection.invalidate(error)
        raise DBAPIError.instance(statement, None, error, engine.dialect.loaded_dbapi.Error) from error
    finally:
        if connection:
            connection.close()


def _execute_on_sqlite(driver: Any, statement: str, parameters: Sequence[Any]) -> tuple[list[Any], int]:
    stored = [sqlite_time(value) if isinstance(value, datetime) else value for value in parameters]
    cursor = driver.execute(statement, stored)
    return cursor.fetchall(), cursor.rowcount


def sqlite_time(moment: datetime) -> str:
    """A time as SQLAlchemy writes it into SQLite."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def _execute_on_postgresql(driver: Any, statement: str, parameters: Sequence[Any]) -> tuple[list[Any], int]:
    cursor = driver.execute(statement.replace("?", "%s"), parameters, prepare=True)
    return cursor.fetchall() if cursor.description else [], cursor.rowcount


def _configure_sqlite(connection: SQLiteConnection, record: object, *, synchronous: str) -> None:
    connection.isolation_level = None  # transactions are begun by _begin_sqlite, not by the driver
    for pragma in ("journal_mode = WAL", f"synchronous = {synchronous}", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _configure_postgresql(connection: Any, record: object) -> None:
    # What a process holds that stands still, or whose machine is gone, others wait for: the reaper among them.
    connection.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_TIMEOUT}s'")
    connection.commit()  # which does nothing where each statement is a transaction of its own


def _tell_disconnect(context: ExceptionContext) -> None:
    # The driver notices only at the next statement, which would be the rollback: that would fail where nobody expects.
    if getattr(context.original_exception, "sqlstate", None) in GOODBYES:
        context.is_disconnect = True


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN"))
