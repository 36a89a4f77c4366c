"""Does it keep up? What fails? What is late?"""

from contextlib import suppress
from datetime import datetime
from typing import Any

from flask import redirect, request, url_for
from redis import RedisError
from sqlalchemy import func, select
from werkzeug.wrappers import Response

from scheduler_app import operations
from scheduler_app.access import needs
from scheduler_app.access_models import Scope
from scheduler_app.config import PRIORITIES
from scheduler_app.dashboard import charts
from scheduler_app.dashboard.frame import blp, has_page, page, path
from scheduler_app.database import clock
from scheduler_app.extensions import db
from scheduler_app.models import Status, Task, TaskSchedule
from scheduler_app.services import (
    attention,
    callers,
    health,
    pauses,
    queues,
    schedule_lists,
    statistics,
    tasks,
    workers,
)
from scheduler_app.services.shared import shared
from scheduler_app.services.statistics import Period

FIRST = "4+7"
TIMES = {Period.HOUR: "minute", Period.DAY: "minute", Period.MONTH: "day"}  # how the times of a chart are written


@blp.get("/", strict_slashes=True)  # its cookies are sent only below the slash
@needs(Scope.READ)
def overview() -> Response:
    now = clock()
    if shared.get("is empty", _is_empty):
        return page("empty.html", here="overview", **shared.get("start", lambda: _start(now)))
    asked = request.args.get("period", "")
    period = Period(asked) if asked in list(Period) else Period.HOUR
    figures = shared.get(("overview", period), lambda: _figures(period, now))
    failing = [one for one in figures["failing"] if not callers.wrong_reach(one["operation"])]
    schedules = shared.get(("next schedules", callers.bounds()), lambda: _next_schedules(now))
    found = figures | {"failing": failing[:5], "schedules": schedules}
    return page("overview.html", here="overview", **found, **attention.look(now=now), leads=_leads)


@blp.post("/first-task")
@needs(Scope.WRITE)
def run_first_task() -> Response:
    operation, params = operations.resolve(FIRST, {})
    fields = {"operation": operation.name, "params": params, "priority": 0, "max_retries": operation.max_retries}
    tasks.submit([fields], now=clock())
    return redirect(path(), 303)


def _is_empty() -> bool:
    """Whether there is nothing to show yet: no task but the first one."""
    return db.session.scalar(select(func.max(Task.task_id))) in (None, 1)


def _start(now: datetime) -> dict[str, Any]:
    first = db.session.get(Task, 1)
    shown = ("task_id", "status", "operation", "params", "result", "started_at", "finished_at")
    return {
        "checks": health.checks(),
        "workers": [{"host": one.host, "pid": one.pid, "threads": one.threads} for one in workers.living(now=now)],
        "first": first and {name: getattr(first, name) for name in shown},
        "database_kind": {"postgresql": "PostgreSQL", "sqlite": "SQLite"}[db.engine.dialect.name],
    }


def _figures(period: Period, now: datetime) -> dict[str, Any]:
    series = statistics.series(period, now=now)
    shares = statistics.by_priority(period, now=now)
    return {
        "period": period,
        "periods": list(Period),
        "flow": charts.throughput(series, form=TIMES[period]),
        "waited": charts.pair(series, "waiting"),
        "ran": charts.pair(series, "running"),
        "totals": statistics.totals(period, now=now),
        "threads": sum(one.threads for one in workers.living(now=now)),
        "priorities": [share | depth for share, depth in zip(shares, _depths(now), strict=True)],
        "failing": statistics.top_failing(period, now=now, limit=50),
    }


def _depths(now: datetime) -> list[dict[str, Any]]:
    """While Redis is away nobody knows what waits: then there is only what the database knows."""
    paused, running = pauses.find(), queues.count(Status.STARTED)
    found = [{"waiting": None, "oldest_waiting_seconds": None, "running": running.get(one, 0)} for one in PRIORITIES]
    with suppress(RedisError):
        found = queues.depths(now=now)
    return [depth | {"paused": priority in paused} for priority, depth in zip(PRIORITIES, found, strict=True)]


def _leads(target: dict[str, Any] | None) -> str:
    """The page where to look at it."""
    if target is None:
        return ""
    names = {"failures": "failures", "priority": "priorities", "worker": "workers", "workers": "workers"}
    if target["kind"] == "schedule" and has_page("schedule"):
        return url_for("dashboard.schedule", task_schedule_id=target["id"])
    name = names.get(target["kind"], "schedules")
    return url_for(f"dashboard.{name}") if has_page(name) else ""


def _next_schedules(now: datetime) -> list[dict[str, Any]]:
    found, _ = schedule_lists.find(now=now, limit=5)
    return [_schedule(one, now) for one in found if one.next_run_at]


def _schedule(one: TaskSchedule, now: datetime) -> dict[str, Any]:
    late = schedule_lists.late_by(one, now)
    name = one.name or f"{one.operation} {one.task_schedule_id}"
    return {
        "task_schedule_id": one.task_schedule_id,
        "name": name,
        "next_run_at": one.next_run_at,
        "late": late is not None,
    }
