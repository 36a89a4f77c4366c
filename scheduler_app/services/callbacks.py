"""Callbacks: when a task ends that has one, a delivery is made in the same transaction. It is a task itself.

So there is never an end without its delivery, nor a delivery without the end. Every way to an end calls `ended`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from types import SimpleNamespace
from typing import Any, cast

from flask import current_app
from sqlalchemy import Row, Select, Text, case, event, func, null, select, type_coerce
from sqlalchemy import cast as cast_to
from sqlalchemy.orm import Session
from urllib3.util import parse_url

from scheduler_app.callback import CALLBACK, RETRY
from scheduler_app.database.columns import Json
from scheduler_app.extensions import db
from scheduler_app.models import Task
from scheduler_app.services import callers, dispatch, labels, tasks
from scheduler_app.services.ends import end_with_commit
from scheduler_app.tracing.contexts import passed_on

LONGEST_RESULT = 65_536  # characters of JSON: a longer one is left out
URGENT = 0  # the priority of deliveries: they must not wait behind the tasks of which they tell
LABEL = "task"  # a delivery has it, with the id of the task of which it tells
AT_ONCE = 50  # deliveries that one statement makes: what they say is in memory meanwhile
MADE = "deliveries"  # in Session.info: the deliveries that are made with the transaction

CALLS_BACK = Task.callback.label("calls_back")  # by itself: IS NOT NULL in RETURNING is wrong on SQLite 3.40


def ended(those: Iterable[Any], *, now: datetime) -> None:
    """Those tasks have ended in this transaction, each given by its `task_id` and whether it `calls_back`.

    Makes the deliveries. Who waits for the tasks is told, and the deliveries are published, after the commit. A task
    that is to be tried again may be among them; nothing is delivered of it.
    """
    those = list(those)
    end_with_commit(one.task_id for one in those)
    calling = [one.task_id for one in those if one.calls_back]
    for first in range(0, len(calling), AT_ONCE):
        if requests := list(_requests(calling[first : first + AT_ONCE])):
            # Of each only what its message needs: not what it says.
            made = [_sendable(one) for one in tasks.create(requests, now=now)]
            db.session().info.setdefault(MADE, []).extend(made)


def latest(task: Task) -> Row[Any] | None:
    """The id and status of the newest delivery of the task, if there is one that the caller reaches."""
    if task.callback is None:
        return None
    columns = Task.__table__.c
    query = labels.having(select(columns.task_id, columns.status), [f"{LABEL}:{task.task_id}"])
    query = query.where(Task.operation == CALLBACK, *callers.within_reach(Task.operation))
    return db.session.execute(query.order_by(labels.FIRST.desc()).limit(1)).one_or_none()


def told_of(task: Task) -> int | None:
    """The id of the task of whose end a delivery tells; None when the task is no delivery."""
    return cast(int, task.params["task"]["task_id"]) if task.operation == CALLBACK else None


def _requests(task_ids: Sequence[int]) -> Iterator[dict[str, Any]]:
    columns = Task.__table__.c
    long = func.length(cast_to(columns.result, Text)) > LONGEST_RESULT
    result = type_coerce(case((long, null()), else_=columns.result), Json).label("result")
    others = [column for name, column in columns.items() if name != "result"]
    query: Select[Any] = select(*others, result, long.label("is_long")).where(Task.task_id.in_(task_ids))
    for task in db.session.execute(query.where(Task.finished_at.is_not(None)).order_by(Task.task_id)):
        if task.status in task.callback["on"]:
            yield _request(task)


def _request(task: Row[Any]) -> dict[str, Any]:
    show = cast(Callable[[Any], dict[str, Any]], current_app.extensions["backbeat.shown"])
    target = {name: task.callback[name] for name in ("url", "sign_with") if task.callback.get(name)}
    said = show(task) | {"left_out": ["result"] if task.is_long else []}
    return {
        "operation": CALLBACK,
        "params": target | {"task": said},
        "priority": URGENT,
        "max_retries": RETRY.max_retries,
        "retry": RETRY.pauses,
        "labels": {LABEL: str(task.task_id)},
        "group": _host(task.callback["url"]),
        "created_by": task.created_by,
        "trace": passed_on(task.trace) or None,
    }


def _host(url: str) -> str:
    """As a group may be called: the end of a long name, and without signs that no name of a host has."""
    host = parse_url(url).host or ""
    return "".join(sign for sign in host if sign not in '"\\')[-64:]


def _sendable(delivery: SimpleNamespace) -> SimpleNamespace:
    names = ("task_id", "claims", "operation", "priority", "group")
    return SimpleNamespace(**{name: getattr(delivery, name) for name in names})


def _publish(session: Session) -> None:
    if made := session.info.pop(MADE, None):
        dispatch.publish(made)


def _forget(session: Session) -> None:
    session.info.pop(MADE, None)


event.listen(db.session, "after_commit", _publish)
event.listen(db.session, "after_rollback", _forget)
