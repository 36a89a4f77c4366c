"""The tables. The task table is the truth; Redis only holds the ids of what is due now."""

import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    String,
    Text,
    TypeDecorator,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Mapped, mapped_column, relationship
from sqlalchemy.types import TypeEngine

from scheduler_app.extensions import Base

ID = BigInteger().with_variant(Integer, "sqlite")  # SQLite only counts up an INTEGER key


class UTCDateTime(TypeDecorator[datetime]):
    """Aware in Python, UTC in the database. SQLite drops the zone, so it is put back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Json(TypeDecorator[Any]):
    """JSON, and text on SQLite: a column declared JSON there would turn a long integer into a rounded float."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        postgres = dialect.name == "postgresql"
        return dialect.type_descriptor(postgresql.JSON(none_as_null=True) if postgres else Text())

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return value if value is None or dialect.name == "postgresql" else json.dumps(value, allow_nan=False)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return value if value is None or dialect.name == "postgresql" else json.loads(value)


class Status(StrEnum):
    """Where a task is in its life. It changes only by compare-and-set."""

    PENDING = "PENDING"  # accepted; waits for its time and for a worker
    STARTED = "STARTED"  # a worker runs it
    RETRYING = "RETRYING"  # failed, waits for its next attempt
    SUCCESS = "SUCCESS"  # done; the result stands in the row
    ERROR = "ERROR"  # failed for good; the failures are kept
    CANCELLED = "CANCELLED"  # ended on request, without success


WAITING = (Status.PENDING, Status.RETRYING)
UNSENT = text("enqueued_at IS NULL AND status IN ('PENDING', 'RETRYING')")
FINISHED = (Status.SUCCESS, Status.ERROR, Status.CANCELLED)


class Task(Base):
    """One piece of work and what became of it."""

    __tablename__ = "task"

    task_id: Mapped[int] = mapped_column(ID, primary_key=True)
    operation: Mapped[str] = mapped_column(String(64))
    params: Mapped[dict[str, Any]] = mapped_column(Json)
    priority: Mapped[int] = mapped_column(SmallInteger)
    status: Mapped[str] = mapped_column(String(9), default=Status.PENDING)
    result: Mapped[Any | None] = mapped_column(Json)
    error: Mapped[dict[str, str] | None] = mapped_column(Json)  # {type, message} of the last failure
    attempts: Mapped[int] = mapped_column(SmallInteger, default=0)  # begun since it was posted or last retried by hand
    max_retries: Mapped[int] = mapped_column(SmallInteger)  # attempts after the first
    claims: Mapped[int] = mapped_column(
        Integer, default=0
    )  # begun ever; never set back, so that it fences late replies
    run_at: Mapped[datetime] = mapped_column(UTCDateTime)  # when the next attempt is due
    enqueued_at: Mapped[datetime | None] = mapped_column(UTCDateTime)  # when the relay saw its message in Redis
    task_schedule_id: Mapped[int | None] = mapped_column(
        ID, ForeignKey("task_schedule.task_schedule_id", ondelete="SET NULL")
    )
    scheduled_for: Mapped[datetime | None] = mapped_column(
        UTCDateTime
    )  # the occurrence of the schedule that it stands for
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UTCDateTime)  # of the latest attempt
    finished_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    failures: Mapped[list["Failure"]] = relationship(order_by="Failure.claim", viewonly=True)

    __table_args__ = (
        CheckConstraint("priority BETWEEN 0 AND 9", name="priority"),
        CheckConstraint(f"status IN ({', '.join(repr(s.value) for s in Status)})", name="status"),
        Index("ix_task_status", "status", "task_id"),
        Index("uq_task_occurrence", "task_schedule_id", "scheduled_for", unique=True),
        Index("ix_task_unsent", "priority", "run_at", sqlite_where=UNSENT, postgresql_where=UNSENT),
        {"sqlite_autoincrement": True},  # a deleted task's id must not come again: a message may still name it
    )


class Failure(Base):
    """An attempt that failed."""

    __tablename__ = "task_failure"

    task_id: Mapped[int] = mapped_column(ID, ForeignKey("task.task_id", ondelete="CASCADE"), primary_key=True)
    claim: Mapped[int] = mapped_column(Integer, primary_key=True)  # Task.claims at the time
    attempt: Mapped[int] = mapped_column(SmallInteger)
    type: Mapped[str] = mapped_column(String(200))
    message: Mapped[str] = mapped_column(Text)
    traceback: Mapped[str | None] = mapped_column(Text)
    failed_at: Mapped[datetime] = mapped_column(UTCDateTime)


class TaskSchedule(Base):
    """A rule that creates tasks at its times."""

    __tablename__ = "task_schedule"

    task_schedule_id: Mapped[int] = mapped_column(ID, primary_key=True)
    name: Mapped[str | None] = mapped_column(String(200))
    operation: Mapped[str] = mapped_column(String(64))
    params: Mapped[dict[str, Any]] = mapped_column(Json)
    priority: Mapped[int] = mapped_column(SmallInteger)
    max_retries: Mapped[int] = mapped_column(SmallInteger)
    every_x_days: Mapped[int | None] = mapped_column(Integer)
    every_x_hours: Mapped[int | None] = mapped_column(Integer)
    start_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    end_at: Mapped[datetime | None] = mapped_column(UTCDateTime)  # the last moment at which it may fire
    anchor_at: Mapped[datetime] = mapped_column(UTCDateTime)  # what the intervals are counted from
    schedule_x_times: Mapped[int | None] = mapped_column(Integer)  # how many tasks at most; null: no limit
    times_scheduled: Mapped[int] = mapped_column(Integer, default=0)
    next_run_at: Mapped[datetime | None] = mapped_column(UTCDateTime)  # null: never again
    last_run_at: Mapped[datetime | None] = mapped_column(UTCDateTime)  # the latest occurrence that became a task
    checked_scheduling_at: Mapped[datetime | None] = mapped_column(UTCDateTime)  # when the scheduler last acted on it
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)

    __table_args__ = (
        CheckConstraint("priority BETWEEN 0 AND 9", name="priority"),
        Index("ix_task_schedule_next_run_at", "next_run_at"),
        {"sqlite_autoincrement": True},
    )
