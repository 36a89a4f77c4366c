"""How long a thread may wait for PostgreSQL, and which threads wait now."""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

PATIENCE = 15.0  # seconds that one statement may take where no deadline is set
STUCK = 1.0  # seconds after which a wait is suspicious
STUCK_AGAIN = 0.05  # the same after the server was silent, until it answers again

_until: ContextVar[float] = ContextVar("until", default=0.0)  # as time.monotonic(); 0 where no deadline is set


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """All waits for PostgreSQL inside it together take at most that many seconds; math.inf sets no limit."""
    token = _until.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _until.reset(token)


def extend(seconds: float) -> None:
    """Sets the surrounding deadline anew: that many seconds from now."""
    _until.set(time.monotonic() + seconds)


def time_left() -> float | None:
    """Seconds that the next statement may take; None for no limit."""
    until = _until.get()
    if not until:
        return PATIENCE
    return None if until == math.inf else max(0.0, until - time.monotonic())


class Waits:
    """The waits of this process's threads for the server. A thread waits for one answer at a time."""

    def __init__(self) -> None:
        self._began: dict[int, float] = {}  # by thread
        self._silent = False  # whether the wait that ended last got no answer
        self._silent_from = 0.0  # when the latest wait without an answer began

    def begin(self) -> None:
        self._began[threading.get_ident()] = time.monotonic()

    def end(self, *, answered: bool) -> None:
        began = self._began.pop(threading.get_ident())
        self._silent = not answered
        if not answered:
            self._silent_from = began

    def silent_since(self, moment: float) -> bool:
        """Whether a wait that began after `moment` got no answer. A connection made before may then be dead, too."""
        return self._silent_from > moment

    def stuck(self) -> int:
        """How many waits have lasted suspiciously long."""
        since = time.monotonic() - (STUCK_AGAIN if self._silent else STUCK)
        return sum(began < since for began in self._began.copy().values())


waits = Waits()
