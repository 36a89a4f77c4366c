"""Old tasks and keys are deleted. Time is passed in."""

from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask
from sqlalchemy import func, select, update

from scheduler_app.access_models import AuditEntry
from scheduler_app.extensions import db
from scheduler_app.models import Failure, IdempotencyKey, Status, Task
from scheduler_app.services import attempts, retention, tasks
from tests.support.claims import claim

pytestmark = pytest.mark.usefixtures("context")

NOW = datetime(2040, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def create(count: int, *, status: Status, finished_at: datetime | None) -> None:
    request = {"operation": "calculate", "params": {}, "priority": 5, "max_retries": 0}
    ids = [row.task_id for row in tasks.create([request] * count, now=NOW - 100 * DAY)]
    db.session.execute(update(Task).where(Task.task_id.in_(ids)).values(status=status, finished_at=finished_at))
    db.session.commit()


def left() -> int:
    return db.session.scalar(select(func.count()).select_from(Task)) or 0


def test_what_was_finished_long_ago_goes_and_the_rest_stays(app: Flask) -> None:
    create(3, status=Status.SUCCESS, finished_at=NOW - 31 * DAY)
    create(2, status=Status.ERROR, finished_at=NOW - 31 * DAY)
    create(1, status=Status.CANCELLED, finished_at=NOW - 29 * DAY)
    create(1, status=Status.PENDING, finished_at=None)
    create(1, status=Status.STARTED, finished_at=None)
    assert retention.prune(now=NOW) == 5
    assert left() == 3


def test_it_deletes_a_batch_at_a_time(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 4)
    create(10, status=Status.SUCCESS, finished_at=NOW - 31 * DAY)
    assert [retention.prune(now=NOW) for _ in range(4)] == [4, 4, 2, 0]


def test_the_failures_of_a_task_go_with_it(app: Flask) -> None:
    create(1, status=Status.PENDING, finished_at=None)
    [task_id] = db.session.scalars(select(Task.task_id))
    db.session.rollback()
    attempt = claim(task_id, 0, worker_id="w", now=NOW - 31 * DAY)
    assert attempt
    attempts.fail(attempt, RuntimeError("no"), now=NOW - 31 * DAY)
    assert db.session.scalars(select(Failure)).all()
    assert retention.prune(now=NOW) == 1
    assert db.session.scalars(select(Failure)).all() == []


def test_the_audit_log_goes_after_a_year(app: Flask) -> None:
    for days in (364, 366):
        db.session.add(AuditEntry(at=NOW - days * DAY, caller="local", action=f"after.{days}", count=1))
    db.session.commit()
    assert retention.prune(now=NOW) == 1
    assert list(db.session.scalars(select(AuditEntry.action))) == ["after.364"]


def test_keys_go_after_a_day(app: Flask) -> None:
    for hours in (23, 25):
        created_at = NOW - timedelta(hours=hours)
        db.session.add(IdempotencyKey(key=str(hours), fingerprint="", answer={}, created_at=created_at))
    db.session.commit()
    assert retention.prune(now=NOW) == 1
    assert list(db.session.scalars(select(IdempotencyKey.key))) == ["23"]
