"""Connections to PostgreSQL on which nobody waits for ever.

A server that is frozen, or cut off behind a device that still answers TCP, enforces no timeout: the client must.
"""

import select
import time
from typing import Any, ClassVar

import psycopg
from psycopg.errors import ConnectionTimeout, DuplicatePreparedStatement, InvalidSqlStatementName
from sqlalchemy import Dialect, Engine, event
from sqlalchemy.exc import InvalidatePoolError

from scheduler_app.database.failures import is_farewell
from scheduler_app.database.waits import time_left, waits

STATEMENT_TIMEOUT = 14  # seconds; a server that lives ends the statement itself, and the connection stays good
IDLE_TIMEOUT = 10  # seconds between two statements of a transaction, after which PostgreSQL ends it
CONNECT_TIMEOUT = 3  # seconds for each server that the URL names,
CONNECTING = 8  # and for all of them, if they are not more than four: 2 seconds are the driver's minimum
# A server whose machine has vanished is noticed within about ten seconds.
KEEPALIVE = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000}

# A frozen process would keep its locks, and the reaper among others would wait for them. A pooler gives out process ids
# of its own: behind it there is no session to set anything on.
CONFIGURE = """
    SELECT set_config('idle_in_transaction_session_timeout', %s, FALSE), set_config('statement_timeout', %s, FALSE)
    WHERE pg_backend_pid() = %s
"""


class ServerSilent(psycopg.OperationalError):
    """The server did not answer in time."""


class Connection(psycopg.Connection[Any]):
    """One that is closed as soon as it is of no more use: when the server is silent, or has said farewell."""

    prepares: ClassVar = True  # until this process meets a pooler that does not show itself as one

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._opened_at = time.monotonic()

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        limit = time_left() if timeout is None else timeout
        silent = False
        waits.begin()
        try:
            return super().wait(gen, interval, limit)
        except psycopg.errors._WaitTimeout:
            silent = True
            self.pgconn.finish()
            raise ServerSilent(f"the server has not answered within {limit:.1f} s") from None
        except psycopg.Error as error:
            if isinstance(error, InvalidSqlStatementName | DuplicatePreparedStatement):
                Connection.prepares = False
            if is_farewell(error):
                self.pgconn.finish()
            raise
        finally:
            waits.end(answered=not silent)

    def is_good(self) -> bool:
        """As far as can be seen without a round trip: what a server said as it went away is there to be read."""
        if self.closed or waits.silent_since(self._opened_at):
            return False
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        return not poll.poll(0)

    def configure(self) -> None:
        """For a new one."""
        timeouts = f"{IDLE_TIMEOUT}s", f"{STATEMENT_TIMEOUT}s"
        direct = self.execute(CONFIGURE, (*timeouts, self.info.backend_pid)).fetchone()
        self.commit()  # which does nothing where each statement is a transaction of its own
        if not direct or not self.prepares:
            self.prepare_threshold = None  # what is prepared on one server would be asked of another


def use_bounded_connections(engine: Engine) -> None:
    event.listen(engine, "do_connect", _connect)
    event.listen(engine, "connect", lambda connection, _: connection.configure())
    event.listen(engine, "checkout", _check)


def _check(connection: Connection, record: object, proxy: object) -> None:
    if not connection.is_good():
        raise InvalidatePoolError


def _connect(dialect: Dialect, record: object, arguments: list[Any], parameters: dict[str, Any]) -> Connection:
    servers = str(parameters.get("host", "")).count(",") + 1
    options = KEEPALIVE | {"connect_timeout": min(CONNECT_TIMEOUT, max(2, CONNECTING // servers))}
    silent = False
    waits.begin()
    try:
        return Connection.connect(*arguments, **options | parameters)  # what the URL says comes first
    except ConnectionTimeout:
        silent = True
        raise
    finally:
        waits.end(answered=not silent)
