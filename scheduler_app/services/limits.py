"""Limits of operations: how many tasks of one run at once, and how many begin in a time.

The code gives limits, and people change them at runtime, which the table keeps. Redis has a copy of those that count,
and a slot for each attempt that runs, by which every pull decides.

When Redis has lost its slots, or the limits have changed, the slots are counted anew from the attempts that the table
says are STARTED. What was pulled before that count and is not claimed yet would be left out. So each count has an
epoch: the table's epoch is raised first, and such a claim is then refused.
"""

import hashlib
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, NamedTuple

from flask import Flask
from redis import RedisError
from sqlalchemy import case, delete, select
from sqlalchemy.exc import SQLAlchemyError

from scheduler_app import database, operations
from scheduler_app.broker import message_id, parse
from scheduler_app.broker.limits import Running, State
from scheduler_app.database import DIRECT
from scheduler_app.errors import LimitNotFound, WrongState
from scheduler_app.extensions import broker, db
from scheduler_app.limit_models import LimitChange, LimitEpoch
from scheduler_app.limits import Limit, Rate
from scheduler_app.models import WAITING, Status, Task
from scheduler_app.services import audit, callers, counts

log = logging.getLogger(__name__)

MOST = 200  # limits set at runtime
ROUNDS = 100  # of a sweep, a thousand lanes each
BUSIEST = 5  # groups that are named
PATIENCE = 2.0  # seconds that a worker waits for the table


class Known(NamedTuple):
    """A limit, where it is from, and what it takes the place of."""

    operation: str
    limit: Limit | None  # None: what the code gives was lifted at runtime
    code: Limit | None
    change: LimitChange | None


def find() -> list[dict[str, Any]]:
    """All limits of the operations that the caller reaches, with what they hold up."""
    used, paced = _in_redis()
    return [_described(name, one, used, paced) for name, one in _within_reach()]


def by_operation() -> dict[str, list[dict[str, Any]]]:
    """The numbers of those that count, for the operations that the caller reaches."""
    found: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for name, one in _within_reach():
        if one.limit:
            found[one.operation].append({"name": name, "per": one.limit.per} | _numbers(one.limit))
    return found


def figures(*, most: int) -> list[dict[str, Any]]:
    """What is used of the limits with a max_running, whoever asks. Raises RedisError."""
    used: Counter[str] = Counter()
    for (name, _), count in broker.limits.used().items():
        used[name] += count
    known = [(name, one.limit) for name, one in sorted(_known().items()) if one.limit and one.limit.max_running]
    return [
        {"limit": name, "per": limit.per, "max_running": limit.max_running, "used": used[name]}
        for name, limit in known[:most]
    ]


def get(name: str) -> dict[str, Any]:
    """Raises LimitNotFound."""
    found = next((limit for limit in find() if limit["name"] == name), None)
    if found is None:
        raise LimitNotFound(name)
    return found


def put(name: str, values: dict[str, Any], *, now: datetime) -> dict[str, Any]:
    """Makes or changes a limit. It counts in every worker at once. Of one in the code, only its numbers change.

    Raises LimitNotFound for a new one without its operation, WrongState, and Forbidden for an operation that the caller
    does not reach.
    """
    database.begin_write()
    known = _known()
    callers.check_reach([known[name].operation] if name in known else [])  # nobody takes what is another's
    row = _row(name, values, known)
    callers.check_reach([row["operation"]])
    new = sum(one.change is not None for one in known.values())
    if new >= MOST and (name not in known or known[name].change is None):
        raise WrongState("Too many limits.", {"name": [f"At most {MOST} limits are set at runtime."]})
    row |= {"changed_at": now, "changed_by": callers.name()}
    statement = database.insert(LimitChange).values(row)
    changed = {key: value for key, value in row.items() if key != "name"}
    db.session.execute(statement.on_conflict_do_update(index_elements=["name"], set_=changed))
    audit.record("limit.change", name, details=values, now=now)
    _commit_change(now)
    return get(name)


def reset(name: str, *, now: datetime) -> None:
    """Back to what the code says; a limit that is not in the code is gone. Raises LimitNotFound."""
    database.begin_write()
    known = _known().get(name)
    if known is None or callers.wrong_reach(known.operation):
        raise LimitNotFound(name)
    db.session.execute(delete(LimitChange).where(LimitChange.name == name))
    audit.record("limit.reset", name, now=now)
    _commit_change(now)


def renew(*, now: datetime) -> int:
    """Sees to it that Redis goes by the limits that count, and that no slot is lost. A duty of the scheduler.

    Raises RedisError.
    """
    _copy()
    for _ in range(ROUNDS):
        woken, ids = broker.limits.sweep()
        broker.limits.free(_ended(ids))
        if not woken:
            break
    return 0


def ask(app: Flask) -> None:
    """Like `renew`, for a thread without a session, as far as the table tells."""
    try:
        with database.deadline(PATIENCE), app.app_context():
            _copy()
    except SQLAlchemyError as error:
        log.warning("no task with a limit begins until the table tells which limits count: %s", error)


def _row(name: str, values: dict[str, Any], known: dict[str, Known]) -> dict[str, Any]:
    there = known.get(name)
    of = {"operation": there.operation, "per": (there.limit or there.code or Limit(1)).per} if there else {}
    row = {"name": name, "per": "operation", "max_running": None, "rate": None} | of | values
    if "operation" not in row:
        raise LimitNotFound(name, {"operation": [f"Needed: there is no limit {name!r} yet."]})
    for field in ("operation", "per"):
        if there and there.code and row[field] != of[field]:
            raise WrongState("It is given in the code.", {field: [f"Is {of[field]!r} in the code, and stays so."]})
    if not (row["max_running"] or row["rate"] or (there and there.code)):
        raise WrongState("It would limit nothing.", {"max_running": ["Give max_running, rate, or both."]})
    return row


def _commit_change(now: datetime) -> None:
    db.session.execute(_higher(0).execution_options(synchronize_session=False))
    db.session.commit()
    try:
        renew(now=now)
    except RedisError as error:
        log.warning("Redis does not know yet that a limit was changed: %s", error)


def _copy() -> None:
    with db.engines[DIRECT].connect() as connection:
        epoch: int = connection.scalar(select(LimitEpoch.epoch)) or 0
    limits, state = _counting(), broker.limits.state()  # read after the epoch, so they are no older than it
    if state == State(epoch, _digest(limits)):
        return
    if state is None or state.epoch >= epoch:  # or else the table has been raised already
        epoch = _raised(state.epoch if state else 0)
        limits = _counting()
    if broker.limits.open(State(epoch, _digest(limits)), limits, _running(limits)) and limits:
        log.info("limits count from epoch %d", epoch)


def _digest(limits: dict[str, list[dict[str, Any]]]) -> str:
    return hashlib.sha256(json.dumps(limits, sort_keys=True).encode()).hexdigest()[:16]


def _raised(above: int) -> int:
    with db.engines[DIRECT].begin() as connection:
        epoch: int = connection.execute(_higher(above).returning(LimitEpoch.epoch)).scalar_one()
        return epoch


def _higher(above: int) -> Any:
    first = database.insert(LimitEpoch).values(epoch_id=1, epoch=above + 1)
    higher = case((LimitEpoch.epoch > above, LimitEpoch.epoch), else_=above) + 1
    return first.on_conflict_do_update(index_elements=["epoch_id"], set_={"epoch": higher})


def _known() -> dict[str, Known]:
    """By name: those in the code, and those of the table in their places or beside them."""
    code = {limit.name: (operation.name, limit) for operation in operations.registered() for limit in operation.limits}
    known = {name: Known(operation, limit, limit, None) for name, (operation, limit) in code.items()}
    for row in db.session.scalars(select(LimitChange)):
        given = known.get(row.name)
        rate = Rate(**row.rate) if row.rate else None
        lifted = row.max_running is None and rate is None
        limit = None if lifted else Limit(row.max_running, rate, row.per, row.name)
        known[row.name] = Known(row.operation, limit, given.code if given else None, row)
    return known


def _counting() -> dict[str, list[dict[str, Any]]]:
    """As the scripts want them, by operation."""
    counting: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for _, one in sorted(_known().items()):
        if one.limit:
            counting[one.operation].append(one.limit.for_scripts())
    db.session.rollback()
    return counting


def _running(limits: Collection[str]) -> list[Running]:
    if not limits:
        return []
    query = select(Task.task_id, Task.claims, Task.operation, Task.group)
    query = query.where(Task.status == Status.STARTED, Task.operation.in_(limits))
    with db.engines[DIRECT].connect() as connection:
        rows = connection.execute(query).all()
    return [(message_id(task_id, claims - 1), operation, group or "") for task_id, claims, operation, group in rows]


def _ended(ids: Sequence[str]) -> list[str]:
    """Those whose attempts do not run. The table's claims are then higher, so none of them can begin any more."""
    if not ids:
        return []
    messages = [parse("", id_) for id_ in ids]
    query = select(Task.task_id, Task.claims, Task.status).where(Task.task_id.in_([one.task_id for one in messages]))
    rows = {task_id: (claims, status) for task_id, claims, status in db.session.execute(query)}
    db.session.rollback()
    return [
        one.message_id
        for one in messages
        if one.task_id not in rows
        or (rows[one.task_id][0] > one.claims and rows[one.task_id] != (one.claims + 1, Status.STARTED))
    ]


def _within_reach() -> list[tuple[str, Known]]:
    return [(name, one) for name, one in sorted(_known().items()) if not callers.wrong_reach(one.operation)]


def _in_redis() -> tuple[defaultdict[str, Counter[str]] | None, Collection[str]]:
    """What is used, by limit and group, and the operations held by a rate; None and none while Redis is away."""
    used: defaultdict[str, Counter[str]] = defaultdict(Counter)
    try:
        for (name, group), count in broker.limits.used().items():
            used[name][group] = count
        return used, broker.limits.paced()
    except RedisError:
        return None, ()


def _described(
    name: str, one: Known, all_used: defaultdict[str, Counter[str]] | None, paced: Collection[str]
) -> dict[str, Any]:
    waiting = select(Task.task_id).where(Task.status.in_(WAITING), Task.operation == one.operation)
    shown = one.limit or one.code or Limit(1)
    used = Counter[str]() if all_used is None else all_used[name]
    return {
        "name": name,
        "operation": one.operation,
        "per": one.change.per if one.change else shown.per,
        **_numbers(one.limit),
        "used": None if all_used is None else used.total(),
        "waiting": counts.capped(waiting),
        "paced": bool(one.limit and one.limit.rate) and one.operation in paced,  # tasks wait for the rate
        "groups": [{"group": group or None, "used": count} for group, count in used.most_common(BUSIEST)],
        "code": one.code and _numbers(one.code),
        "changed_at": one.change and one.change.changed_at,
        "changed_by": one.change and one.change.changed_by,
    }


def _numbers(limit: Limit | None) -> dict[str, Any]:
    if limit is None:
        return {"max_running": None, "rate": None}
    return {"max_running": limit.max_running, "rate": limit.rate and asdict(limit.rate)}
