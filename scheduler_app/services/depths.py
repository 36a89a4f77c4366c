"""How deep the queues are, beside the history: while a queue stands still, no task ends that could tell of its wait."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import case

from scheduler_app.database import insert
from scheduler_app.extensions import db
from scheduler_app.models import Depth
from scheduler_app.services import queues
from scheduler_app.services.spans import KEPT, begin_of

FIGURES = ("waiting", "running", "oldest_seconds")


def sample(*, now: datetime) -> int:
    """Keeps the highest figures of each span. A duty of the scheduler. Raises RedisError."""
    rows = list(_rows(queues.depths(now=now), now))
    if rows:
        statement = insert(Depth).values(rows)
        highest = {name: _higher(statement.excluded[name], getattr(Depth, name)) for name in FIGURES}
        index = ["span", "begins_at", "priority"]
        db.session.execute(statement.on_conflict_do_update(index_elements=index, set_=highest))
    db.session.commit()
    return 0


def _rows(found: list[dict[str, Any]], now: datetime) -> Iterator[dict[str, Any]]:
    """None for a priority that has nothing to do: no row counts as zeros."""
    for queue in found:
        oldest = queue["oldest_waiting_seconds"] or 0.0
        if queue["waiting"] or queue["running"]:
            figures = {"waiting": queue["waiting"], "running": queue["running"], "oldest_seconds": oldest}
            for span in KEPT:
                yield {"span": span, "begins_at": begin_of(now, span), "priority": queue["priority"], **figures}


def _higher(new: Any, old: Any) -> Any:
    return case((new > old, new), else_=old)
