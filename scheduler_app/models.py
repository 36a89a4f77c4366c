"""The tables. The task table is the truth; Redis only has the ids of the tasks that are due now."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Float,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    String,
    Text,
    false,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from scheduler_app.database.columns import ID, Json, UTCDateTime
from scheduler_app.extensions import Base


class Status(StrEnum):
    """The state of a task. It changes only by compare-and-set."""

    PENDING = "PENDING"  # accepted; waits until it is due and a worker is free
    STARTED = "STARTED"  # a worker runs it
    RETRYING = "RETRYING"  # failed, waits for its next attempt
    SUCCESS = "SUCCESS"  # done; the result is in the row
    ERROR = "ERROR"  # failed for good; the failures are kept
    CANCELLED = "CANCELLED"  # ended on request, without success
    EXPIRED = "EXPIRED"  # had not begun by the time at which it is of no use any more


WAITING = (Status.PENDING, Status.RETRYING)
FAILING = text("status IN ('RETRYING', 'ERROR')")
FAILED = text("status = 'ERROR'")
CAUSED = text("cause IS NOT NULL")
HELD = text("unique_key IS NOT NULL")
TYPED = text("error_type IS NOT NULL")
ENDED = text("finished_at IS NOT NULL")
SCHEDULED = text("task_schedule_id IS NOT NULL")
GROUPED = text('"group" IS NOT NULL')
UNFINISHED = text("finished_at IS NULL AND task_schedule_id IS NOT NULL")
UNSENT = text("enqueued_at IS NULL AND status IN ('PENDING', 'RETRYING')")
EXPIRING = text("expires_at IS NOT NULL AND finished_at IS NULL")
FINISHED = (Status.SUCCESS, Status.ERROR, Status.CANCELLED, Status.EXPIRED)
OCCURRENCE = ("task_schedule_id", "scheduled_for")


class Task(Base):
    """One piece of work and its outcome."""

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
    retry: Mapped[dict[str, float] | None] = mapped_column(Json)  # the pauses between them; null: as usual
    error_type: Mapped[str | None] = mapped_column(String(200))  # as in `error`, to find it by
    cause: Mapped[str | None] = mapped_column(String(16))  # of `error`, see services/causes.py
    progress: Mapped[dict[str, Any] | None] = mapped_column(Json)  # {percent, message}, as the operation last said
    cancel_requested: Mapped[bool] = mapped_column(Boolean, server_default=false())  # while STARTED: stop, please
    worker_id: Mapped[str | None] = mapped_column(String(36))  # of the latest attempt
    begun: Mapped[bool] = mapped_column(Boolean, server_default=false())  # while STARTED: its attempt counts if lost
    suspected: Mapped[bool] = mapped_column(Boolean, server_default=false())  # of ending its worker: claimed alone
    claims: Mapped[int] = mapped_column(
        Integer, default=0
    )  # how often it was begun, retried or changed by hand; never reset, so that it fences off late replies
    run_at: Mapped[datetime] = mapped_column(UTCDateTime)  # when the next attempt is due
    expires_at: Mapped[datetime | None] = mapped_column(UTCDateTime)  # no attempt begins from then on; null: never
    enqueued_at: Mapped[datetime | None] = mapped_column(UTCDateTime)  # when the relay saw its message in Redis
    unknown_since: Mapped[datetime | None] = mapped_column(UTCDateTime)  # no worker has known its operation
    task_schedule_id: Mapped[int | None] = mapped_column(
        ID, ForeignKey("task_schedule.task_schedule_id", ondelete="SET NULL")
    )
    scheduled_for: Mapped[datetime | None] = mapped_column(UTCDateTime)  # the schedule's time for which it was created
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    created_by: Mapped[str | None] = mapped_column(String(64))  # name of the key; of its schedule's, if one created it
    unique: Mapped[dict[str, Any] | None] = mapped_column(Json)  # {key, until}, see services/unique.py
    unique_key: Mapped[str | None] = mapped_column(String(265))  # operation and key, while it keeps others out
    labels: Mapped[dict[str, str] | None] = mapped_column(Json)  # by which it is found, see TaskLabel
    group: Mapped[str | None] = mapped_column(String(64))  # whose turn it is, see broker/lanes.lua; null: of none
    trace: Mapped[dict[str, str] | None] = mapped_column(Json)  # in which it was posted, see tracing/contexts.py
    callback: Mapped[dict[str, Any] | None] = mapped_column(Json)  # {url, on, sign_with?}, see services/callbacks.py
    started_at: Mapped[datetime | None] = mapped_column(UTCDateTime)  # of the latest attempt
    finished_at: Mapped[datetime | None] = mapped_column(UTCDateTime)

    __table_args__ = (
        CheckConstraint("priority BETWEEN 0 AND 9", name="priority"),
        CheckConstraint(f"status IN ({', '.join(repr(s.value) for s in Status)})", name="status"),
        # Each change of a task writes into all indexes that hold it: one that few tasks need holds only those.
        Index("ix_task_status", "status", "task_id"),
        Index("uq_task_occurrence", *OCCURRENCE, unique=True, sqlite_where=SCHEDULED, postgresql_where=SCHEDULED),
        Index("ix_task_unfinished", "task_schedule_id", sqlite_where=UNFINISHED, postgresql_where=UNFINISHED),
        Index("ix_task_failing", "status", "priority", sqlite_where=FAILING, postgresql_where=FAILING),
        Index("ix_task_finished_at", "finished_at", sqlite_where=ENDED, postgresql_where=ENDED),
        Index("ix_task_failed", "status", "finished_at", sqlite_where=FAILED, postgresql_where=FAILED),
        Index("ix_task_cause", "cause", "status", "task_id", sqlite_where=CAUSED, postgresql_where=CAUSED),
        Index("ix_task_error_type", "error_type", "status", "task_id", sqlite_where=TYPED, postgresql_where=TYPED),
        Index("ix_task_unsent", "priority", "run_at", sqlite_where=UNSENT, postgresql_where=UNSENT),
        Index("uq_task_unique_key", "unique_key", unique=True, sqlite_where=HELD, postgresql_where=HELD),
        Index("ix_task_group", "group", "task_id", sqlite_where=GROUPED, postgresql_where=GROUPED),
        Index("ix_task_expiring", "expires_at", sqlite_where=EXPIRING, postgresql_where=EXPIRING),
        {
            "sqlite_autoincrement": True,  # a deleted task's id must not come again: a message may still name it
            "postgresql_with": {"fillfactor": 70},  # the next versions of a task fit on its page, and less is logged
        },
    )


class TaskLabel(Base):
    """Finds the tasks of a label. A task's labels never change."""

    __tablename__ = "task_label"

    task_id: Mapped[int] = mapped_column(
        ID, ForeignKey("task.task_id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    value: Mapped[str] = mapped_column(String(100))

    __table_args__ = (Index("ix_task_label_value", "name", "value", "task_id"),)


class Failure(Base):
    """An attempt that failed."""

    __tablename__ = "task_failure"

    task_id: Mapped[int] = mapped_column(ID, ForeignKey("task.task_id", ondelete="CASCADE"), primary_key=True)
    claim: Mapped[int] = mapped_column(Integer, primary_key=True)  # Task.claims at the time
    attempt: Mapped[int] = mapped_column(SmallInteger)
    type: Mapped[str] = mapped_column(String(200))
    message: Mapped[str] = mapped_column(Text)
    traceback: Mapped[str | None] = mapped_column(Text)
    started_at: Mapped[datetime | None] = mapped_column(UTCDateTime)  # null: not known of older failures
    failed_at: Mapped[datetime] = mapped_column(UTCDateTime)


class TaskLog(Base):
    """Some lines that an attempt has logged."""

    __tablename__ = "task_log"

    task_id: Mapped[int] = mapped_column(ID, ForeignKey("task.task_id", ondelete="CASCADE"), primary_key=True)
    claim: Mapped[int] = mapped_column(Integer, primary_key=True)  # Task.claims at the time
    chunk: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)  # numbers them, from 1
    attempt: Mapped[int] = mapped_column(SmallInteger)
    first_line: Mapped[int] = mapped_column(Integer)  # the number of the first of its lines
    lines: Mapped[int] = mapped_column(Integer)  # how many
    text: Mapped[str] = mapped_column(Text)
    written_at: Mapped[datetime] = mapped_column(UTCDateTime)

    __table_args__ = (Index("ix_task_log_written_at", "written_at"),)


ALL = ("", -1)  # operation and priority in the rows of History that stand for all


class History(Base):
    """How many tasks came in or ended in one span of time, by operation, priority and status."""

    __tablename__ = "history"

    span: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)  # its length in seconds
    begins_at: Mapped[datetime] = mapped_column(UTCDateTime, primary_key=True)
    operation: Mapped[str] = mapped_column(String(64), primary_key=True)
    priority: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    status: Mapped[str] = mapped_column(String(9), primary_key=True)  # the final one; CREATED for those that came in
    tasks: Mapped[int] = mapped_column(Integer)  # how many
    waiting: Mapped[dict[str, int]] = mapped_column(Json)  # how many waited so long, by number of the bucket
    running: Mapped[dict[str, int]] = mapped_column(Json)  # how many ran so long, by number of the bucket


class HistoryTotal(Base):
    """How many tasks have come in or ended since counting began, by operation, priority and status."""

    __tablename__ = "history_total"

    operation: Mapped[str] = mapped_column(String(64), primary_key=True)  # "other" for those beyond the first hundred
    priority: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    status: Mapped[str] = mapped_column(String(9), primary_key=True)  # the final one; CREATED for those that came in
    tasks: Mapped[int] = mapped_column(BigInteger)  # how many
    waiting: Mapped[dict[str, int]] = mapped_column(Json)  # how many waited so long, by number of the bucket
    running: Mapped[dict[str, int]] = mapped_column(Json)  # how many ran so long, by number of the bucket


class HistoryMark(Base):
    """How far the history has counted. There is one row."""

    __tablename__ = "history_mark"

    mark_id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    finished_to: Mapped[datetime] = mapped_column(UTCDateTime)  # all tasks that ended before are counted
    task_id: Mapped[int] = mapped_column(ID)  # the last task that is counted as created


class Alert(Base):
    """What was told elsewhere of one kind of what needs attention. There is a row for the heartbeat as well."""

    __tablename__ = "alert"

    kind: Mapped[str] = mapped_column(String(32), primary_key=True)
    told: Mapped[dict[str, Any]] = mapped_column(Json)  # what needs attention, as the latest message has it, by key
    told_at: Mapped[datetime] = mapped_column(UTCDateTime)  # when that message was made
    message_id: Mapped[str | None] = mapped_column(String(40))  # the same at each try
    message: Mapped[dict[str, Any] | None] = mapped_column(Json)  # null: it was taken
    tries: Mapped[int] = mapped_column(Integer)
    next_try_at: Mapped[datetime | None] = mapped_column(UTCDateTime)  # null: none is needed


class Depth(Base):
    """The most that waited and ran at one priority in one span of time, as seen every few seconds."""

    __tablename__ = "history_depth"

    span: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)  # its length in seconds
    begins_at: Mapped[datetime] = mapped_column(UTCDateTime, primary_key=True)
    priority: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    waiting: Mapped[int] = mapped_column(Integer)
    running: Mapped[int] = mapped_column(Integer)
    oldest_seconds: Mapped[float] = mapped_column(Float)  # for which the first of them had been due


class Overlap(StrEnum):
    """What a schedule does at its time when a task of it has not finished."""

    ALLOW = "allow"  # creates the next task anyway
    SKIP = "skip"  # leaves the time out
    CANCEL_PREVIOUS = "cancel_previous"  # cancels what has not finished, and creates the next one
    MAX = "max"  # creates the next one while fewer than overlap_max have not finished


class CatchUp(StrEnum):
    """What a schedule does about missed times, when no scheduler ran or all were late."""

    LATEST = "latest"  # one task, for the newest
    ALL = "all"  # a task for each
    NONE = "none"  # nothing


class LeftOut(StrEnum):
    """Why a time got no task."""

    SUPERSEDED = "superseded"  # missed, as was a newer time; catch_up is latest
    TOO_LATE = "too_late"  # missed by more than catch_up_window, or at all when catch_up is none
    OVERLAP = "overlap"  # a task of the schedule had not finished
    PAUSED = "paused"  # the schedule was paused
    CHANGED = "changed"  # missed, and then the rule was changed; a changed rule counts from then on


class TaskSchedule(Base):
    """A rule that creates tasks at its times."""

    __tablename__ = "task_schedule"

    task_schedule_id: Mapped[int] = mapped_column(ID, primary_key=True)
    name: Mapped[str | None] = mapped_column(String(200))  # no two have the same
    owner: Mapped[str | None] = mapped_column(String(64))  # whose file names it, see services/schedule_files.py
    operation: Mapped[str] = mapped_column(String(64))
    params: Mapped[dict[str, Any]] = mapped_column(Json)
    priority: Mapped[int] = mapped_column(SmallInteger)
    max_retries: Mapped[int] = mapped_column(SmallInteger)
    retry: Mapped[dict[str, float] | None] = mapped_column(Json)  # as Task's
    labels: Mapped[dict[str, str] | None] = mapped_column(Json)  # of its tasks
    group: Mapped[str | None] = mapped_column(String(64))  # of its tasks
    callback: Mapped[dict[str, Any] | None] = mapped_column(Json)  # of its tasks
    expires_in: Mapped[int | None] = mapped_column(Integer)  # seconds from when a task is due until it expires
    every_x_days: Mapped[int | None] = mapped_column(Integer)
    every_x_hours: Mapped[int | None] = mapped_column(Integer)
    every_x_minutes: Mapped[int | None] = mapped_column(Integer)
    cron: Mapped[str | None] = mapped_column(String(200))
    rrule: Mapped[str | None] = mapped_column(String(500))
    timezone: Mapped[str] = mapped_column(String(64), server_default="UTC")  # in which cron and rrule are read
    start_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    end_at: Mapped[datetime | None] = mapped_column(UTCDateTime)  # the last moment at which it may fire
    anchor_at: Mapped[datetime] = mapped_column(UTCDateTime)  # the time from which the rule is counted
    schedule_x_times: Mapped[int | None] = mapped_column(Integer)  # how many tasks at most; null: no limit
    times_scheduled: Mapped[int] = mapped_column(Integer, default=0)
    overlap: Mapped[str] = mapped_column(String(15), server_default=Overlap.ALLOW)
    overlap_max: Mapped[int | None] = mapped_column(Integer)  # with Overlap.MAX
    jitter: Mapped[int] = mapped_column(Integer, server_default="0")  # seconds by which its tasks may be due later
    catch_up: Mapped[str] = mapped_column(String(6), server_default=CatchUp.LATEST)
    catch_up_window: Mapped[int] = mapped_column(Integer, server_default="86400")  # seconds
    pause_on_failure: Mapped[bool] = mapped_column(Boolean, server_default=false())  # when a task ends in ERROR
    paused: Mapped[bool] = mapped_column(Boolean, server_default=false())
    pause_note: Mapped[str | None] = mapped_column(String(500))
    paused_run_at: Mapped[datetime | None] = mapped_column(UTCDateTime)  # next_run_at, as the pause found it
    missed: Mapped[int] = mapped_column(Integer, server_default="0")  # times left out because they were late
    skipped: Mapped[int] = mapped_column(Integer, server_default="0")  # times left out because of overlap
    left_out_rows: Mapped[int] = mapped_column(Integer, server_default="0")  # how many LeftOutTimes it has written
    next_run_at: Mapped[datetime | None] = mapped_column(UTCDateTime)  # null: never again, or paused
    last_run_at: Mapped[datetime | None] = mapped_column(UTCDateTime)  # the latest occurrence that became a task
    checked_scheduling_at: Mapped[datetime | None] = mapped_column(UTCDateTime)  # when the scheduler last acted on it
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    created_by: Mapped[str | None] = mapped_column(String(64))  # name of the key

    __table_args__ = (
        CheckConstraint("priority BETWEEN 0 AND 9", name="priority"),
        Index("ix_task_schedule_next_run_at", "next_run_at"),
        Index("uq_task_schedule_name", "name", unique=True),
        {"sqlite_autoincrement": True},
    )


class LeftOutTime(Base):
    """A time of a schedule that got no task, or several in a row that got none for the same reason.

    A schedule writes its rows into a ring, so that it never has more than the ring's slots.
    """

    __tablename__ = "left_out_time"

    task_schedule_id: Mapped[int] = mapped_column(
        ID, ForeignKey("task_schedule.task_schedule_id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    slot: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    scheduled_for: Mapped[datetime] = mapped_column(UTCDateTime)  # the first of them
    last_for: Mapped[datetime] = mapped_column(UTCDateTime)  # the last of them
    times: Mapped[int] = mapped_column(Integer)  # how many
    reason: Mapped[str] = mapped_column(String(10))
    recorded_at: Mapped[datetime] = mapped_column(UTCDateTime)


class Worker(Base):
    """A living worker process. Its row is deleted when the worker stops, or when its heartbeat has stopped."""

    __tablename__ = "worker"

    worker_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int] = mapped_column(Integer)
    threads: Mapped[int] = mapped_column(Integer)
    queues: Mapped[list[str]] = mapped_column(Json)  # that it pulls from
    operations: Mapped[list[str] | None] = mapped_column(Json)  # that it knows; None: it does not say
    secrets: Mapped[list[str] | None] = mapped_column(Json)  # names of those that it knows
    started_at: Mapped[datetime] = mapped_column(UTCDateTime)
    seen_at: Mapped[datetime] = mapped_column(UTCDateTime)  # its latest heartbeat, by the database's clock
    clock_offset: Mapped[float | None] = mapped_column(Float)  # seconds that its own clock is ahead of the database's


class PausedPriority(Base):
    """A priority of which no task begins until it is resumed."""

    __tablename__ = "paused_priority"

    priority: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    note: Mapped[str | None] = mapped_column(String(500))  # why, for people
    paused_at: Mapped[datetime] = mapped_column(UTCDateTime)
    paused_by: Mapped[str | None] = mapped_column(String(64))  # name of the key


class IdempotencyKey(Base):
    """The answer to a request with an Idempotency-Key, so that a repeated request gets the same answer."""

    __tablename__ = "idempotency_key"

    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))  # of method, path and body
    answer: Mapped[dict[str, Any]] = mapped_column(Json)  # {body, status, headers}, compressed
    created_at: Mapped[datetime] = mapped_column(UTCDateTime, index=True)


class Scheduler(Base):
    """A scheduler process, as it was at its last scan."""

    __tablename__ = "scheduler"

    host: Mapped[str] = mapped_column(String(255), primary_key=True)
    pid: Mapped[int] = mapped_column(Integer, primary_key=True)
    scanned_at: Mapped[datetime] = mapped_column(UTCDateTime)
    scan_seconds: Mapped[float] = mapped_column(Float)  # how long the latest scan took
    lag_seconds: Mapped[float | None] = mapped_column(Float)  # the greatest delay between a due time and its task
    clock_offset: Mapped[float | None] = mapped_column(Float)  # as Worker's
