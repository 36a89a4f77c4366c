"""How many bytes PostgreSQL writes into its log (WAL) for one task, from the post to SUCCESS.

After a checkpoint the first change of a page logs the whole page. Here the checkpoint comes before the first task, and
the pages of tasks are all new: so the figure is without whole pages, as for most tasks between two checkpoints.
"""

from collections.abc import Iterable

from sqlalchemy import text

from benchmarks import ours
from benchmarks.accept import BATCH
from benchmarks.harness import PATIENCE, Options, Servers, application, paused
from benchmarks.table import Row
from scheduler_app import database
from scheduler_app.extensions import db
from scheduler_app.services import tasks
from tests.support.processes import eventually
from tests.support.system import System

GOAL = 700  # bytes
REQUEST = {"operation": "calculate", "params": {"expression": "4+7"}, "priority": 5, "max_retries": 5}


def run(servers: Servers, options: Options) -> Iterable[Row]:
    count = options.size(20_000, 2_000)
    with servers.fresh() as environ, application(environ), System(environ, web=0, workers=2, schedulers=0) as system:
        servers.postgres.sql("CHECKPOINT")
        began = written()
        with paused(system.workers):
            for _ in range(count // BATCH):
                tasks.submit([REQUEST] * BATCH, now=database.clock())
            accepted = written()
        eventually(lambda: ours.finished() == count, within=PATIENCE)
        done = written()
    each = (done - began) / count
    parts = f"{(accepted - began) / count:.0f} to accept it, {(done - accepted) / count:.0f} to do it"
    yield Row("WAL of a task", f"{each:.0f} bytes", "of these", parts, goal=f"≤ {GOAL} bytes", met=each <= GOAL)


def written() -> int:
    """Bytes of WAL since the cluster was made."""
    found = db.session.scalar(text("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')"))
    db.session.rollback()
    assert found is not None
    return int(found)
