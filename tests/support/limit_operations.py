"""An operation that leaves a line when it begins and one when it ends, and the account of these lines."""

import os
import threading
import time
from pathlib import Path
from typing import NamedTuple

from marshmallow import Schema, fields

from scheduler_app.operations import Limit, current_task, operation

SILENT = 10.0  # seconds; what runs here is short


class Seconds(Schema):
    seconds = fields.Float(required=True)


@operation("limited.work", params=Seconds, limits=[Limit(max_running=3)])
def work(seconds: float) -> None:
    "Takes so many seconds."
    leave("begin")
    threading.Event().wait(seconds)
    leave("end")


@operation("limited.free", params=Seconds)
def free(seconds: float) -> None:
    "The same without a limit in the code."
    work(seconds)


def leave(what: str) -> None:
    attempt = f"{current_task.task_id}.{current_task.attempt}"
    append("LIMIT_LINES", f"{time.monotonic()} {what} {os.getpid()} {attempt}")


def append(variable: str, line: str) -> None:
    """To the file that the variable names; several processes may do so at once."""
    file = os.open(os.environ[variable], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(file, f"{line}\n".encode())
    finally:
        os.close(file)


class Span(NamedTuple):
    """From when to when an attempt ran, by the machine's monotonic clock."""

    begin: float
    end: float


def spans(lines: Path, killed: dict[int, float]) -> list[Span]:
    """All attempts that have begun. Those of a killed process ran until then; others without an end still run."""
    ended, begun = _read(lines)
    return ended + [Span(begin, killed.get(int(pid), time.monotonic())) for (pid, _), begin in begun.items()]


def short_spans(lines: Path) -> list[Span]:
    """Of attempts that have ended, but for those of workers that were silent for so long that they counted as dead."""
    return [span for span in _read(lines)[0] if span.end - span.begin < SILENT]


def _read(lines: Path) -> tuple[list[Span], dict[tuple[str, str], float]]:
    begun: dict[tuple[str, str], float] = {}
    ended = []
    for line in lines.read_text().splitlines() if lines.exists() else []:
        at, what, pid, attempt = line.split()
        if what == "begin":
            begun[pid, attempt] = float(at)
        else:
            ended.append(Span(begun.pop((pid, attempt)), float(at)))
    return ended, begun


def most_at_once(found: list[Span]) -> int:
    changes = sorted([(span.end, -1) for span in found] + [(span.begin, 1) for span in found])
    most = now = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most
