"""What somebody should look at, the worst first."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from redis import RedisError

from scheduler_app.extensions import broker
from scheduler_app.services import health, pauses, schedulers, statistics, task_schedules, verdict, workers
from scheduler_app.services.shared import shared
from scheduler_app.services.verdict import length

DAY = timedelta(days=1)
MOST = 1_000  # schedules that are counted


KINDS: tuple[str, ...] = ("database", "disk", "migrations", "redis", "scheduler", "workers", "worker", "clocks")
KINDS += ("failures", "late", "paused_schedule", "paused_priority")
TARGETS = ("failures", "priority", "schedule", "schedules", "worker", "workers")


class Severity(StrEnum):
    """How bad it is."""

    ERROR = "error"  # work stands still or may be refused
    WARNING = "warning"  # somebody should know


@dataclass(frozen=True)
class Target:
    """Where to look."""

    kind: str  # one of TARGETS
    id: str | None = None  # None: all of that kind


@dataclass(frozen=True)
class Need:
    """One thing that needs attention. It names nothing that only some callers may see."""

    kind: str  # one of KINDS
    severity: Severity
    text: str
    target: Target | None = None
    since: datetime | None = None


# For each check of `health`: the kind, the severity, what to say, and where to look.
CHECKS = {
    "database": ("database", Severity.ERROR, "The database {}.", None),
    "migrations": ("migrations", Severity.ERROR, "The tables are not as this release has them: {}.", None),
    "broker": ("redis", Severity.ERROR, "Redis {}. What is posted is kept, and sent once Redis takes it.", None),
    "scheduler": ("scheduler", Severity.ERROR, "No scheduler: {}. No schedule fires.", Target("workers")),
    "workers": ("workers", Severity.ERROR, "No worker: {}. Nothing that waits begins.", Target("workers")),
    "clocks": ("clocks", Severity.WARNING, "Clocks are {}.", Target("workers")),
}


def look(*, now: datetime) -> dict[str, Any]:
    """`verdict` and `needs` as plain data; at most 2 s old. Any page and any caller may ask."""
    return shared.get("attention", lambda: {"verdict": asdict(verdict.reach(now=now)), "needs": _as_data(now)})


def needs(*, now: datetime) -> list[Need]:
    """Works while Redis is away. Raises SQLAlchemyError while the database is."""
    found = [*_broken(), *_silent(now), *_failures(now), *_late(now), *_paused_schedules(), *_paused_priorities()]
    return sorted(found, key=lambda need: need.severity == Severity.WARNING)


def _as_data(now: datetime) -> list[dict[str, Any]]:
    return [asdict(need) for need in needs(now=now)]


def _broken() -> Iterator[Need]:
    checks = health.checks()
    for name, (kind, severity, text, target) in CHECKS.items():
        outcome = checks[name]
        if outcome.startswith("the disk"):
            yield Need("disk", severity, f"T{outcome[1:]}.")
        elif outcome != "ok":
            yield Need(kind, severity, text.format(outcome), target)


def _silent(now: datetime) -> Iterator[Need]:
    for worker in workers.silent(now=now):
        text = f"Worker {worker.pid} on {worker.host} is silent for {length((now - worker.seen_at).total_seconds())}."
        yield Need("worker", Severity.WARNING, text, Target("worker", worker.worker_id), worker.seen_at)


def _failures(now: datetime) -> Iterator[Need]:
    if failed := statistics.failed_since(now - DAY):
        text = f"{_count(failed, 'task')} failed since yesterday."
        yield Need("failures", Severity.WARNING, text, Target("failures"))


def _late(now: datetime) -> Iterator[Need]:
    if late := schedulers.late(now=now):
        since = late[0].next_run_at
        text = f"{_are(len(late), 'schedule')} late, by up to {length((now - since).total_seconds())}."
        yield Need("late", Severity.ERROR, text, _schedules([row.task_schedule_id for row in late]), since)


def _paused_schedules() -> Iterator[Need]:
    if paused := task_schedules.paused_by_failures(limit=MOST):
        text = f"{_are(len(paused), 'schedule')} paused, because a task failed."
        yield Need("paused_schedule", Severity.WARNING, text, _schedules(paused))


def _paused_priorities() -> Iterator[Need]:
    paused = pauses.find()
    waiting = _waiting() if paused else None
    for priority, row in sorted(paused.items()):
        by = f" by {row.paused_by}" if row.paused_by else ""
        note = f": “{row.note}”" if row.note else ""
        there = f" {_count(waiting[priority], 'task')} wait there." if waiting and waiting[priority] else ""
        text = f"Priority {priority} is paused{by}{note}.{there}"
        yield Need("paused_priority", Severity.WARNING, text, Target("priority", str(priority)), row.paused_at)


def _waiting() -> list[int] | None:
    try:
        return broker.waiting()
    except RedisError:
        return None


def _schedules(ids: Sequence[int]) -> Target:
    return Target("schedule", str(ids[0])) if len(ids) == 1 else Target("schedules")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _are(number: int, noun: str) -> str:
    return f"{_count(number, noun)}{'+' if number >= MOST else ''} {'is' if number == 1 else 'are'}"
