"""How much the clocks of the machines differ. Nothing depends on it, but an operator should correct a wrong clock."""

import os
import socket
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import select

from scheduler_app import database
from scheduler_app.extensions import db
from scheduler_app.models import Scheduler, Worker
from scheduler_app.services.schedulers import SILENT_AFTER


class ProcessClock(NamedTuple):
    kind: str  # "web", "worker" or "scheduler"
    host: str
    pid: int
    offset: float | None  # seconds ahead of the database's clock; None from an older release


def find(*, now: datetime) -> list[ProcessClock]:
    """The clocks of this web process, and of the living workers and schedulers."""
    own = ProcessClock("web", socket.gethostname()[:255], os.getpid(), database.clock_offset())
    workers = select(Worker.host, Worker.pid, Worker.clock_offset)
    schedulers = select(Scheduler.host, Scheduler.pid, Scheduler.clock_offset)
    scanning = schedulers.where(Scheduler.scanned_at >= now - SILENT_AFTER)
    return [
        own,
        *(ProcessClock("worker", *row) for row in db.session.execute(workers)),
        *(ProcessClock("scheduler", *row) for row in db.session.execute(scanning)),
    ]
