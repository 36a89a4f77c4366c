"""The table of stacks that somebody asks for."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Integer, SmallInteger
from sqlalchemy.orm import Mapped, mapped_column

from scheduler_app.database.columns import ID, Json, UTCDateTime
from scheduler_app.extensions import Base


class TaskStack(Base):
    """Where an attempt stood when somebody last asked. `asked` and `answered` only count, so no clock is compared."""

    __tablename__ = "task_stack"

    task_id: Mapped[int] = mapped_column(
        ID, ForeignKey("task.task_id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    asked: Mapped[int] = mapped_column(Integer)  # how often
    answered: Mapped[int] = mapped_column(Integer)  # the latest asking that the stack answers; 0: none yet
    asked_at: Mapped[datetime] = mapped_column(UTCDateTime)
    claim: Mapped[int | None] = mapped_column(Integer)  # Task.claims of the attempt
    attempt: Mapped[int | None] = mapped_column(SmallInteger)
    stack: Mapped[dict[str, Any] | None] = mapped_column(Json)  # {frames, left_out}, see services/stacks.py
    taken_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
