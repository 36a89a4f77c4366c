"""Whether each part works.

Each check runs in a thread of its own. So when one part hangs, the other checks and the caller do not hang too.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from uuid import uuid4

from flask import Flask, current_app
from redis import RedisError
from sqlalchemy import delete, inspect, text
from sqlalchemy.exc import SQLAlchemyError

from scheduler_app import database
from scheduler_app.database import deadline, failures
from scheduler_app.extensions import broker, db
from scheduler_app.models import IdempotencyKey
from scheduler_app.services import clocks, pauses, schedulers, workers

log = logging.getLogger(__name__)

Check = Callable[[], str]  # "ok", or what is wrong

ANSWER_WITHIN = 0.7  # seconds for all checks, which run side by side
WRITE_EVERY = 10.0  # seconds between two writes that show whether the disk is full
WRITE_SIZE = 16_384  # bytes: more than fits into a page that is there already
MIGRATIONS = Path(__file__).parents[2] / "migrations" / "versions"
GIVEN_UP_AFTER = 5.0  # seconds that a check waits for the database; meanwhile there is no other of its part


def checks() -> dict[str, str]:
    """For each part "ok", or what is wrong. Returns within ANSWER_WITHIN seconds, whatever hangs."""
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    probes = app.extensions.setdefault("backbeat.probes", {name: Probe(app, check) for name, check in PARTS.items()})
    for probe in probes.values():
        probe.begin()
    return {name: probe.outcome() for name, probe in probes.items()}


class Probe:
    """The check of one part. At most one runs at a time; a caller meanwhile gets the outcome of that one."""

    def __init__(self, app: Flask, check: Check) -> None:
        self.app = app
        self.check = check
        self._lock = threading.Lock()
        self._latest: Future[str] = Future()
        self._latest.set_result("")
        self._began = 0.0

    def begin(self) -> None:
        with self._lock:
            if self._latest.done():
                self._latest, self._began = Future(), time.monotonic()
                threading.Thread(target=self._perform, args=(self._latest,), name="probe", daemon=True).start()

    def outcome(self) -> str:
        try:
            return self._latest.result(max(0.0, self._began + ANSWER_WITHIN - time.monotonic()))
        except TimeoutError:
            return f"does not answer within {ANSWER_WITHIN} s"

    def _perform(self, outcome: Future[str]) -> None:
        try:
            with deadline(GIVEN_UP_AFTER), self.app.app_context():  # leaving it rolls back, which can fail as well
                found = self.check()
        except (SQLAlchemyError, RedisError) as error:
            found = f"does not answer ({type(error).__name__})"
        except Exception as error:
            log.exception("a check failed")
            found = f"cannot be checked ({type(error).__name__})"
        outcome.set_result(found)


def _database() -> str:
    postgresql = db.engine.dialect.name == "postgresql"
    answer = db.session.scalar(text("SHOW transaction_read_only" if postgresql else "SELECT 1"))
    return "is read-only" if answer == "on" else _latest_write()


def _latest_write() -> str:
    """What came of the latest write; it is tried again after WRITE_EVERY."""
    tried_at, outcome = current_app.extensions.get("backbeat.latest_write", (float("-inf"), ""))
    if time.monotonic() - tried_at >= WRITE_EVERY:
        outcome = _write()
        current_app.extensions["backbeat.latest_write"] = time.monotonic(), outcome
    return str(outcome)


def _write() -> str:
    # Only what is committed surely reaches the disk. If the row stays, retention removes it as a very old key.
    key = f"readyz {uuid4()}"
    answer = {"body": os.urandom(WRITE_SIZE // 2).hex()}
    try:
        db.session.add(
            IdempotencyKey(key=key, fingerprint="", answer=answer, created_at=datetime(2000, 1, 1, tzinfo=UTC))
        )
        db.session.commit()
        db.session.execute(delete(IdempotencyKey).where(IdempotencyKey.key == key))
        db.session.commit()
    except SQLAlchemyError as error:
        db.session.rollback()
        if failures.is_disk_full(error):
            return "the disk is full; nothing can be stored until there is space"
        if failures.is_read_only(error):
            return "is read-only"
        if failures.is_outage(error) and failures.code(error) != "SQLITE_BUSY":
            raise
    return "ok"


def _broker() -> str:
    return broker.status()


def _migrations() -> str:
    with db.engine.connect() as connection:
        known = inspect(connection).has_table("alembic_version")
        current = connection.scalar(text("SELECT version_num FROM alembic_version")) if known else None
    head = _head()
    return "ok" if current == head else f"at {current or 'nothing'}, not {head}; run: flask --app wsgi db upgrade"


def _scheduler() -> str:
    now = database.clock()
    latest = next(iter(schedulers.find()), None)
    if latest is None:
        return "none is running"
    silent = now - latest.scanned_at
    if silent <= schedulers.SILENT_AFTER:
        return "ok"
    return f"no scan for {silent.total_seconds():.0f} s; the latest was by process {latest.pid} on {latest.host}"


def _workers() -> str:
    return "ok" if workers.living(now=database.clock()) else "none is running"


def _priorities() -> str:
    # Without the note: anybody may read this.
    paused = [f"{row.priority} since {row.paused_at:%Y-%m-%dT%H:%M:%SZ}" for row in pauses.find().values()]
    return f"paused: {', '.join(paused)}" if paused else "ok"


def _clocks() -> str:
    wrong = [
        f"{kind} {pid} on {host} is {database.describe_offset(offset)} it"
        for kind, host, pid, offset in clocks.find(now=database.clock())
        if offset is not None and database.is_off(offset)
    ]
    return f"not as the database's: {', '.join(wrong)}" if wrong else "ok"


@cache
def _head() -> str:
    # By the names of the files: Alembic would have to be imported, which no process else needs, and import each file.
    return max(path.name for path in MIGRATIONS.glob("*.py")).partition("_")[0]


PARTS: dict[str, Check] = {
    "database": _database,
    "broker": _broker,
    "migrations": _migrations,
    "scheduler": _scheduler,
    "workers": _workers,
    "clocks": _clocks,
    "priorities": _priorities,
}
