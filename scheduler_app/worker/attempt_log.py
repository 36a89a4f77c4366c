"""What an operation logs, on its way to the table.

The operation's threads only put lines into memory. The pulse writes them, about once a second, or sooner when many have
come. Of a long log the first HEAD and the last TAIL bytes are kept, here and in the table, so neither grows.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from scheduler_app.operations import lookup, running_task
from scheduler_app.services.attempt_logs import HEAD, TAIL, Chunk, Place
from scheduler_app.services.attempts import Attempt

CHUNK = 32_768  # bytes of a chunk; so many that wait are written at once
LONGEST_LINE = 8_192  # characters
OURS = ("scheduler_app", "dramatiq", "actors.worker")  # loggers that tell of the worker, not of the operation

FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s"


class Line(NamedTuple):
    number: int  # from 1
    text: str
    size: int  # bytes


class AttemptLog:
    """Of one attempt. Any thread may add; the pulse takes."""

    def __init__(self, place: Place, *, waits: bool) -> None:
        self.place = place
        self._waits = waits  # for a failure: until then nothing is written
        self._lock = threading.Lock()
        self._last = 0  # the number of the last line
        self._head_left = HEAD
        self._head: list[Line] = []
        self._tail: deque[Line] = deque()
        self._head_size = self._tail_size = 0  # bytes that wait
        self._chunks = 0  # that were made
        self._stored: deque[tuple[int, int]] = deque()  # number and size of the chunks of the tail in the table
        self._stored_size = 0

    def add(self, text: str) -> None:
        with self._lock:
            for line in text.splitlines() or [""]:
                self._add_line(_printable(line[:LONGEST_LINE]))
            many = self._head_size + self._tail_size >= CHUNK
        if not self._waits:
            unwritten.add(self)
            if many:
                wake.set()

    def failed(self) -> None:
        """The attempt has failed: a log that waits for that is written."""
        self._waits = False
        unwritten.add(self)

    def take(self) -> tuple[list[Chunk], list[tuple[int, int, int]]]:
        """The chunks to write, and the keys of those in the table that give way to them."""
        with self._lock:
            head, tail = self._head, self._tail
            self._head, self._tail, self._head_size, self._tail_size = [], deque(), 0, 0
        chunks = [self._chunk(lines) for lines in _parts(head)]
        for lines in _parts(tail):
            chunks.append(self._chunk(lines))
            self._stored.append((self._chunks, size := sum(line.size for line in lines)))
            self._stored_size += size
        return chunks, list(self._surplus())

    def _add_line(self, text: str) -> None:
        self._last += 1
        line = Line(self._last, text, len(text.encode()) + 1)
        if line.size <= self._head_left:
            self._head_left -= line.size
            self._head_size += line.size
            self._head.append(line)
            return
        self._head_left = 0
        self._tail_size += line.size
        self._tail.append(line)
        while self._tail_size - self._tail[0].size >= TAIL:
            self._tail_size -= self._tail.popleft().size

    def _chunk(self, lines: list[Line]) -> Chunk:
        self._chunks += 1
        return Chunk(*self.place, self._chunks, lines[0].number, len(lines), "\n".join(line.text for line in lines))

    def _surplus(self) -> Iterator[tuple[int, int, int]]:
        while self._stored and self._stored_size - self._stored[0][1] >= TAIL:
            number, size = self._stored.popleft()
            self._stored_size -= size
            yield self.place.task_id, self.place.claim, number


class Logging(Protocol):
    """A task that runs here."""

    record: Attempt
    attempt_log: AttemptLog | None


unwritten: set[AttemptLog] = set()
wake = threading.Event()  # set when the pulse is to write before its time
_making = threading.Lock()


def put(task: Logging, text: str) -> None:
    """Adds to the log of the attempt, as its operation wants it."""
    operation = lookup(task.record.operation)
    kept = operation.logs if operation else "all"
    if kept == "off":
        return
    with _making:
        if task.attempt_log is None:
            place = Place(task.record.task_id, task.record.claims, task.record.number)
            task.attempt_log = AttemptLog(place, waits=kept == "failures")
    task.attempt_log.add(text)


def stamped(text: object) -> str:
    moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return f"{moment} {text}"


class Handler(logging.Handler):
    """Takes what is logged where an attempt runs, also in threads to which its operation has copied its context."""

    def __init__(self) -> None:
        super().__init__()
        formatter = logging.Formatter(FORMAT, "%Y-%m-%dT%H:%M:%S")
        formatter.converter = time.gmtime
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        task: Any = running_task.get(None)
        if task is not None and not record.name.startswith(OURS):
            try:
                put(task, self.format(record))
            except Exception:
                self.handleError(record)


def _parts(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """In rows of consecutive lines that make one chunk."""
    part: list[Line] = []
    size = 0
    for line in lines:
        if part and (size + line.size > CHUNK or line.number != part[-1].number + 1):
            yield part
            part, size = [], 0
        part.append(line)
        size += line.size
    if part:
        yield part


def _printable(text: str) -> str:
    # PostgreSQL stores neither NUL nor lone surrogates.
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
