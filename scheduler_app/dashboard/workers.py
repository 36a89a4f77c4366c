"""Who does what? Who is gone?"""

from datetime import datetime
from typing import Any

from flask import Response

from scheduler_app import database
from scheduler_app.access import needs
from scheduler_app.access_models import Scope
from scheduler_app.config import PRIORITIES
from scheduler_app.dashboard.frame import blp, page
from scheduler_app.dashboard.texts import plural
from scheduler_app.database import clock
from scheduler_app.services import callers, schedulers
from scheduler_app.services import workers as service
from scheduler_app.services.shared import shared

SHOWN = 50  # running tasks of one worker


@blp.get("/workers")
@needs(Scope.READ)
def workers() -> Response:
    found = shared.get(("workers", callers.bounds()), lambda: _found(clock()))
    return page("workers.html", here="workers", **found, most=SHOWN)


def _found(now: datetime) -> dict[str, Any]:
    living, scanning = service.find(), schedulers.find()
    silent = {worker.worker_id for worker in service.silent(now=now)}
    for worker in living:
        worker |= {"silent": worker["worker_id"] in silent, "off": _off(worker["clock_offset"])}
        worker["priorities"] = _priorities(worker["queues"])
    busy, threads = sum(len(one["running"]) for one in living), sum(one["threads"] for one in living)
    return {
        "living": living,
        "schedulers": [_scheduler(one, now) for one in scanning],
        "busy": busy,
        "threads": threads,
        "headline": _headline(len(living), len(silent), busy, threads),
    }


def _scheduler(scheduler: Any, now: datetime) -> dict[str, Any]:
    names = ("host", "pid", "scanned_at", "scan_seconds", "lag_seconds")
    silent = now - scheduler.scanned_at > schedulers.SILENT_AFTER
    return {name: getattr(scheduler, name) for name in names} | {"silent": silent, "off": _off(scheduler.clock_offset)}


def _headline(living: int, silent: int, busy: int, threads: int) -> str:
    if not living:
        return "No worker runs."
    if silent:
        return f"{plural(silent, 'worker is', 'workers are')} silent."
    if busy >= threads:
        return f"All {threads:,} threads are busy."
    return f"{busy:,} of {plural(threads, 'thread is', 'threads are')} busy."


def _off(offset: float | None) -> str:
    return database.describe_offset(offset) if offset is not None and database.is_off(offset) else ""


def _priorities(queues: list[str]) -> str:
    numbers = sorted(int(name.removeprefix("tasks.p")) for name in queues)
    return "all priorities" if len(numbers) == len(PRIORITIES) else f"priorities {', '.join(map(str, numbers))}"
