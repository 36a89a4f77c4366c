"""Harms that disturb a system without ending a process. Each lasts as long as its `with` block."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from tests.support import faketime
from tests.support.faketime import WrongClock
from tests.support.servers import Postgres, Valkey
from tests.support.target import Target

Harm = Callable[[], AbstractContextManager[None]]

OF_SOMEBODY_ELSE = "somebody.else"
MEBIBYTE = 1 << 20
MONTH = 30 * 86_400.0  # seconds


@contextmanager
def frozen(server: Postgres | Valkey) -> Iterator[None]:
    server.freeze()
    try:
        yield
    finally:
        server.thaw()


@contextmanager
def read_only(postgres: Postgres) -> Iterator[None]:
    """Makes the server read-only, as after a failover. Open sessions notice with their next transaction."""
    _configure(postgres, "SET default_transaction_read_only = on")
    try:
        yield
    finally:
        _configure(postgres, "RESET default_transaction_read_only")


def _configure(postgres: Postgres, change: str) -> None:
    postgres.sql(f"ALTER SYSTEM {change}")
    postgres.sql("SELECT pg_reload_conf()")


@contextmanager
def full(valkey: Valkey) -> Iterator[None]:
    """Fills Redis with somebody else's key. Nothing is evicted."""
    valkey.client.set(OF_SOMEBODY_ELSE, b"x" * 8 * MEBIBYTE)
    valkey.limit(MEBIBYTE)
    try:
        yield
    finally:
        valkey.limit(0)
        valkey.client.delete(OF_SOMEBODY_ELSE)


@contextmanager
def stepped(clock: WrongClock, seconds: float) -> Iterator[None]:
    clock.set(seconds)
    try:
        yield
    finally:
        clock.set(0)


def bends(target: Target) -> dict[str, Harm]:
    """All of them, by name."""
    found: dict[str, Harm] = {
        "Redis frozen": partial(frozen, target.valkey),
        "Redis full": partial(full, target.valkey),
        "a worker cut from Redis": target.redis_proxy.cut,
        "a worker's line to Redis stalled": target.redis_proxy.stalled,
    }
    if target.postgres and faketime.LIBRARY.exists():  # what is on SQLite has one clock
        for what, clock in (("worker", target.worker_clock), ("scheduler", target.scheduler_clock)):
            for step, seconds in (("10 s back", -10), ("an hour back", -3600), ("5 min ahead", 300)):
                found[f"a {what}'s clock {step}"] = partial(stepped, clock, seconds)
        found["a scheduler's clock a month ahead"] = partial(stepped, target.scheduler_clock, MONTH)
    if target.postgres:
        found |= {
            "PostgreSQL frozen": partial(frozen, target.postgres),
            "PostgreSQL read-only": partial(read_only, target.postgres),
            "a worker cut from PostgreSQL": target.database_proxy.cut,
            "a worker's line to PostgreSQL stalled": target.database_proxy.stalled,
        }
    return found


def last(harm: Harm, seconds: float) -> None:
    with harm():
        time.sleep(seconds)
