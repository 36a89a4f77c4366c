"""Stops an operation from another thread: when it runs too long, or when it is cancelled and does not ask.

The exception reaches Python code at its next step. A call that waits in C code is interrupted only when it returns.
"""

import ctypes
import threading
import time
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")

CHECK_INTERVAL = 0.25  # seconds between two looks at the deadlines

_set_async_exception = ctypes.pythonapi.PyThreadState_SetAsyncExc
_set_async_exception.argtypes = (ctypes.c_ulong, ctypes.c_void_p)


class TimeLimitExceeded(Exception):
    """The attempt took longer than its operation's time_limit."""


class _Interrupt(BaseException):
    """Raised in the operation's thread. Not an Exception, so that the operation's own handlers let it pass."""


class InterruptibleCall:
    """One call of a function. Other threads can interrupt it, at most once."""

    def __init__(self) -> None:
        self.limit = 0.0
        self.deadline = 0.0
        self._thread = 0
        self._lock = threading.Lock()
        self._open = False
        self._reason: BaseException | None = None

    def run(self, function: Callable[[], Any], *, limit: float) -> Any:
        """Returns the function's result, or raises the reason for the interruption. If there is a result, it wins.

        After `limit` seconds the call is interrupted with TimeLimitExceeded.
        """
        self.limit, self.deadline, self._thread = limit, time.monotonic() + limit, threading.get_ident()
        watch, results = _watch(), []
        try:
            watch.calls.add(self)
            try:
                self._open = True
                results.append(function())
            finally:
                self._close()
        except _Interrupt:
            if not results and self._reason:
                raise self._reason from None
        finally:
            watch.calls.discard(self)
        return results[0]

    def interrupt(self, reason: BaseException) -> None:
        """Does nothing unless the function is running."""
        with self._lock:
            if self._open and self._reason is None:
                self._reason = reason
                _set_async_exception(self._thread, id(_Interrupt))

    def look(self, at: Callable[[int], T]) -> T | None:
        """What `at` says of the thread that runs the function, which does not end meanwhile; None when it has ended."""
        with self._lock:
            return at(self._thread) if self._open else None

    def _close(self) -> None:
        with self._lock:
            self._open = False
        if self._reason:  # sent, but not raised yet: it must not reach the code that comes after
            _set_async_exception(self._thread, None)


class _Watch(threading.Thread):
    """Interrupts calls that are past their deadline. One thread per process, started with the first task."""

    def __init__(self) -> None:
        super().__init__(name="time-limits", daemon=True)
        self.calls: set[InterruptibleCall] = set()

    def run(self) -> None:
        while True:
            now = time.monotonic()
            for call in self.calls.copy():
                if now >= call.deadline:
                    call.interrupt(TimeLimitExceeded(f"Stopped after {call.limit:g} s, its time limit."))
            time.sleep(CHECK_INTERVAL)


@cache
def _watch() -> _Watch:
    watch = _Watch()
    watch.start()
    return watch
