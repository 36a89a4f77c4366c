"""What made tasks fail. Failures that differ only in numbers, ids and quoted text have one cause."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from sqlalchemy import Row, func, select

from scheduler_app.extensions import db
from scheduler_app.models import FAILED, FAILING, Status, Task
from scheduler_app.services import callers

LATEST = 1_000  # failed tasks that are grouped
SEARCHED = 50_000  # failed tasks that are looked through for a caller who does not reach all operations
COUNTED = 10_000  # retrying tasks
READ = 1_000  # characters of a message that make the cause
SHOWN = 500  # characters of a message that are shown

ANY = "#"  # stands for all that differs from one failure to the next
STATUS = r"(?P<kept>\b(?:answer was|http|status|code|errno)[ :=]{1,2}\d{1,3}\b)"  # such a number says what went wrong
QUOTED = r"""(?<!\w)b?(?:"[^"\n]*"|'[^'\n]*'|`[^`\n]*`|“[^”\n]*”|«[^»\n]*»)(?!\w)"""
UUID = r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"
NUMBERED = r"\b[^\W\d]*\d\w*(?:[.,:/+-]+[^\W\d]*\d\w*)*"  # numbers, times, addresses, and words with digits in them
DIFFERING = re.compile("|".join((STATUS, QUOTED, UUID, NUMBERED)), re.IGNORECASE)
REPEATED = re.compile(rf"{ANY}(?:[\s,;]+{ANY})+")


def fingerprint(operation: str, error: Mapping[str, str]) -> str:
    """16 hexadecimal digits: the same for failures of one cause, on every machine and in every release."""
    parts = operation, error["type"], generalised(error["message"])
    return sha256("\n".join(parts).encode()).hexdigest()[:16]


def generalised(message: str) -> str:
    """The message without what differs from one failure to the next: a list of ids is like one id."""
    text = DIFFERING.sub(lambda found: found["kept"] or ANY, message[:READ])
    return REPEATED.sub(ANY, " ".join(text.split()))


def latest(*, limit: int = LATEST) -> list[dict[str, Any]]:
    """The latest failed tasks that the caller reaches, by cause; the cause of the newest comes first.

    `times` has when each of these tasks failed, newest first. Tasks that failed before causes were kept have the cause
    None, and are grouped by operation.
    """
    groups: defaultdict[tuple[str, str | None], list[Row[Any]]] = defaultdict(list)
    for task in _latest_failed(limit):
        groups[task.operation, task.cause].append(task)
    errors = _errors([group[0].task_id for group in groups.values()])
    return [_described(group, errors.get(group[0].task_id)) for group in groups.values()]


def retrying() -> Counter[str | None]:
    """How many tasks wait for their next attempt, by the cause of their latest failure; counts COUNTED at most."""
    some = select(Task.cause).where(FAILING, Task.status == Status.RETRYING).limit(COUNTED).subquery()
    rows = db.session.execute(select(some.c.cause, func.count()).group_by(some.c.cause))
    return Counter({row.cause: row[1] for row in rows})


def _latest_failed(limit: int) -> list[Row[Any]]:
    columns = Task.task_id, Task.operation, Task.cause, Task.finished_at
    query = select(*columns).where(FAILED).order_by(Task.finished_at.desc())
    if callers.bounds() is not None:
        searched = query.limit(SEARCHED).subquery()
        within_reach = callers.within_reach(searched.c.operation)
        query = select(searched).where(*within_reach).order_by(searched.c.finished_at.desc())
    return list(db.session.execute(query.limit(limit)))


def _errors(task_ids: list[int]) -> dict[int, dict[str, str]]:
    rows = db.session.execute(select(Task.task_id, Task.error).where(Task.task_id.in_(task_ids)))
    return {row.task_id: row.error for row in rows}


def _described(group: list[Row[Any]], error: dict[str, str] | None) -> dict[str, Any]:
    """`group` is newest first. Its error is None if the task was deleted meanwhile."""
    newest = group[0]
    shown = error or {"type": "", "message": ""}
    return {
        "cause": newest.cause,
        "operation": newest.operation,
        "type": shown["type"],
        "message": shown["message"][:SHOWN],
        "count": len(group),
        "first_at": group[-1].finished_at,
        "last_at": newest.finished_at,
        "task_id": newest.task_id,
        "times": [task.finished_at for task in group],
    }
