"""Stops an operation that runs too long, by raising in its thread.

The exception reaches Python code at its next step; a call that waits in C is only interrupted once it returns.
"""

import ctypes
import threading
import time
from collections.abc import Callable
from functools import cache
from typing import Any

CHECK_INTERVAL = 0.25  # seconds between two looks at the deadlines

_set_async_exception = ctypes.pythonapi.PyThreadState_SetAsyncExc
_set_async_exception.argtypes = (ctypes.c_ulong, ctypes.c_void_p)


class TimeLimitExceeded(Exception):
    """The attempt took longer than its operation's time_limit."""


class _Interrupt(BaseException):
    """What is raised in the thread; not an Exception, so that an operation's own handlers let it through."""


class Running:
    """A function that runs in this thread and can be interrupted from another, at most once."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.deadline = time.monotonic() + limit
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._over = False
        self._reason: BaseException | None = None

    def call(self, function: Callable[[], Any]) -> Any:
        """The function's result, or the reason for the interruption raised. A result that is there wins."""
        results = []
        try:
            try:
                results.append(function())
            finally:
                self._close()
        except _Interrupt:
            if not results and self._reason:
                raise self._reason from None
        return results[0]

    def interrupt(self, reason: BaseException) -> None:
        with self._lock:
            if not self._over and self._reason is None:
                self._reason = reason
                _set_async_exception(self._thread, id(_Interrupt))

    def _close(self) -> None:
        with self._lock:
            self._over = True
        if self._reason:  # sent, but not raised yet: it must not reach the code that comes after
            _set_async_exception(self._thread, None)


class _Watch(threading.Thread):
    """Interrupts what is past its deadline; one thread a process, started with the first task."""

    def __init__(self) -> None:
        super().__init__(name="time-limits", daemon=True)
        self.running: set[Running] = set()

    def run(self) -> None:
        while True:
            now = time.monotonic()
            for running in self.running.copy():
                if now >= running.deadline:
                    running.interrupt(TimeLimitExceeded(f"Stopped after {running.limit:g} s, its time limit."))
            time.sleep(CHECK_INTERVAL)


def interruptible(function: Callable[[], Any], *, limit: float) -> Any:
    """Calls the function; raises TimeLimitExceeded when it takes longer than limit seconds."""
    watch, running = _watch(), Running(limit)
    watch.running.add(running)
    try:
        return running.call(function)
    finally:
        watch.running.discard(running)


@cache
def _watch() -> _Watch:
    watch = _Watch()
    watch.start()
    return watch
