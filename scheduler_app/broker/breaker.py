"""When Redis hangs, a few threads wait for one timeout each. The other requests are refused at once."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import redis

log = logging.getLogger(__name__)

AT_ONCE = 2  # calls under way; Redis serves one at a time, and a thread that waits for a hanging Redis serves nobody
PATIENCE = 0.1  # seconds; once a call takes longer, no other call is begun beside it
PAUSE = 3.0  # seconds without a call after one has timed out


class NotAsked(redis.TimeoutError):
    """Redis was not asked, because it does not answer earlier calls."""


class Breaker:
    """Lets calls through as long as Redis answers. Any number of threads may share it.

    A refused connection costs no time, so only timeouts count.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._under_way: list[float] = []  # when each call began, the oldest first
        self._paused_until = 0.0

    @contextmanager
    def call(self) -> Iterator[None]:
        """Wraps one round trip. Raises NotAsked when Redis hangs, so that the round trip is not made."""
        began = self._enter()
        try:
            yield
        except redis.TimeoutError:
            log.warning("Redis does not answer; it is asked again in %.0f s", PAUSE)
            self._paused_until = time.monotonic() + PAUSE
            raise
        finally:
            self._leave(began)

    def _enter(self) -> float:
        with self._changed:
            while len(self._under_way) >= AT_ONCE and not self._hangs():
                self._changed.wait(PATIENCE)
            if self._hangs():
                raise NotAsked("earlier calls got no answer")
            began = time.monotonic()
            self._under_way.append(began)
            return began

    def _leave(self, began: float) -> None:
        with self._changed:
            self._under_way.remove(began)
            self._changed.notify()

    def _hangs(self) -> bool:
        now = time.monotonic()
        return now < self._paused_until or any(now - began >= PATIENCE for began in self._under_way)
