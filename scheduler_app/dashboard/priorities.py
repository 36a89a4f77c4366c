"""Who starves?"""

from datetime import datetime
from typing import Any

from flask import Response, request, url_for
from redis import RedisError
from werkzeug.wrappers import Response as BaseResponse

from scheduler_app.access import needs
from scheduler_app.access_models import Scope
from scheduler_app.config import PRIORITIES
from scheduler_app.dashboard.charts import depth
from scheduler_app.dashboard.frame import blp, page, told
from scheduler_app.dashboard.texts import plural, share
from scheduler_app.database import clock
from scheduler_app.errors import Invalid, PriorityNotFound
from scheduler_app.models import Status
from scheduler_app.services import counts, pauses, queues, statistics
from scheduler_app.services.shared import shared
from scheduler_app.services.statistics import Period
from scheduler_app.services.verdict import BEHIND_AFTER, length

LESS = 0.8  # of its share: who gets less than that starves
CHARTS = {"waiting": "Waiting", "oldest_seconds": "Oldest wait", "running": "Running"}
SPARK = 30  # columns of the depth in the table


@blp.get("/priorities")
@needs(Scope.READ)
def priorities() -> Response:
    period, found = _now()
    return page("priorities.html", here="priorities", period=period, periods=list(Period), **found)


@blp.get("/priorities/<priority:priority>")
@needs(Scope.READ)
def priority(priority: int) -> Response:
    period, found = _now()
    if priority not in PRIORITIES:
        raise PriorityNotFound(priority)
    slices = shared.get(("depth", period), lambda: statistics.depth(period, now=clock()))[priority]
    values: dict[str, Any] = {
        "one": found["rows"][priority],
        "away": found["away"],
        "charts": [(title, depth(slices, name)) for name, title in CHARTS.items()],
        "form": "day" if period == Period.MONTH else "minute",
    }
    return page("priority.html", here="priorities", period=period, periods=list(Period), most=pauses.MAX_NOTE, **values)


@blp.post("/priorities/<priority:priority>/pause")
@needs(Scope.ADMIN)
def pause_priority(priority: int) -> BaseResponse:
    note = request.form.get("note", "").strip()
    if len(note) > pauses.MAX_NOTE:
        raise Invalid(f"The note has more than {pauses.MAX_NOTE} characters.", {"form": {"note": ["Too long."]}})
    pauses.pause(priority, note=note or None, now=clock())
    return _told(priority, f"Priority {priority} is paused: no task of it begins. Those that run finish.")


@blp.post("/priorities/<priority:priority>/resume")
@needs(Scope.ADMIN)
def resume_priority(priority: int) -> BaseResponse:
    pauses.resume(priority, now=clock())
    return _told(priority, f"Priority {priority} goes on.")


@blp.get("/priorities/<priority:priority>/purge")
@needs(Scope.ADMIN)
def purge(priority: int) -> Response:
    waiting = pauses.waiting(priority, now=clock())
    return page("purge.html", here="priorities", priority=priority, waiting=waiting, at_once=pauses.PURGED)


@blp.post("/priorities/<priority:priority>/purge")
@needs(Scope.ADMIN)
def purge_priority(priority: int) -> BaseResponse:
    done = pauses.purge(priority, now=clock())
    rest = f" {_capped(done['remaining'])} still wait." if done["remaining"] else " Nothing waits there any more."
    return _told(priority, f"{plural(done['cancelled'], 'task is', 'tasks are')} cancelled.{rest}")


def _told(priority: int, message: str) -> BaseResponse:
    return told(url_for("dashboard.priority", priority=priority), message)


def _now() -> tuple[Period, dict[str, Any]]:
    given = request.args.get("period", "")
    period = Period(given) if given in list(Period) else Period.HOUR
    found, paused = shared.get(("priorities", period), lambda: _found(period, clock())), pauses.find()
    # Never two seconds old: the page that follows a pause shows it.
    rows = [row | queues.pause_of(row["priority"], paused) for row in found["rows"]]
    return period, found | {"rows": rows, "starves": _starves(rows)}


def _found(period: Period, now: datetime) -> dict[str, Any]:
    shares, depths = statistics.by_priority(period, now=now), statistics.depth(period, now=now)
    states, away = _states(now)
    rows = [
        share | state | {"depths": _columns(depths[share["priority"]])}
        for share, state in zip(shares, states, strict=True)
    ]
    return {"rows": rows, "away": away}


def _states(now: datetime) -> tuple[list[dict[str, Any]], bool]:
    """What each priority has now; without Redis only what the database knows."""
    try:
        return queues.find(now=now), False
    except RedisError:
        running, failed, retrying = map(queues.count, (Status.STARTED, Status.ERROR, Status.RETRYING))
        paused = pauses.find()
        unknown = {"waiting": None, "oldest_waiting_seconds": None}
        return [
            unknown
            | {"running": running.get(one, 0), "dead_letters": failed.get(one, 0), "retrying": retrying.get(one, 0)}
            | queues.pause_of(one, paused)
            for one in PRIORITIES
        ], True


def _columns(slices: list[dict[str, Any]]) -> list[int]:
    size = len(slices) // SPARK
    waiting = [one["waiting"] for one in slices[-size * SPARK :]]
    return [max(waiting[place : place + size]) for place in range(0, len(waiting), size)]


def _starves(rows: list[dict[str, Any]]) -> tuple[str, str]:
    """A sentence, and its tone."""
    wants = [row for row in rows if row["waiting"] and not row["paused"]]
    poorest = min(wants, key=lambda row: row["got"] / (row["due"] or 1), default=None)
    if poorest and poorest["got"] < LESS * poorest["due"]:
        got, due = share(poorest["got"]), share(poorest["due"])
        return f"Priority {poorest['priority']} gets {got} of the starts, and {due} were due to it.", "retrying"
    slowest = max(wants, key=lambda row: row["oldest_waiting_seconds"] or 0, default=None)
    if slowest and (slowest["oldest_waiting_seconds"] or 0) >= BEHIND_AFTER:
        oldest = length(slowest["oldest_waiting_seconds"])
        return f"Nobody starves, but at priority {slowest['priority']} the oldest waits for {oldest}.", "retrying"
    return "Nobody starves: each priority gets its share.", "success"


def _capped(count: int) -> str:
    return f"{count:,}+" if count >= counts.MOST else f"{count:,}"
