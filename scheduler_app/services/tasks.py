"""What can be done with a task from outside: submit, find, list, delete."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, delete, insert, select

from scheduler_app.errors import TaskNotFound, WrongState
from scheduler_app.extensions import db
from scheduler_app.models import Status, Task
from scheduler_app.services import dispatch
from scheduler_app.services.idempotency import Once


def submit(
    requests: Sequence[dict[str, Any]], *, now: datetime, once: Once[Sequence[Row[Any]]] | None = None
) -> list[Row[Any]]:
    """Creates a task for each request, all or none, and sends what is due. The rows stand in the requests' order."""
    if not requests:
        return []
    tasks = create(requests, now=now)
    if once:
        once.keep(tasks, now=now)
    db.session.commit()
    dispatch.publish([task for task in tasks if task.run_at <= now])
    return tasks


def create(requests: Sequence[dict[str, Any]], *, now: datetime) -> list[Row[Any]]:
    """Inserts the rows; the caller commits, then publishes."""
    rows = [request | {"run_at": max(request.get("run_at") or now, now), "created_at": now} for request in requests]
    table = Task.__table__
    statement = insert(table).returning(*table.c, sort_by_parameter_order=True)  # type: ignore[arg-type]
    return list(db.session.execute(statement, rows))


def get(task_id: int) -> Task:
    task = db.session.get(Task, task_id)
    if task is None:
        raise TaskNotFound(task_id)
    return task


def find(filters: dict[str, Any], *, limit: int, cursor: int | None = None) -> tuple[Sequence[Task], int | None]:
    """A page of tasks, newest first, and the cursor of the next page if there is one."""
    query = filtered(select(Task), filters)
    if cursor is not None:
        query = query.where(Task.task_id < cursor)
    tasks = db.session.scalars(query.order_by(Task.task_id.desc()).limit(limit + 1)).all()
    return tasks[:limit], tasks[limit - 1].task_id if len(tasks) > limit else None


def remove(task_id: int) -> None:
    """Deletes a task that no worker has begun."""
    deleted = db.session.execute(delete(Task).where(Task.task_id == task_id, Task.status == Status.PENDING))
    db.session.commit()
    if not deleted.rowcount:  # type: ignore[attr-defined]
        raise WrongState(f"Task {task_id} is {get(task_id).status}; only a PENDING task can be deleted.")


def filtered(query: Select[Any], filters: dict[str, Any]) -> Select[Any]:
    """Conditions by column; created_after and created_before beside."""
    conditions = {
        "created_after": lambda value: Task.created_at > value,
        "created_before": lambda value: Task.created_at < value,
    }
    for name, value in filters.items():
        condition = conditions.get(name)
        query = query.where(condition(value) if condition else getattr(Task, name) == value)
    return query
