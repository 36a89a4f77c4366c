"""The log of every process: one line for each event, on standard error. No value of a row gets into it.

A line that is written while an attempt runs, also by the operation itself, names task, operation, attempt and trace.
Others may do so by `extra={"task_id": …}`. A line that is written while a request is served names the request's trace.
"""

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from scheduler_app import tracing
from scheduler_app.database import failures
from scheduler_app.operations import running_task

CHATTY = ("alembic", "apscheduler")  # at INFO they log every step
OF_A_TASK = ("task_id", "operation", "attempt")
TRACE = "trace_id"
ESCAPED = str.maketrans({"\n": "\\n", "\r": "\\r"})


class Line(logging.Formatter):
    """What the forms of a line have in common.

    It leaves out what a database error tells of the row: its parameters, or the line that violates a constraint. The
    engines hide the parameters of a statement, but the server's own words may quote them.
    """

    def __init__(self, **process: str) -> None:
        super().__init__()
        self.process = process  # what each line says of it

    def parts(self, record: logging.LogRecord) -> tuple[dict[str, Any], str]:
        """The event's fields, and the traceback if there is one."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        found = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            **self.process,
            "pid": record.process,
            "logger": record.name,
            "message": _without_values(record.getMessage(), record),
            **_of_task(record),
            **_of_trace(record),
        }
        lines = [self.formatException(record.exc_info)] if record.exc_info and record.exc_info[0] else []
        lines += [self.formatStack(record.stack_info)] if record.stack_info else []
        return found, _without_values("\n".join(lines), record)


class TextLine(Line):
    """A traceback follows its line."""

    def format(self, record: logging.LogRecord) -> str:
        found, traceback = self.parts(record)
        about = ", ".join(f"{name} {found[name]}" for name in (*OF_A_TASK, TRACE, "worker") if name in found)
        message = found["message"].translate(ESCAPED) + (f" ({about})" if about else "")
        line = f"{found['time']} {record.levelname} {found['process']} {found['logger']}: {message}"
        return f"{line}\n{traceback}" if traceback else line


class JsonLine(Line):
    def format(self, record: logging.LogRecord) -> str:
        found, traceback = self.parts(record)
        return json.dumps(found | {"traceback": traceback} if traceback else found)


FORMS = {"text": TextLine, "json": JsonLine}


def configure(level: str, form: str, **process: str) -> None:
    """To be called once, at a process's start.

    `level` is a name of the standard library's: debug, info, warning; `form` one of FORMS. Each line has what is said
    of the process: `process="web"`.
    """
    logging.basicConfig()  # does nothing where there is a handler
    for handler in logging.getLogger().handlers:
        handler.setFormatter(FORMS[form](**process))
    logging.getLogger().setLevel(level.upper())
    if level != "debug":
        for name in CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)


def announce(message: str, *, logger: str) -> None:
    """At every level: whoever started this process waits for it."""
    record = logging.makeLogRecord({"name": logger, "msg": message, "levelno": logging.INFO, "levelname": "INFO"})
    logging.getLogger().handle(record)


def _of_task(record: logging.LogRecord) -> dict[str, Any]:
    said = {name: getattr(record, name) for name in OF_A_TASK if hasattr(record, name)}
    if said or not (task := running_task.get(None)):
        return said
    return {name: getattr(task, name) for name in OF_A_TASK}


def _of_trace(record: logging.LogRecord) -> dict[str, str]:
    found = getattr(record, TRACE, None) or tracing.current_id()
    return {TRACE: found} if found else {}


def _without_values(text: str, record: logging.LogRecord) -> str:
    arguments = record.args if isinstance(record.args, tuple) else ()
    for error in (*arguments, *(record.exc_info or ())[1:2]):
        if isinstance(error, BaseException):
            for one in _chain(error, set()):
                text = failures.without_values(text, one)
    return text


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
