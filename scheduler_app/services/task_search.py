"""Tasks as a person looks for them: by conditions and by words, with a count for each status.

Nothing here reads a big table to its end. What was not looked through is said.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Text, cast, func, or_, select

from scheduler_app.database import is_longer
from scheduler_app.extensions import db
from scheduler_app.models import Status, Task
from scheduler_app.services import counts, listing, tasks
from scheduler_app.services.listing import Listed
from scheduler_app.services.tasks import INDEXED, SEARCHED

READ = 10_000  # tasks whose params and errors one search for words reads
LONGEST = 4_096  # characters of params and errors that it reads; longer ones are left out


@dataclass(frozen=True)
class Page:
    tasks: list[Listed]
    following: int | None  # the cursor of the next page
    by_status: dict[str, int]  # how many meet the conditions, whatever their status
    looked_through: int | None  # only so many tasks; None: all
    back_to: datetime | None  # when the last of these was created


def find(conditions: dict[str, Any], words: Sequence[str] = (), *, limit: int, cursor: int | None = None) -> Page:
    """The newest tasks that meet the conditions, as `tasks.filtered` takes them, and have all words in them."""
    if words:
        return _with_words(conditions, words, limit, cursor)
    found, following = tasks.find(conditions, limit=limit, cursor=cursor)
    ended = following is not None and len(found) < limit
    by_status, partly = count(conditions)
    back_to = _created_at(following) if ended and following else None
    return Page(found, following, by_status, SEARCHED if ended or partly else None, back_to)


def count(conditions: dict[str, Any]) -> tuple[dict[str, int], bool]:
    """By status, up to counts.MOST each; and whether only the latest SEARCHED tasks were looked through."""
    others = {name: value for name, value in conditions.items() if name != "status"}
    last = None if tasks.few_ended(others) else tasks.last_to_search(others, None)
    if last is None and not others.keys() - INDEXED:
        return {one: counts.capped(_filtered(others | {"status": one}, Task.task_id)) for one in Status}, False
    query = _filtered(others, Task.status)
    query = query.limit(counts.MOST) if last is None else query.where(Task.task_id >= last)
    inner = query.subquery()
    rows = db.session.execute(select(inner.c.status, func.count()).group_by(inner.c.status))
    return {row.status: row[1] for row in rows}, last is not None


def _with_words(conditions: dict[str, Any], words: Sequence[str], limit: int, cursor: int | None) -> Page:
    """Reads the latest READ tasks before the cursor once: for the page, and for the counts."""
    newest = select(Task.task_id).order_by(Task.task_id.desc())
    newest = newest.where(Task.task_id < cursor) if cursor else newest
    last = db.session.scalar(newest.offset(READ - 1).limit(1))
    others = {name: value for name, value in conditions.items() if name != "status"}
    query = _filtered(others, Task.task_id, Task.status).where(*map(_has, words), Task.task_id >= (last or 0))
    query = query.where(Task.task_id < cursor) if cursor else query
    rows = db.session.execute(query.order_by(Task.task_id.desc()).limit(READ)).all()
    wanted = conditions.get("status")
    chosen = [row.task_id for row in rows if not wanted or row.status in wanted]
    shown = listing.read(Task.task_id.in_(chosen[:limit]), order=Task.task_id.desc())
    following = chosen[limit - 1] if len(chosen) > limit else last
    by_status = Counter(row.status for row in rows)
    return Page(shown, following, by_status, READ if last else None, _created_at(last) if last else None)


def _has(word: str) -> ColumnElement[bool]:
    """Whether params or error have it. Both are kept as ASCII, as JSON writes other letters."""
    ascii_word = json.dumps(word)[1:-1]
    columns = Task.__table__.c.params, Task.__table__.c.error
    either = (
        ~is_longer(column, LONGEST) & cast(column, Text).icontains(ascii_word, autoescape=True) for column in columns
    )
    return or_(*either)


def _filtered(conditions: dict[str, Any], *columns: Any) -> Any:
    return tasks.filtered(select(*columns), conditions)


def _created_at(task_id: int) -> datetime | None:
    return db.session.scalar(select(Task.created_at).where(Task.task_id == task_id))
