"""What a client can do with tasks: submit, find, list and delete them."""

import json
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import cache
from types import SimpleNamespace
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Executable,
    Integer,
    Select,
    Text,
    cast,
    delete,
    literal,
    select,
    union_all,
)

from scheduler_app import operations, tracing
from scheduler_app.callback import CALLBACK
from scheduler_app.database import as_table, execute_directly, insert, parameters, read_few_rows
from scheduler_app.database.columns import Json
from scheduler_app.errors import TaskNotFound, WrongState
from scheduler_app.extensions import db
from scheduler_app.models import HELD, Status, Task, TaskLabel
from scheduler_app.services import audit, backlog, callers, counts, dispatch, labels, listing, unique
from scheduler_app.services.ends import end_with_commit
from scheduler_app.services.idempotency import Once
from scheduler_app.services.listing import Listed

INDEXED = {"status", "cause", "error_type"}  # filters that one index fits, all together
FOUND = {"task_schedule_id", "unique_key"}  # filters whose index finds few tasks
FEW = 10_000  # tasks that ended in a stretch of time, to be looked at one by one
SEARCHED = 20_000  # tasks that one page looks through when no index fits its filters: that takes some milliseconds

NewTask = SimpleNamespace  # with the columns of its row
FIXED = {"status": Status.PENDING.value, "attempts": 0, "claims": 0, "cancel_requested": False}
# `met` is what the request was met by, if the task was there already: "kept" or "replaced".
FRESH = dict.fromkeys(column.name for column in Task.__table__.c if column.name != "task_id") | FIXED | {"met": None}
COPIED = ("operation", "priority", "max_retries", "run_at", "created_at", "created_by")
# Columns that few tasks use: the statement for the others is without them.
RARE = ("trace", "retry", "expires_at", "labels", "group", "callback", "unique", "unique_key")
JSON = {"params", "trace", "retry", "labels", "callback", "unique"}  # columns that the statement gets as text


def submit(
    requests: Sequence[dict[str, Any]],
    *,
    now: datetime,
    once: Once[Sequence[NewTask]] | None = None,
    partly: bool = False,
) -> list[NewTask]:
    """Creates one task per request, all or none, and sends the due ones. Returns them in the order of the requests.

    A request with `unique` may meet a task that is there already, see `unique.create`. If it may not replace that one,
    WrongState is raised; with `partly` a Refusal stands in the place of its task.
    Raises Forbidden for an operation that the caller does not reach, as for a callback without the right to that, and
    Unavailable when too many tasks wait.
    """
    if not requests:
        return []
    callers.check_reach(request["operation"] for request in requests)
    callers.check_reach(CALLBACK for request in requests if request.get("callback"))
    backlog.check_room()
    with tracing.posting(requests) as posted:
        if once or any(request.get("labels") or request.get("unique") for request in requests):
            tasks = create(requests, now=now)
            if not partly:
                unique.check(tasks)
            if once:
                once.keep(tasks, now=now)
            db.session.commit()
        else:
            tasks = _insert(requests, now, execute_directly)
        posted.extend(task for task in tasks if not isinstance(task, unique.Refusal))
        dispatch.publish([task for task in tasks if task.met not in unique.NOT_SENT and task.run_at <= now])
    return tasks


def create(requests: Sequence[dict[str, Any]], *, now: datetime) -> list[NewTask]:
    """Inserts the rows; the caller commits, then publishes."""

    def insert(some: Sequence[dict[str, Any]]) -> list[NewTask]:
        tasks = _insert(some, now, db.session.execute)
        labels.keep(((task.task_id, task.labels) for task in tasks), db.session.execute)
        return tasks

    if any(request.get("unique") for request in requests):
        return unique.create(requests, now=now, insert=insert)
    return insert(requests)


def _insert(requests: Sequence[dict[str, Any]], now: datetime, execute: Callable[..., Any]) -> list[NewTask]:
    new = {"created_at": now, "created_by": callers.name(), "trace": tracing.current() or None}
    rows = [new | request | {"run_at": max(request.get("run_at") or now, now)} for request in requests]
    rows = [_expiring(row) if row.get("expires_in") else row for row in rows]
    used = {name for row in rows for name, value in row.items() if value is not None}
    columns = ("params", *COPIED, *(name for name in RARE if name in used))
    values = ([place, *_given(row, columns)] for place, row in enumerate(rows))
    insertion, given = _insertion(db.engine.dialect.name, columns)
    inserted = execute(insertion, parameters(given, values))
    if "unique_key" in columns:  # those whose key is not taken
        by_key = {key: task_id for task_id, key in inserted}
        rows = [row for row in rows if row["unique_key"] in by_key]
        ids = [by_key[row["unique_key"]] for row in rows]
    else:  # they are numbered as they are inserted: in the requests' order
        ids = sorted(task_id for (task_id,) in inserted)
    return [NewTask(**FRESH | row, task_id=task_id) for task_id, row in zip(ids, rows, strict=True)]


def _expiring(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"expires_at": row["run_at"] + timedelta(seconds=row["expires_in"])}


def _given(row: dict[str, Any], columns: Sequence[str]) -> list[Any]:
    values = ((name, row.get(name)) for name in columns)
    return [json.dumps(value) if name in JSON and value is not None else value for name, value in values]


@cache
def _insertion(dialect: str, columns: tuple[str, ...]) -> tuple[Executable, dict[str, Any]]:
    """A statement that inserts these columns, and what its table of parameters has."""
    types = {name: Text() if name in JSON else Task.__table__.c[name].type for name in columns}
    given = as_table({"place": Integer()} | types)
    values: dict[str, ColumnElement[Any]] = {name: given.c[name] for name in columns}
    values |= {name: literal(value) for name, value in FIXED.items()}
    values |= {name: cast(given.c[name], Json) for name in JSON if name in columns}
    rows = select(*values.values()).order_by(given.c.place)
    statement = insert(Task.__table__).from_select(list(values), rows)
    if "unique_key" in columns:
        statement = statement.on_conflict_do_nothing(index_elements=["unique_key"], index_where=HELD)
        return statement.returning(Task.task_id, Task.unique_key), {"place": Integer()} | types
    return statement.returning(Task.task_id), {"place": Integer()} | types


def get(task_id: int) -> Task:
    task = db.session.get(Task, task_id)
    if task is None or callers.wrong_reach(task.operation):
        raise TaskNotFound(task_id)
    return task


def has_ended(task_id: int) -> bool:
    """Raises TaskNotFound."""
    task = db.session.execute(select(Task.operation, Task.finished_at).where(Task.task_id == task_id)).one_or_none()
    if task is None or callers.wrong_reach(task.operation):
        raise TaskNotFound(task_id)
    return task.finished_at is not None


def find(filters: dict[str, Any], *, limit: int, cursor: int | None = None) -> tuple[list[Listed], int | None]:
    """A page of tasks as `listing` gives them, newest first, and the cursor of the next page if there is one.

    When no index fits the filters, it looks through at most SEARCHED tasks. So a page may be short, or even empty, and
    still have a next one.
    """
    few = few_ended(filters)
    last = None if few or _in_order(filters) else last_to_search(filters, cursor)
    found = [_newest(filters | status, cursor, last, limit + 1, few) for status in _each_status(filters)]
    tasks = listing.read(Task.task_id.in_(union_all(*found)), order=Task.task_id.desc(), limit=limit + 1)
    return tasks[:limit], tasks[limit - 1].task_id if len(tasks) > limit else last


def _each_status(filters: dict[str, Any]) -> list[dict[str, str]]:
    """One query per status, because the index then gives the newest tasks without a sort."""
    statuses = filters.get("status") or (Status if filters.keys() & {"cause", "error_type"} else ())
    return [{"status": status} for status in statuses] or [{}]


def _newest(filters: dict[str, Any], cursor: int | None, last: int | None, limit: int, few: bool) -> Select[Any]:
    query = filtered(select(Task.task_id), filters)
    if cursor is not None:
        query = query.where(Task.task_id < cursor)
    if last is not None:
        query = query.where(Task.task_id >= last)
    task_id: Any = labels.FIRST if "label" in filters else Task.task_id
    if few:  # all of them are found first: PostgreSQL would look for them among the newest tasks
        task_id = query.cte().prefix_with("MATERIALIZED").c.task_id
        query = select(task_id)
    # SQLite takes an order inside a union only in a subquery.
    return select(query.order_by(task_id.desc()).limit(limit).subquery().c.task_id)


def _in_order(filters: dict[str, Any]) -> bool:
    """Whether one index gives just these tasks, the newest first."""
    alone = filters.keys() == {"group"} or (filters.keys() == {"label"} and len(filters["label"]) == 1)
    return alone and not callers.bounds()


def last_to_search(filters: dict[str, Any], cursor: int | None) -> int | None:
    """The oldest of the tasks that are looked through. None: an index finds all of them, or there are few enough.

    What looks through them follows in the same transaction.
    """
    if filters.keys() & FOUND or not (filters.keys() - INDEXED or callers.bounds()):
        return None
    if filters.keys() & {"group", "status"}:  # their indexes, or that of all tasks
        read_few_rows()
    if "label" in filters:
        return _last(labels.ids(filters["label"][0]), TaskLabel.task_id, cursor)
    every, statuses = select(Task.task_id), filters.get("status", ())
    found = [every.where(Task.group == filters["group"])] if "group" in filters else []
    if len(statuses) == 1 and not (found and goes_by_group()):
        found.append(every.where(Task.status == statuses[0]))
    lasts = []
    for query in found or [every]:
        if (last := _last(query, Task.task_id, cursor)) is None:
            return None
        lasts.append(last)
    return min(lasts)


def goes_by_group() -> bool:
    """Whether the index of the group is taken although one of the others finds fewer: SQLite does not know how many."""
    return db.engine.dialect.name == "sqlite"


def _last(query: Select[Any], task_id: Any, cursor: int | None) -> int | None:
    query = query.where(task_id < cursor) if cursor else query
    last: int | None = db.session.scalar(query.order_by(task_id.desc()).offset(SEARCHED - 1).limit(1))
    return last


def few_ended(filters: dict[str, Any]) -> bool:
    """Whether few tasks ended in the time that the filters ask for. SQLite would not use its index: it is not asked."""
    ended: dict[str, Any] = {name: filters[name] for name in ("finished_after", "finished_before") if name in filters}
    if not ended or "label" in filters or db.engine.dialect.name == "sqlite":
        return False
    some = filtered(select(Task.finished_at).where(Task.finished_at.is_not(None)), ended)
    return counts.capped(some, limit=FEW + 1) <= FEW


def remove(task_id: int, *, now: datetime) -> None:
    """Deletes a task that no worker has begun."""
    mine = Task.task_id == task_id, *callers.within_reach(Task.operation)
    deleted = db.session.execute(delete(Task).where(*mine, Task.status == Status.PENDING))
    if deleted.rowcount:  # type: ignore[attr-defined]
        audit.record("task.delete", task_id, now=now)
        end_with_commit([task_id])
    db.session.commit()
    if not deleted.rowcount:  # type: ignore[attr-defined]
        raise WrongState(f"Task {task_id} is {get(task_id).status}; only a PENDING task can be deleted.")


def filtered(query: Select[Any], filters: dict[str, Any]) -> Select[Any]:
    """Adds one condition per column, with one value or a list of them; also `created_after`, `created_before`,
    `finished_after` and `finished_before`, `unique_key`, and `label`, a list of `name:value`.

    Only what the caller reaches is found.
    """
    conditions: dict[str, Callable[[Any], ColumnElement[bool]]] = {
        "created_after": lambda value: Task.created_at > value,
        "created_before": lambda value: Task.created_at < value,
        "finished_after": lambda value: Task.finished_at > value,
        "finished_before": lambda value: Task.finished_at < value,
        "unique_key": lambda value: Task.unique_key.in_(_full_keys(value, filters.get("operation"))),
    }
    query = labels.having(query, filters.get("label", ()))
    for name in filters.keys() - {"label"}:
        value = filters[name]
        query = query.where(conditions[name](value) if name in conditions else _is(getattr(Task, name), value))
    return query.where(*callers.within_reach(Task.operation))


def _full_keys(key: str, operation: str | None) -> list[str]:
    known = [operation] if operation else [one.name for one in operations.registered()]
    return [unique.full_key(name, key) for name in known]


def _is(column: Any, value: Any) -> ColumnElement[bool]:
    condition: ColumnElement[bool] = column.in_(value) if isinstance(value, list) else column == value
    return condition
