"""Whether each part works."""

from collections.abc import Callable
from datetime import datetime
from functools import cache

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import current_app
from redis import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from scheduler_app.extensions import broker, db
from scheduler_app.services import schedulers


def checks(*, now: datetime) -> dict[str, str]:
    """By part: "ok", or what is wrong."""
    parts: dict[str, Callable[[], str]] = {
        "database": _database,
        "broker": _broker,
        "migrations": _migrations,
        "scheduler": lambda: _scheduler(now),
    }
    return {name: _outcome(check) for name, check in parts.items()}


def _outcome(check: Callable[[], str]) -> str:
    try:
        return check()
    except (SQLAlchemyError, RedisError) as error:
        db.session.rollback()
        return f"does not answer ({type(error).__name__})"


def _database() -> str:
    db.session.execute(text("SELECT 1"))
    return "ok"


def _broker() -> str:
    return broker.status()


def _migrations() -> str:
    with db.engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    head = _head()
    return "ok" if current == head else f"at {current or 'nothing'}, not {head}; run: flask --app wsgi db upgrade"


def _scheduler(now: datetime) -> str:
    latest = next(iter(schedulers.find()), None)
    if latest is None:
        return "none is running"
    silent = now - latest.scanned_at
    if silent <= schedulers.SILENT_AFTER:
        return "ok"
    return f"no scan for {silent.total_seconds():.0f} s; the latest was by process {latest.pid} on {latest.host}"


@cache
def _head() -> str | None:
    return ScriptDirectory(current_app.extensions["migrate"].directory).get_current_head()
