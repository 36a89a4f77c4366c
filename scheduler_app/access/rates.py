"""How often somebody may call: by key, and with wrong keys by address.

Counted in Redis, so that all web processes count together. While Redis is away requests pass: a limit that cannot be
counted must not stop the service.
"""

import logging
import math
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from flask import g
from limits import RateLimitItem, parse
from limits.storage import RedisStorage
from limits.strategies import FixedWindowRateLimiter
from redis import RedisError

from scheduler_app.access import refusals
from scheduler_app.broker import PriorityBroker
from scheduler_app.errors import TooManyRequests
from scheduler_app.services.callers import Caller

log = logging.getLogger(__name__)
T = TypeVar("T")

WRONG_KEYS = parse("20/minute")  # that one address may send
UNITS = {"s": "second", "m": "minute", "h": "hour"}


class Rates:
    """Of one web process."""

    def __init__(self, broker: PriorityBroker) -> None:
        self.broker = broker
        self._limiter: FixedWindowRateLimiter | None = None
        self._wrong = 0  # wrong keys since the log last told of them,
        self._told_at = float("-inf")  # which was then

    def count(self, caller: Caller) -> None:
        """Raises TooManyRequests when the caller's key has no request left in this window."""
        if caller.rate is None:
            return
        rate = parsed(caller.rate)
        allowed, left, wait = self._hit(rate, "key", caller.name) or (True, rate.amount, rate.get_expiry())
        g.rate_headers = {
            "RateLimit-Policy": f'"key";q={rate.amount};w={rate.get_expiry()}',
            "RateLimit": f'"key";r={left};t={wait}',
        }
        if not allowed:
            refusals.count(self.broker, refusals.RATE)
            _refuse(f"This key may make {caller.rate} requests; try again in {wait} s.", wait)

    def count_wrong_key(self, address: str) -> None:
        """Raises TooManyRequests for an address that has sent too many."""
        self._tell(address)
        refusals.count(self.broker, refusals.WRONG_KEY)
        allowed, _, wait = self._hit(WRONG_KEYS, "wrong-key", address) or (True, 0, 0)
        if not allowed:
            _refuse(f"Too many wrong keys from this address: at most {WRONG_KEYS.amount} a minute.", wait)

    def _tell(self, address: str) -> None:
        self._wrong += 1
        if time.monotonic() - self._told_at >= 1:
            log.warning("%d wrong keys came, the latest from %s", self._wrong, address)
            self._wrong, self._told_at = 0, time.monotonic()

    def _hit(self, rate: RateLimitItem, *identifiers: str) -> tuple[bool, int, int] | None:
        """Whether it is allowed, how many are left, and in how many seconds all are; None while Redis is away."""

        def hit(limiter: FixedWindowRateLimiter) -> tuple[bool, int, int]:
            allowed = limiter.hit(rate, *identifiers)
            window = limiter.get_window_stats(rate, *identifiers)
            return allowed, window.remaining, max(1, math.ceil(window.reset_time - time.time()))

        return self._asked(hit)

    def _asked(self, question: Callable[[FixedWindowRateLimiter], T]) -> T | None:
        with suppress(RedisError), self.broker.asked() as client:
            if self._limiter is None:  # its scripts are sent to Redis when it is made
                prefix = f"{self.broker.namespace}:__rates__"
                self._limiter = FixedWindowRateLimiter(RedisStorage("redis://", client.connection_pool, prefix))
            return question(self._limiter)
        return None


def parsed(rate: str) -> RateLimitItem:
    """Of the form 100/s, with s, m or h."""
    amount, _, unit = rate.partition("/")
    return parse(f"{amount}/{UNITS[unit]}")


def _refuse(message: str, wait: int) -> None:
    raise TooManyRequests(message, headers={"Retry-After": str(wait)})
