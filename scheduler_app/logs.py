"""The log of every process: one line per event, on standard error. No value of a row gets into it."""

import logging
from collections.abc import Iterator

from scheduler_app.database import failures

CHATTY = ("alembic", "apscheduler")  # at INFO they log every step


class Formatter(logging.Formatter):
    """Leaves out what a database error tells of the row: its parameters, or the line that violates a constraint.

    The engines hide the parameters of a statement, but the server's own words may quote them.
    """

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self.inner = inner  # the form of the line, which dramatiq's command sets itself

    def format(self, record: logging.LogRecord) -> str:
        text = self.inner.format(record)
        arguments = record.args if isinstance(record.args, tuple) else ()
        for error in (*arguments, *(record.exc_info or ())[1:2]):
            if isinstance(error, BaseException):
                for one in _chain(error, set()):
                    text = failures.without_values(text, one)
        return text


def configure(level: str) -> None:
    """`level` is a name of the standard library's: debug, info, warning. To be called once, at a process's start."""
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")  # does nothing where there is a handler
    for handler in logging.getLogger().handlers:
        handler.setFormatter(Formatter(handler.formatter or logging.Formatter()))
    logging.getLogger().setLevel(level.upper())
    if level != "debug":
        for name in CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)


def _chain(error: BaseException, seen: set[int]) -> Iterator[BaseException]:
    """The error and all that a traceback shows above it."""
    if id(error) in seen:
        return
    seen.add(id(error))
    yield error
    members = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    for other in (getattr(error, "orig", None), error.__cause__, error.__context__, *members):
        if isinstance(other, BaseException):
            yield from _chain(other, seen)
