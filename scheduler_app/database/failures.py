"""What a database error means. Only this file decides it, for web, worker and scheduler.

On PostgreSQL by SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html), on SQLite by result code
(https://www.sqlite.org/rescode.html).
"""

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

# Classes of SQLSTATE and whole codes. They say that the same statement can succeed later, or elsewhere.
OUTAGES = (
    "08",  # connection
    "25006",  # read-only: a primary that was demoted
    "25P03",  # idle in a transaction for too long
    "26000",  # a prepared statement that this server never saw: a pooler, or a failover
    "40",  # rolled back for the sake of others
    "42P05",  # a prepared statement that another client of the pooler has made
    "53",  # resources: disk, memory, connections
    "55P03",  # a lock that could not be had in time
    "57",  # the operator's intervention: shut down, starting up, cancelled
    "58",  # the system, such as its disk
    "XX",  # internal
)
# This session is of no more use, but another may be: it was ended, its server is read-only now, or a pooler is between.
FAREWELLS = ("25006", "25P03", "26000", "42P05", "57P01", "57P02", "57P03")
VICTIMS = ("40001", "40P01")  # of a conflict or a deadlock that the server resolved
OF_THE_DATA = ("22", "23", "54")  # a value that cannot be stored, a constraint, a limit such as the depth of JSON
READ_ONLY = ("25006", "SQLITE_READONLY")
DISK_FULL = ("53100", "SQLITE_FULL")
SQLITE_OUTAGES = (
    "SQLITE_BUSY",
    "SQLITE_CANTOPEN",
    "SQLITE_FULL",
    "SQLITE_INTERRUPT",
    "SQLITE_IOERR",
    "SQLITE_LOCKED",
    "SQLITE_NOMEM",
    "SQLITE_PROTOCOL",
    "SQLITE_READONLY",
)
SQLITE_OF_THE_DATA = ("SQLITE_TOOBIG", "SQLITE_CONSTRAINT", "SQLITE_MISMATCH")


def code(error: BaseException) -> str:
    """The SQLSTATE, or the name of SQLite's result code; empty when the server had no say."""
    original = getattr(error, "orig", None) or error
    return getattr(original, "sqlstate", None) or getattr(original, "sqlite_errorname", None) or ""


def is_outage(error: BaseException) -> bool:
    """Whether the database cannot do this now. The same request can succeed later."""
    if isinstance(error, PoolTimeout | InterfaceError) or _is_nameless_disconnect(error):
        return True
    return code(error).startswith((*OUTAGES, *SQLITE_OUTAGES))


def is_of_the_data(error: BaseException) -> bool:
    """Whether the values themselves cannot be stored, so that trying again is of no use."""
    return code(error).startswith((*OF_THE_DATA, *SQLITE_OF_THE_DATA))


def is_victim(error: BaseException) -> bool:
    """Whether the transaction was rolled back so that another could go on. It can be tried again at once."""
    return code(error) in VICTIMS


def is_farewell(error: BaseException) -> bool:
    """Whether the connection that gave the error is of no more use."""
    return code(error) in FAREWELLS


def is_read_only(error: BaseException) -> bool:
    return code(error).startswith(READ_ONLY)


def is_disk_full(error: BaseException) -> bool:
    return code(error) in DISK_FULL


def without_values(text: str, error: BaseException) -> str:
    """The text in which the error is quoted, without what PostgreSQL says in it of values: only its own first line.

    For an error of the data even that line may quote them, so its name and its SQLSTATE have to do.
    """
    diagnosis = getattr(error, "diag", None)
    if diagnosis is None or not diagnosis.message_primary:  # not an answer of PostgreSQL
        return text
    shown = f"SQLSTATE {code(error)}" if is_of_the_data(error) else diagnosis.message_primary
    return text.replace(str(error), shown)


def _is_nameless_disconnect(error: BaseException) -> bool:
    # When a connection breaks, or cannot be made in time, the driver has no SQLSTATE to give.
    return isinstance(error, OperationalError) and not code(error)
