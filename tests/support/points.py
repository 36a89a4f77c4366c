"""The points at which an actor stops: before each statement, each commit on PostgreSQL, and each command to Redis.

On SQLite a writer that stood still would hold up everybody, so there it does not stop within a transaction that writes.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import sha1
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.client import Pipeline
from redis.commands.core import Script
from sqlalchemy import Connection, Engine, event

import scheduler_app.broker
from scheduler_app.database import ThreadCursors
from tests.support.stage import Killed, current, reach

REFUSED, LOST = "refused", "its reply is lost"  # what can happen to a command, or to the status writer's statement
WRITES = ("INSERT", "UPDATE", "DELETE", "BEGIN IMMEDIATE")
TABLE = re.compile(r"(?:UPDATE|FROM|INTO) (\w+)")
SCRIPTS = {
    sha1(file.read_bytes(), usedforsecurity=False).hexdigest(): file.stem
    for file in Path(scheduler_app.broker.__path__[0]).glob("*.lua")
}


def on_engine(engine: Engine) -> None:
    postgres = engine.dialect.name == "postgresql"
    event.listen(engine, "before_cursor_execute", _before_on_postgresql if postgres else _before_on_sqlite)
    if postgres:
        event.listen(engine, "commit", _before_commit)
        event.listen(engine, "connect", _configure_postgresql)
    else:
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "commit", _written)
        event.listen(engine, "rollback", _written)


def _configure_postgresql(connection: Any, record: object) -> None:
    # A thread may stand still for as long as Hypothesis takes; and no power fails here.
    for setting in (
        "idle_in_transaction_session_timeout = 0",
        "statement_timeout = 0",
        "deadlock_timeout = 10",
        "synchronous_commit = off",
    ):
        connection.execute(f"SET {setting}")
    connection.commit()


def _configure_sqlite(connection: Any, record: object) -> None:
    connection.execute("PRAGMA synchronous = OFF")


def _before_on_postgresql(connection: Connection, cursor: Any, statement: str, *_: Any) -> None:
    _reach(connection, f"before {_short(statement)}")


def _before_commit(connection: Connection) -> None:
    _reach(connection, "before COMMIT")


def _reach(connection: Connection, point: str) -> None:
    try:
        reach(point, backend=connection.connection.driver_connection.info.backend_pid)
    except Killed:
        connection.invalidate()  # as the end of its process closes it
        raise


def _before_on_sqlite(connection: Connection, cursor: Any, statement: str, *_: Any) -> None:
    if not connection.info.get("writes") and statement != "BEGIN":
        reach(f"before {_short(statement)}")
    elif (actor := current()) and actor.killed:
        raise Killed
    if statement.startswith(WRITES):
        connection.info["writes"] = True


def _written(connection: Connection) -> None:
    if not connection.invalidated:  # as one is whose thread was killed
        connection.info.pop("writes", None)


def _short(statement: str) -> str:
    table = TABLE.search(statement)
    return f"{statement.split(maxsplit=1)[0]} {table[1]}" if table else statement[:30]


class StoppingCursors(ThreadCursors):
    """The status writer's: a point before its statement, and one after it, at which the reply can be lost."""

    @contextmanager
    def current(self) -> Iterator[Any]:
        reach("before the status writer's statement")
        with super().current() as cursor:
            actor = current()
            if actor and self.engine.dialect.name == "postgresql":
                actor.backend = cursor.connection.info.backend_pid
            yield cursor
            reach("after the status writer's statement")
            if actor and actor.take_fault():
                raise self.engine.dialect.loaded_dbapi.OperationalError("the reply was lost")


def on_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script as a whole is one command, and a pipeline is one."""
    execute, execute_all, call = redis.Redis.execute_command, Pipeline.execute, Script.__call__

    def execute_command(client: Any, *args: Any, **options: Any) -> Any:
        return _command(str(args[0]), partial(execute, client, *args, **options))

    def execute_pipeline(pipeline: Any, *args: Any, **options: Any) -> Any:
        return _command("pipeline", partial(execute_all, pipeline, *args, **options))

    def call_script(script: Any, *args: Any, client: Any = None, **options: Any) -> Any:
        send = partial(call, script, *args, client=client, **options)
        return send() if client else _command(SCRIPTS.get(script.sha, "script"), send)  # in a pipeline, it goes later

    monkeypatch.setattr(redis.Redis, "execute_command", execute_command)
    monkeypatch.setattr(Pipeline, "execute", execute_pipeline)
    monkeypatch.setattr(Script, "__call__", call_script)


def _command(name: str, send: Callable[[], Any]) -> Any:
    actor = current()
    if actor is None or actor.in_command:
        return send()
    reach(f"before Redis {name}")
    fault = actor.take_fault()
    if fault == REFUSED:
        raise redis.ConnectionError("refused")
    actor.in_command = True
    try:
        reply = send()
    finally:
        actor.in_command = False
    if fault == LOST:
        raise redis.TimeoutError("the reply was lost")
    return reply
