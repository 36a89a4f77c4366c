"""Deletes tasks that finished long ago. It deletes one batch at a time, so that nobody waits for long."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, delete, select, tuple_

from scheduler_app.access_models import AuditEntry, Session
from scheduler_app.database import begin_write
from scheduler_app.extensions import db, settings
from scheduler_app.models import IdempotencyKey, Task, TaskLog
from scheduler_app.services import history
from scheduler_app.services.idempotency import KEPT_FOR

BATCH = 1_000


def prune(*, now: datetime) -> int:
    """Deletes a batch each of old tasks, logs, keys and audit entries, and of ended sessions; returns how many rows."""
    kept = timedelta(days=settings.retention_days)
    gone = _delete_tasks(Task.finished_at < now - kept, now)
    gone += _delete_batch(IdempotencyKey.key, age=IdempotencyKey.created_at, before=now - KEPT_FOR)
    log_key = TaskLog.task_id, TaskLog.claim, TaskLog.chunk
    gone += _delete_batch(*log_key, age=TaskLog.written_at, before=now - timedelta(days=settings.log_days))
    gone += _delete_batch(AuditEntry.audit_id, age=AuditEntry.at, before=now - timedelta(days=settings.audit_days))
    gone += _delete_batch(Session.token_hash, age=Session.expires_at, before=now)
    return gone


def _delete_tasks(is_old: ColumnElement[bool], now: datetime) -> int:
    batch = db.session.scalars(select(Task.task_id).where(is_old).order_by(Task.finished_at).limit(BATCH)).all()
    db.session.rollback()
    if not batch:
        return 0
    begin_write()
    ended = history.leave(Task.task_id.in_(batch), is_old, now=now, skip_locked=True)
    db.session.execute(delete(Task).where(Task.task_id.in_(ended)).execution_options(synchronize_session=False))
    db.session.commit()
    return len(ended)


def _delete_batch(*key: Any, age: Any, before: datetime) -> int:
    batch = select(*key).where(age < before).order_by(age).limit(BATCH).with_for_update(skip_locked=True)
    statement = delete(key[0].class_).where(tuple_(*key).in_(batch)).execution_options(synchronize_session=False)
    deleted = db.session.execute(statement)
    db.session.commit()
    assert isinstance(deleted, CursorResult)
    return deleted.rowcount
