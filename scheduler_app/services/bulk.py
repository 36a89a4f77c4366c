"""Many tasks at once: cancels, retries and deletes the oldest that meet the conditions.

When no index fits the conditions, one call looks through at most SEARCHED tasks of each status. So it may reach few
tasks, or none, and not be at the end yet. `next_cursor` then says where the next call goes on.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, delete, select, union_all

from scheduler_app.database import begin_write
from scheduler_app.extensions import db
from scheduler_app.models import FINISHED, Task, TaskLabel
from scheduler_app.services import audit, backlog, callers, control, dispatch, history, labels, listing, tasks, unique

SEARCHED = 100_000  # tasks of one status: that takes some tenths of a second
COUNTED = 10_000  # tasks beyond those that a call reaches
SHOWN = 10  # tasks of a dry run
SENT = (Task.task_id, Task.claims, Task.operation, Task.priority, Task.group)  # what a message is made of


@dataclass(frozen=True)
class Chosen:
    """Which tasks a call is for."""

    conditions: dict[str, Any]  # as `tasks.filtered` takes them; none for all
    limit: int  # tasks that are reached at most
    cursor: int | None = None  # only tasks with a higher id
    dry_run: bool = False  # none is reached


@dataclass(frozen=True)
class Found:
    task_ids: list[int]  # the oldest, at most `limit`, and at most COUNTED more
    limit: int
    searched_to: int | None  # the last task that was looked at; None when all were

    def answer(self, reached: Collection[int]) -> dict[str, Any]:
        """The ids that were reached, how many more match, and where the next call goes on."""
        rest = self.task_ids[self.limit :]
        following = self.task_ids[self.limit - 1] if rest else self.searched_to
        return {"task_ids": sorted(reached), "remaining": len(rest), "next_cursor": following}

    def preview(self) -> dict[str, Any]:
        """What a dry run tells: how many match, and the first of them."""
        counted = self.task_ids[:COUNTED]
        following = counted[-1] if len(counted) < len(self.task_ids) else self.searched_to
        first = listing.read(Task.task_id.in_(counted[:SHOWN]), order=Task.__table__.c.task_id)
        return {"task_ids": [], "remaining": len(counted), "next_cursor": following, "tasks": first}


def cancel(chosen: Chosen, *, now: datetime) -> dict[str, Any]:
    """Cancels waiting and running tasks. Leaves out those that have been asked to stop before."""
    found = _find(chosen, control.CANCELLABLE, ~Task.cancel_requested)
    if chosen.dry_run:
        return found.preview()
    begin_write()
    reached = control.cancel_all(found.task_ids[: chosen.limit], now=now)
    _record("tasks.cancel", chosen, len(reached), now)
    db.session.commit()
    return found.answer(reached)


def retry(chosen: Chosen, *, now: datetime) -> dict[str, Any]:
    """Sets tasks in ERROR, CANCELLED or EXPIRED back to PENDING."""
    found = _find(chosen, control.RETRIABLE)
    if chosen.dry_run:
        return found.preview()
    backlog.check_room()
    again = unique.raced(lambda: _start_again(found.task_ids[: chosen.limit], chosen, now))
    dispatch.publish(again)
    return found.answer([task.task_id for task in again])


def _start_again(task_ids: Sequence[int], chosen: Chosen, now: datetime) -> Sequence[Row[Any]]:
    begin_write()
    again = control.start_again(task_ids, *SENT, now=now)
    _record("tasks.retry", chosen, len(again), now)
    db.session.commit()
    return again


def remove(chosen: Chosen, *, now: datetime) -> dict[str, Any]:
    """Deletes finished tasks."""
    found = _find(chosen, FINISHED)
    if chosen.dry_run:
        return found.preview()
    begin_write()
    reached = _delete(found.task_ids[: chosen.limit], now)
    _record("tasks.delete", chosen, len(reached), now)
    db.session.commit()
    return found.answer(reached)


def _delete(task_ids: Sequence[int], now: datetime) -> Sequence[int]:
    mine = Task.task_id.in_(task_ids), *callers.within_reach(Task.operation)
    ended = history.leave(*mine, Task.status.in_(FINISHED), now=now)
    statement = delete(Task).where(Task.task_id.in_(ended)).execution_options(synchronize_session=False)
    return db.session.scalars(statement.returning(Task.task_id)).all()


def _record(action: str, chosen: Chosen, count: int, now: datetime) -> None:
    if count:
        audit.record(action, count=count, details=chosen.conditions, now=now)


def _find(chosen: Chosen, statuses: Sequence[str], *conditions: ColumnElement[bool]) -> Found:
    named = list(dict.fromkeys(chosen.conditions.get("status", statuses)))
    last = _last_to_search(chosen, named)
    # One query per status, because the index then gives the oldest tasks without a sort.
    parts = [_oldest(chosen, status, last, *conditions) for status in named]
    query = select(union_all(*parts).subquery().c.task_id).order_by("task_id").limit(chosen.limit + COUNTED)
    return Found(list(db.session.scalars(query)), chosen.limit, last)


def _oldest(chosen: Chosen, status: str, last: int | None, *conditions: ColumnElement[bool]) -> Select[Any]:
    query = tasks.filtered(select(Task.task_id), chosen.conditions | {"status": status}).where(*conditions)
    query = query.where(Task.task_id > (chosen.cursor or 0))
    if last is not None:
        query = query.where(Task.task_id <= last)
    # SQLite takes an order inside a union only in a subquery.
    order: Any = labels.FIRST if "label" in chosen.conditions else Task.task_id
    return select(query.order_by(order).limit(chosen.limit + COUNTED).subquery().c.task_id)


def _last_to_search(chosen: Chosen, statuses: Sequence[str]) -> int | None:
    names = chosen.conditions.keys()
    if names & {"task_id", *tasks.FOUND} or not (names - tasks.INDEXED or callers.bounds()):
        return None
    if given := chosen.conditions.get("label"):
        return _end(labels.ids(given[0]), TaskLabel.task_id, chosen.cursor or 0)
    group = chosen.conditions.get("group")
    of_group = _end_of_search(Task.group == group, chosen.cursor or 0) if group else 0
    if of_group is None or (group and tasks.goes_by_group()):
        return of_group
    ends = [_end_of_search(Task.status == status, chosen.cursor or 0) for status in statuses]
    of_status = min((end for end in ends if end is not None), default=None)
    return None if of_status is None else max(of_group, of_status)


def _end_of_search(condition: ColumnElement[bool], cursor: int) -> int | None:
    return _end(select(Task.task_id).where(condition), Task.task_id, cursor)


def _end(query: Select[Any], task_id: Any, cursor: int) -> int | None:
    last: int | None = db.session.scalar(query.where(task_id > cursor).order_by(task_id).offset(SEARCHED - 1).limit(1))
    return last
