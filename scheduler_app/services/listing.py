"""Tasks as lists show them: without long values, so that a page is at most about 1 MiB.

What is left out does not leave the database.
"""

import json
from collections.abc import Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

from sqlalchemy import ColumnElement, Select, case, func, null, or_, select, type_coerce

from scheduler_app.database import is_longer
from scheduler_app.database.columns import Json
from scheduler_app.extensions import db
from scheduler_app.models import Failure, Task

SHORT = 1_024  # characters of JSON: longer values of these columns are left out
COLUMNS = ("params", "result", "error", "progress")
# Columns that no list shows.
INNER = ("worker_id", "claims", "enqueued_at", "unknown_since", "error_type", "unique_key")
COUNTED = 1_000  # failures of a task; more are not counted
LATEST = 20  # failures that a single task shows

Listed = SimpleNamespace  # with the other columns, and with `truncated` and `failure_count`


def read(*conditions: ColumnElement[bool], order: ColumnElement[Any], limit: int | None = None) -> list[Listed]:
    """The tasks that meet the conditions. `truncated` says whether a long value is left out, which is then None."""
    query = _listed(db.engine.dialect.name).where(*conditions).order_by(order).limit(limit)
    return [Listed(**row._mapping) for row in db.session.execute(query)]


def brief(task: SimpleNamespace) -> Listed:
    """The same of a task that has just been created."""
    listed = Listed(**vars(task), truncated=len(json.dumps(task.params)) > SHORT, failure_count=0)
    if listed.truncated:
        listed.params = None
    return listed


def briefly(tasks: Sequence[SimpleNamespace]) -> list[Listed]:
    """The same of several, some of which may have been there before."""
    known = [task.task_id for task in tasks if task.met]
    rows = read(Task.task_id.in_(known), order=Task.__table__.c.task_id) if known else []
    there = {task.task_id: task for task in rows}
    return [there.get(task.task_id) or brief(task) for task in tasks]


def failures(task_id: int) -> tuple[Sequence[Failure], int]:
    """The latest LATEST failures of a task, the oldest of these first; and how many there are, COUNTED at most."""
    query = select(Failure).where(Failure.task_id == task_id).order_by(Failure.claim.desc()).limit(LATEST)
    latest = db.session.scalars(query).all()[::-1]
    if len(latest) < LATEST:
        return latest, len(latest)
    return latest, db.session.scalars(select(_failures()).where(Task.task_id == task_id)).one()


@cache
def _listed(dialect: str) -> Select[Any]:
    columns = Task.__table__.c
    long = {name: is_longer(columns[name], SHORT) for name in COLUMNS}
    short = [type_coerce(case((long[name], null()), else_=columns[name]), Json).label(name) for name in COLUMNS]
    others = [column for name, column in columns.items() if name not in COLUMNS + INNER]
    return select(*others, *short, or_(*long.values()).label("truncated"), _failures().label("failure_count"))


def _failures() -> Any:
    some = select(Failure.claim).where(Failure.task_id == Task.task_id).limit(COUNTED).correlate(Task).subquery()
    return select(func.count()).select_from(some).scalar_subquery()
