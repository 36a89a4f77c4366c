"""Connections to PostgreSQL on which nobody waits for ever.

A frozen server enforces no timeout, nor does one that is cut off behind a device that still answers TCP. So the client
must enforce it.
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

STATEMENT_TIMEOUT = 14  # seconds; a live server ends the statement itself then, and the connection stays good
IDLE_TIMEOUT = 10  # seconds between two statements of a transaction, after which PostgreSQL ends it
CONNECT_TIMEOUT = 3  # seconds for each server that the URL names
CONNECTING = 8  # seconds for all of them together, if there are at most four: the driver gives each at least 2 seconds
# A server whose machine has vanished is noticed within about ten seconds.
KEEPALIVE = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000}

# A frozen process would keep its row locks, and others, such as the reaper, would wait for them. Behind a pooler there
# is no session to set anything on. A pooler is recognised by the process id: it makes up its own.
CONFIGURE = """
    SELECT set_config('idle_in_transaction_session_timeout', %s, FALSE), set_config('statement_timeout', %s, FALSE)
    WHERE pg_backend_pid() = %s
"""


class ServerSilent(psycopg.OperationalError):
    """The server did not answer in time."""


class Connection(psycopg.Connection[Any]):
    """A connection that closes itself when the server is silent, or has said that it ends the session."""

    prepares: ClassVar = True  # False once this process has met a pooler that the check above does not recognise

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.has_session = False  # a session of its own on the server, on which something can be set
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
        """Whether it can be used, as far as one can tell without a round trip.

        A server that ends a session sends a last message, which is then waiting to be read.
        """
        if self.closed or waits.silent_since(self._opened_at):
            return False
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        return not poll.poll(0)

    def configure(self) -> None:
        """Sets the timeouts on a new connection."""
        timeouts = f"{IDLE_TIMEOUT}s", f"{STATEMENT_TIMEOUT}s"
        direct = self.execute(CONFIGURE, (*timeouts, self.info.backend_pid)).fetchone()
        self.commit()  # does nothing where each statement is a transaction of its own
        self.has_session = bool(direct) and self.prepares
        if not self.has_session:
            self.prepare_threshold = None  # a pooler may send a prepared statement to a server that does not have it


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
        return Connection.connect(*arguments, **options | parameters)  # the URL's own parameters win
    except ConnectionTimeout:
        silent = True
        raise
    finally:
        waits.end(answered=not silent)
