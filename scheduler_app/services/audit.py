"""Who did that: each change from outside is written down in the transaction of what it tells.

What the scheduler and the workers do by themselves is not in the audit log: the tasks tell it.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import exists, func, insert, select

from scheduler_app.access_models import AuditEntry
from scheduler_app.extensions import db
from scheduler_app.services import callers

SEARCHED = 20_000  # entries that one page looks through when it is filtered: that takes a few milliseconds


def record(
    action: str,
    target: str | int | None = None,
    *,
    count: int = 1,
    details: dict[str, Any] | None = None,
    now: datetime,
) -> None:
    """Part of the transaction that makes the change. When nobody outside asked for the change, nothing is written."""
    caller = callers.current.get()
    if caller is None:
        return
    db.session.execute(
        insert(AuditEntry).values(
            at=now,
            caller=caller.name,
            address=caller.address,
            action=action,
            target=None if target is None else str(target),
            count=count,
            details=json.loads(json.dumps(details, default=datetime.isoformat)),
        )
    )


def find(*, limit: int, cursor: int | None = None, **equal: str) -> tuple[Sequence[AuditEntry], int | None]:
    """A page of entries, newest first, and the cursor of the next page if there is one.

    equal: the values of columns, such as `caller`. With them it looks through at most SEARCHED entries, so a page may
    be short, or even empty, and still have a next one.
    """
    query = select(AuditEntry).filter_by(**equal).order_by(AuditEntry.audit_id.desc()).limit(limit + 1)
    if cursor is not None:
        query = query.where(AuditEntry.audit_id < cursor)
    last = _last_to_search(cursor) if equal else None
    if last is not None:
        query = query.where(AuditEntry.audit_id >= last)
    entries = db.session.scalars(query).all()
    return entries[:limit], entries[limit - 1].audit_id if len(entries) > limit else last


def cursor_at(time: datetime) -> int:
    """Of the page that begins with what was before."""
    query = select(AuditEntry.audit_id).where(AuditEntry.at < time)
    return (db.session.scalar(query.order_by(AuditEntry.at.desc(), AuditEntry.audit_id.desc()).limit(1)) or 0) + 1


def time_of(cursor: int) -> datetime | None:
    """When the newest entry before it was written."""
    query = select(AuditEntry.at).where(AuditEntry.audit_id < cursor)
    return db.session.scalar(query.order_by(AuditEntry.audit_id.desc()).limit(1))


def _last_to_search(cursor: int | None) -> int | None:
    """None when all that is left can be looked through."""
    end = cursor if cursor is not None else (db.session.scalar(select(func.max(AuditEntry.audit_id))) or 0) + 1
    last = end - SEARCHED
    older = select(exists().where(AuditEntry.audit_id < last))
    return last if db.session.scalar(older) else None
