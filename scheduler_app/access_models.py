"""The tables of those who may call, and of what they did."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Integer,
    String,
)
from sqlalchemy.orm import Mapped, mapped_column

from scheduler_app.database.columns import ID, Json, UTCDateTime
from scheduler_app.extensions import Base


class Scope(StrEnum):
    """What a key may do. Each scope contains the one before."""

    READ = "read"  # tasks with their results, schedules, queues, workers
    WRITE = "write"  # post, change, cancel and retry tasks; everything about schedules
    ADMIN = "admin"  # keys, the audit log, deleting in bulk

    def contains(self, other: "Scope") -> bool:
        order = list(Scope)
        return order.index(other) <= order.index(self)


class ApiKey(Base):
    """A key to the API. Of its secret only the hash is kept."""

    __tablename__ = "api_key"

    key_id: Mapped[str] = mapped_column(String(12), primary_key=True)  # the public part, by which it is found
    name: Mapped[str] = mapped_column(String(64), unique=True)
    secret_hash: Mapped[str] = mapped_column(String(64))  # SHA-256, in hexadecimal
    previous_hash: Mapped[str | None] = mapped_column(String(64))  # of the secret before the last rotation,
    previous_until: Mapped[datetime | None] = mapped_column(UTCDateTime)  # which works until then
    scope: Mapped[str] = mapped_column(String(5))
    operations: Mapped[list[str] | None] = mapped_column(Json)  # the only ones that it reaches; null: all
    rate: Mapped[str | None] = mapped_column(String(40))  # requests, as in 100/s; null: no limit
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UTCDateTime)  # to the minute
    revoked_at: Mapped[datetime | None] = mapped_column(UTCDateTime)

    __table_args__ = (CheckConstraint(f"scope IN ({', '.join(repr(s.value) for s in Scope)})", name="scope"),)


class Session(Base):
    """A browser that is signed in to the dashboard. Of its token only the hash is kept."""

    __tablename__ = "session"

    token_hash: Mapped[str] = mapped_column(String(64), primary_key=True)  # SHA-256, in hexadecimal
    key_id: Mapped[str | None] = mapped_column(String(12))  # of the key that opened it; null: BACKBEAT_API_KEY
    secret_hash: Mapped[str] = mapped_column(String(64))  # of the secret that opened it, see services/sessions.py
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    expires_at: Mapped[datetime] = mapped_column(UTCDateTime, index=True)


class AuditEntry(Base):
    """Who changed what. Posting tasks is not here: a task names who created it."""

    __tablename__ = "audit"

    audit_id: Mapped[int] = mapped_column(ID, primary_key=True)
    at: Mapped[datetime] = mapped_column(UTCDateTime, index=True)
    caller: Mapped[str] = mapped_column(String(64))  # the key's name, or as RESERVED in services/callers.py
    action: Mapped[str] = mapped_column(String(40))  # such as task.cancel
    target: Mapped[str | None] = mapped_column(String(100))  # what it was done to: an id, a name; null: many
    count: Mapped[int] = mapped_column(Integer)  # how many it reached
    details: Mapped[dict[str, Any] | None] = mapped_column(Json)  # such as the filters of a bulk call
    address: Mapped[str | None] = mapped_column(String(45))  # from which it came; null: the command line

    __table_args__ = ({"sqlite_autoincrement": True},)
