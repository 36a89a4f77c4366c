"""Who did that: each change from outside is written down in the transaction of what it tells.

What the scheduler and the workers do by themselves is not in the audit log: the tasks tell it.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select

from scheduler_app.extensions import db
from scheduler_app.models import AuditEntry
from scheduler_app.services import callers


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


def find(*, limit: int, cursor: int | None = None) -> tuple[Sequence[AuditEntry], int | None]:
    """A page of entries, newest first, and the cursor of the next page if there is one."""
    query = select(AuditEntry).order_by(AuditEntry.audit_id.desc()).limit(limit + 1)
    if cursor is not None:
        query = query.where(AuditEntry.audit_id < cursor)
    entries = db.session.scalars(query).all()
    return entries[:limit], entries[limit - 1].audit_id if len(entries) > limit else None
