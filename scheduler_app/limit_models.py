"""The tables of limits: what was set at runtime, and the epoch that fences their slots."""

from datetime import datetime
from typing import Any

from sqlalchemy import Integer, SmallInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from scheduler_app.database.columns import Json, UTCDateTime
from scheduler_app.extensions import Base


class LimitChange(Base):
    """A limit that was set at runtime. It takes the place of the one in the code of the same name, if there is one."""

    __tablename__ = "limit_change"

    name: Mapped[str] = mapped_column(String(80), primary_key=True)
    operation: Mapped[str] = mapped_column(String(64))
    per: Mapped[str] = mapped_column(String(9))  # operation or group
    max_running: Mapped[int | None] = mapped_column(Integer)
    rate: Mapped[dict[str, Any] | None] = mapped_column(Json)  # {count, seconds, burst}
    changed_at: Mapped[datetime] = mapped_column(UTCDateTime)
    changed_by: Mapped[str | None] = mapped_column(String(64))  # name of the key


class LimitEpoch(Base):
    """Raised whenever slots of limits are counted anew. What was pulled before is not claimed. There is one row."""

    __tablename__ = "limit_epoch"

    epoch_id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    epoch: Mapped[int] = mapped_column(Integer)
