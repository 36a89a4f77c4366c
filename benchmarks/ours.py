"""This project's side: waiting tasks loaded in bulk, its real processes, and the rate at which tasks were done."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Integer, column, func, insert, literal, select, text

from benchmarks.harness import PATIENCE, Environ, application, paused
from scheduler_app.broker import Delivery
from scheduler_app.extensions import broker, db
from scheduler_app.models import Status, Task
from tests.support.processes import eventually
from tests.support.system import System

N = column("n", Integer)  # the number of a row that is loaded, from 1


def insert_tasks(count: int, **columns: Any) -> None:
    """So many rows of `4+7`, the fastest way; columns may be expressions of N."""
    numbers = select(literal(1).label("n")).cte("numbers", recursive=True)
    numbers = numbers.union_all(select(numbers.c.n + 1).where(numbers.c.n < count))
    now = datetime.now(UTC)
    values = {
        "operation": "calculate",
        "params": {"expression": "4+7"},
        "priority": 5,
        "status": Status.PENDING,
        "attempts": 0,
        "max_retries": 5,
        "claims": 0,
        "run_at": now,
        "enqueued_at": now,
        "created_at": now,
    } | columns
    chosen = [_expression(name, value) for name, value in values.items()]
    db.session.execute(insert(Task).from_select(list(values), select(*chosen).select_from(numbers)))
    db.session.commit()


def _expression(name: str, value: Any) -> ColumnElement[Any]:
    return value if isinstance(value, ColumnElement) else literal(value, Task.__table__.c[name].type)


def publish_all() -> None:
    """Sends every waiting task."""
    query = select(Task.task_id, Task.claims, Task.operation, Task.priority, Task.group).where(
        Task.status == Status.PENDING
    )
    rows = db.session.execute(query.order_by(Task.task_id), execution_options={"yield_per": 10_000})
    broker.publish(Delivery(*row) for row in rows)
    db.session.rollback()


def vacuum() -> None:
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(
            text("VACUUM (ANALYZE) task, task_label" if db.engine.dialect.name == "postgresql" else "ANALYZE")
        )


def drain(environ: Environ, count: int, *, wait_for: int | None = None, workers: int = 2, threads: int = 8) -> float:
    """Tasks a second, from the first start to the finish of the last one, or of as many as are waited for.

    They wait in the database already, and are published while the workers stand still.
    """
    wanted = wait_for or count
    with application(environ), System(environ, web=0, workers=workers, schedulers=0, threads=threads) as system:
        with paused(system.workers):
            publish_all()
        eventually(lambda: count - sum(broker.waiting()) >= wanted, within=PATIENCE)
        eventually(lambda: finished() >= wanted, within=PATIENCE)
        return wanted / _seconds(wanted)


def finished() -> int:
    number: int = db.session.scalar(select(func.count()).where(Task.finished_at.is_not(None))) or 0
    db.session.rollback()
    return number


def _seconds(wanted: int) -> float:
    first = db.session.scalar(select(func.min(Task.started_at)).where(Task.finished_at.is_not(None)))
    ended = select(Task.finished_at).where(Task.finished_at.is_not(None)).order_by(Task.finished_at)
    last = db.session.scalars(ended.offset(wanted - 1).limit(1)).one()
    db.session.rollback()
    assert first
    assert last
    return (last - first).total_seconds()
