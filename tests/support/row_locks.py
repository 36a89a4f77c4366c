"""Lets a test see that a transaction waits for a row that another one has locked, on PostgreSQL."""

import psycopg

from tests.support.processes import eventually

WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"


def wait_until_blocked(url: str, *, transactions: int = 1) -> None:
    with psycopg.connect(url, autocommit=True) as look:
        eventually(lambda: look.execute(WAITING).fetchone() == (transactions,))
