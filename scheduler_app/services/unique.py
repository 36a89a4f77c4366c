"""Tasks of which there is only one at a time, by a key within their operation.

The task that holds a key has it in `unique_key`, on which there is a unique index: whatever two web processes do at the
same moment, the database lets one of them create. Whether a holder's time is over can be seen in its row, so workers
have nothing to do about it: who meets a holder whose time is over takes the key away from it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from types import SimpleNamespace
from typing import Any, ClassVar, TypeVar

from sqlalchemy import Row, bindparam, select, update
from sqlalchemy.exc import IntegrityError

from scheduler_app.database import begin_write
from scheduler_app.errors import Unavailable, WrongState
from scheduler_app.extensions import db
from scheduler_app.models import Status, Task
from scheduler_app.services import audit
from scheduler_app.services.row_locks import update_tasks

T = TypeVar("T")

TRIES = 10  # at a key that others hold and give up meanwhile
KEPT, REPLACED, REFUSED = "kept", "replaced", "refused"  # how a request met a task that was there
NOT_SENT = (KEPT, REFUSED)
COLUMNS = Task.__table__.c

Insert = Callable[[Sequence[dict[str, Any]]], Sequence[SimpleNamespace]]
Holder = Row[Any] | SimpleNamespace


class Until(StrEnum):
    """Until when a task holds its key; or for so many seconds after it was posted."""

    BEGUN = "begun"  # a worker claims it; if that one gives it back, there may be two that wait
    FINISHED = "finished"  # it ends, however that is


class Then(StrEnum):
    """What becomes of a request that meets a holder."""

    KEEP = "keep"  # the task that is there is the answer
    REPLACE = "replace"  # the task that is there gets the new parameters and times, as long as it has not begun


@dataclass(frozen=True)
class Refusal:
    """In place of a task: its key is held by a task that can be replaced no more."""

    message: str
    met: ClassVar[str] = REFUSED


def create(requests: Sequence[dict[str, Any]], *, now: datetime, insert: Insert) -> list[Any]:
    """A task for each request, in their order: a new one or, by its attribute `met`, one that was there; or a Refusal.

    `insert` creates tasks, and leaves out those whose key is taken. The caller commits, then publishes.
    """
    begin_write()
    plain = [place for place, request in enumerate(requests) if not request.get("unique")]
    found: dict[int, Any] = dict(zip(plain, insert([requests[place] for place in plain]), strict=True)) if plain else {}
    by_key: dict[str, list[int]] = defaultdict(list)
    for place, request in enumerate(requests):
        if request.get("unique"):
            by_key[_full_key(request)].append(place)
    todo = sorted(by_key)  # in one order, so that no two transactions wait for each other
    for _ in range(TRIES):
        holders = _holders(todo, [requests[place] for key in todo for place in by_key[key]], now)
        first = [_with_columns(requests[by_key[key][0]]) for key in todo if key not in holders]
        new = {task.unique_key: task for task in insert(first)} if first else {}
        for key, task in new.items():
            found[by_key[key][0]] = task
        for key, holder in (holders | new).items():
            places = by_key[key][key in new :]
            met = _meet_all(holder, [requests[place] for place in places], now)
            found |= zip(places, met, strict=True)
        todo = [key for key in todo if key not in holders and key not in new]
        if not todo:
            return [found[place] for place in range(len(requests))]
    raise Unavailable("A key of `unique` is given up and taken again and again; try again.")


def check(tasks: Iterable[Any]) -> None:
    """Raises WrongState if there is a Refusal among them."""
    for task in tasks:
        if isinstance(task, Refusal):
            db.session.rollback()
            raise WrongState(task.message)


def take_again(task_ids: Sequence[int], *, now: datetime) -> set[int]:
    """Gives these tasks, which run again, their keys back. Returns those whose key another task holds.

    The caller has locked them, and commits. If a request takes a key at this moment, IntegrityError is raised.
    """
    columns = Task.task_id, Task.operation, Task.unique, Task.unique_key
    chosen = select(*columns).where(Task.task_id.in_(task_ids), Task.unique.is_not(None)).order_by(Task.task_id)
    tasks = db.session.execute(chosen).all()
    keeping = {task.unique_key for task in tasks}
    wanted: dict[str, list[int]] = defaultdict(list)
    for task in tasks:
        if task.unique_key is None and task.unique["until"] in list(Until):
            wanted[full_key(task.operation, task.unique["key"])].append(task.task_id)
    if not wanted:
        return set()
    held = keeping | _holders(sorted(wanted.keys() - keeping), [], now).keys()
    taken = [{"id": ids[0], "key": key} for key, ids in wanted.items() if key not in held]
    if taken:
        table = update(Task.__table__)  # type: ignore[arg-type]
        statement = table.where(COLUMNS.task_id == bindparam("id")).values(unique_key=bindparam("key"))
        db.session.connection().execute(statement, taken)
    return {task_id for key, ids in wanted.items() for task_id in ids[key not in held :]}


def raced(again: Callable[[], T]) -> T:
    """Calls it once more when a request has taken a key that `take_again` was about to give back."""
    try:
        return again()
    except IntegrityError:
        db.session.rollback()
        return again()


def holder_of(task: Task) -> int | None:
    """The other task that holds the task's key."""
    if task.unique is None:
        return None
    key = full_key(task.operation, task.unique["key"])
    return db.session.scalar(select(Task.task_id).where(Task.unique_key == key, Task.task_id != task.task_id))


def full_key(operation: str, key: str) -> str:
    """As a task has it in `unique_key`."""
    return f"{operation} {key}"


def is_over(task: Holder, now: datetime) -> bool:
    """Whether the time is over for which it holds its key."""
    until = task.unique["until"]
    if until == Until.BEGUN:
        return bool(task.attempts > 0 or task.finished_at is not None)
    if until == Until.FINISHED:
        return task.finished_at is not None
    return bool(task.created_at + timedelta(seconds=until) <= now)


def _holders(keys: Sequence[str], requests: Iterable[dict[str, Any]], now: datetime) -> dict[str, Holder]:
    """Who holds these keys. Those whose time is over lose theirs. Those that may be replaced are locked."""
    query = select(*COLUMNS).where(Task.unique_key.in_(keys)).order_by(Task.task_id)
    rows = db.session.execute(query).all()
    replaced = {_full_key(request) for request in requests if request["unique"]["then"] == Then.REPLACE}
    touched = [row.task_id for row in rows if is_over(row, now) or row.unique_key in replaced]
    if touched:
        # Both are read again: they may have gone on until they were locked.
        locked = db.session.execute(query.where(Task.task_id.in_(touched)).with_for_update()).all()
        over = [row.task_id for row in locked if is_over(row, now)]
        db.session.execute(update_tasks(Task.task_id.in_(over)).values(unique_key=None))
        rows = [row for row in rows if row.task_id not in touched]
        rows += [row for row in locked if row.task_id not in over]
    return {row.unique_key: row for row in rows}


def _meet_all(holder: Holder, requests: Iterable[dict[str, Any]], now: datetime) -> list[Any]:
    found: list[Any] = []
    for request in requests:
        met = _meet(holder, request, now)
        holder = holder if isinstance(met, Refusal) else met
        found.append(met)
    return found


def _meet(holder: Holder, request: dict[str, Any], now: datetime) -> SimpleNamespace | Refusal:
    if request["unique"]["then"] == Then.KEEP:
        return _met(vars(holder) if isinstance(holder, SimpleNamespace) else holder._mapping, KEPT)
    if holder.status != Status.PENDING or holder.attempts:
        key = request["unique"]["key"]
        return Refusal(f"Task {holder.task_id} has the key {key!r}, and has begun: it cannot be replaced.")
    run_at = max(request.get("run_at") or now, now)
    expires_in = request.get("expires_in")
    values = {
        "params": request["params"],
        "run_at": run_at,
        "expires_at": run_at + timedelta(seconds=expires_in) if expires_in else request.get("expires_at"),
        "claims": Task.claims + 1,  # it gets a new message: the old one may be in Redis, and comes too early
        "enqueued_at": None,
    }
    statement = update_tasks(Task.task_id == holder.task_id).values(values)
    row = db.session.execute(statement.returning(*COLUMNS)).one()
    audit.record("task.replace", holder.task_id, now=now)
    return _met(row._mapping, REPLACED)


def _met(columns: Any, how: str) -> SimpleNamespace:
    return SimpleNamespace(**{**columns, "met": how})


def _with_columns(request: dict[str, Any]) -> dict[str, Any]:
    kept = {name: request["unique"][name] for name in ("key", "until")}
    return request | {"unique": kept, "unique_key": _full_key(request)}


def _full_key(request: dict[str, Any]) -> str:
    return full_key(request["operation"], request["unique"]["key"])
