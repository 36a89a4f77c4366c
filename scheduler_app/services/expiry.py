"""Ends the tasks that have not begun by the time at which they expire. The scheduler calls this.

A claim leaves such a task alone as well, so that none begins while no scheduler runs.
"""

from datetime import datetime

from sqlalchemy import select

from scheduler_app.database import begin_write
from scheduler_app.extensions import db
from scheduler_app.models import EXPIRING, WAITING, Status, Task
from scheduler_app.services.callbacks import CALLS_BACK, ended
from scheduler_app.services.row_locks import update_tasks


def expire(*, now: datetime, limit: int = 1_000) -> int:
    """Sets a batch of waiting tasks to EXPIRED, and returns how many it found.

    Any number of schedulers may do so at once.
    """
    # Not by the statuses that wait: SQLite would take their index, and read all that waits.
    due = EXPIRING, Task.expires_at <= now, Task.status != Status.STARTED
    query = select(Task.task_id).where(*due).order_by(Task.expires_at).limit(limit)
    task_ids = db.session.scalars(query).all()
    db.session.rollback()
    if task_ids:
        begin_write()
        still = Task.task_id.in_(task_ids), Task.status.in_(WAITING), Task.expires_at <= now
        statement = update_tasks(*still).values(status=Status.EXPIRED, finished_at=now)
        ended(db.session.execute(statement.returning(Task.task_id, CALLS_BACK)), now=now)
        db.session.commit()
    return len(task_ids)
