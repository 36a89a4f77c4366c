"""What is expensive to compute, computed at most once in two seconds in each process, however many look."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast

from flask import current_app
from werkzeug.local import LocalProxy

from scheduler_app.database import time_left
from scheduler_app.errors import SOON, Unavailable

T = TypeVar("T")

FRESH = 2.0  # seconds
MOST = 256  # values that are kept


class Shared:
    """Values by key. The key must name all that a value depends on, such as what its caller may see.

    The values are used by several threads: they must be plain data, not rows of a session.
    """

    def __init__(self, *, fresh: float = FRESH, most: int = MOST) -> None:
        self._fresh = fresh
        self._most = most
        self._slots: OrderedDict[Hashable, _Slot] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, compute: Callable[[], T]) -> T:
        """While another thread computes the value, the one before is returned, or that thread is waited for."""
        slot = self._slot(key)
        if slot.is_fresh():
            return cast(T, slot.value)
        if slot.until is None:
            if not slot.lock.acquire(timeout=time_left() or 0):
                raise Unavailable("The database does not answer; try again.", headers=SOON)
        elif not slot.lock.acquire(blocking=False):
            return cast(T, slot.value)
        try:
            if not slot.is_fresh():
                slot.value, slot.until = compute(), time.monotonic() + self._fresh
            return cast(T, slot.value)
        finally:
            slot.lock.release()

    def _slot(self, key: Hashable) -> "_Slot":
        with self._lock:
            slot = self._slots.setdefault(key, _Slot())
            self._slots.move_to_end(key)
            while len(self._slots) > self._most:
                self._slots.popitem(last=False)
            return slot


class _Slot:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.value: Any = None
        self.until: float | None = None  # None: never computed

    def is_fresh(self) -> bool:
        return self.until is not None and time.monotonic() < self.until


# One for each application of the process.
shared = cast(Shared, LocalProxy(lambda: current_app.extensions.setdefault("backbeat.shared", Shared())))
