"""The time before which every change of the past is visible. A count up to there is final."""

from datetime import datetime, timedelta

from sqlalchemy import text

from scheduler_app.database.engines import BUSY_TIMEOUT
from scheduler_app.extensions import db

ON_THE_WAY = timedelta(seconds=2)  # at most, from the time that a transaction writes until it begins
FORGOTTEN = timedelta(minutes=5)  # none of our transactions lives that long; somebody's backup may
OLDEST = text(
    "SELECT min(xact_start) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    " AND backend_type = 'client backend' AND xact_start > :since"
)


def settled(now: datetime) -> datetime:
    """A transaction writes times that were taken shortly before it began, and it becomes visible when it commits.

    So on PostgreSQL this is before the oldest transaction that runs. On SQLite a writer takes its time, then waits for
    the lock.
    """
    if db.engine.dialect.name == "sqlite":
        return now - timedelta(seconds=BUSY_TIMEOUT + 1)
    oldest: datetime | None = db.session.scalar(OLDEST, {"since": now - FORGOTTEN})
    return min(now, oldest or now) - ON_THE_WAY


def not_settled(moment: datetime, now: datetime) -> datetime:
    """The moment, or a later one if that is long over: what an outage kept from being written is counted when it is."""
    return max(moment, now - ON_THE_WAY / 2)
