"""The engines: their pools and timeouts, and the settings that make each database safe with many processes."""

from functools import partial
from pathlib import Path
from sqlite3 import Connection as SQLiteConnection
from typing import Any

from sqlalchemy import Connection, Engine, event, make_url

from scheduler_app.config import Settings
from scheduler_app.database.connections import use_bounded_connections
from scheduler_app.database.tallies import define_functions
from scheduler_app.private_files import own_database

DIRECT = "direct"  # name of the bind whose engine runs each statement as a transaction of its own
BUSY_TIMEOUT = 9  # seconds that a writer on SQLite waits for the others


def engine_options(settings: Settings) -> dict[str, Any]:
    threads = settings.worker_threads + 4
    pool = {"pool_size": threads, "max_overflow": 4, "pool_timeout": 5}
    # Parameters are what people post, such as a bearer token: none may reach a log.
    return {"connect_args": _connect_args(settings), "hide_parameters": True} | pool


def direct_options(settings: Settings) -> dict[str, Any]:
    """Options for a second engine, beside the sessions' one. Each statement on it is a transaction: one round trip."""
    options = engine_options(settings) | {"url": settings.database_url, "isolation_level": "AUTOCOMMIT"}
    # On PostgreSQL there is nothing to roll back when a connection goes back to the pool.
    return options if _is_sqlite(settings) else options | {"pool_reset_on_return": None}


def _connect_args(settings: Settings) -> dict[str, Any]:
    if not _is_sqlite(settings):
        return {}
    if path := make_url(settings.database_url).database:
        own_database(Path(path))
    return {"timeout": BUSY_TIMEOUT}


def _is_sqlite(settings: Settings) -> bool:
    return make_url(settings.database_url).get_backend_name() == "sqlite"


def prepare(engine: Engine, *, worker: bool) -> None:
    if engine.dialect.name == "sqlite":
        # Work that a worker loses in a power cut is only done again, but an accepted task must never be lost.
        event.listen(engine, "connect", partial(_configure_sqlite, synchronous="NORMAL" if worker else "FULL"))
        event.listen(engine, "begin", _begin_sqlite)
    else:
        use_bounded_connections(engine)


def _configure_sqlite(connection: SQLiteConnection, record: object, *, synchronous: str) -> None:
    connection.isolation_level = None  # transactions are begun by _begin_sqlite, not by the driver
    for pragma in ("journal_mode = WAL", f"synchronous = {synchronous}", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")
    define_functions(connection)


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN"))
