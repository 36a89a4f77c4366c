"""A task's way through its statuses, as steps with their times."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from scheduler_app.models import WAITING, Failure, Status, Task


@dataclass
class Step:
    status: str
    begins_at: datetime
    ends_at: datetime
    what: str = ""
    failed: bool = False
    future: bool = False
    x: float = 0.0  # percent of the picture's width
    width: float = 0.0

    @property
    def length(self) -> timedelta:
        return self.ends_at - self.begins_at


def steps(task: Task, failures: Sequence[Failure], now: datetime) -> dict[str, Any]:
    """`steps`, oldest first; `marks` at a third and two thirds of them; `total`, from the first to now or the end."""
    found = list(_past(task, failures))
    begins = (
        failures[0].started_at or failures[0].failed_at if failures and failures[0].attempt > 1 else task.created_at
    )
    since = max([begins, *(step.ends_at for step in found)])
    found += _present(task, since, now)
    end = max([step.ends_at for step in found] + [begins + timedelta(milliseconds=1)])
    for step in found:
        step.x = 100 * (step.begins_at - begins) / (end - begins)
        step.width = max(100 * step.length / (end - begins), 0.5)
    until = task.finished_at or now
    marks = [(end - begins) * part for part in (1 / 3, 2 / 3)]
    return {
        "steps": found,
        "begins_at": begins,
        "marks": marks,
        "total": max(until - begins, timedelta(0)),
        "now_x": 100 * min((until - begins) / (end - begins), 1),
    }


def _past(task: Task, failures: Sequence[Failure]) -> list[Step]:
    """The attempts that failed, each after its wait. When one began is not known of failures of older releases."""
    found: list[Step] = []
    since = task.created_at
    for failure in failures:
        began = failure.started_at or since
        if found or failure.attempt == 1:
            found += _wait(since, began, found)
        what = f"Attempt {failure.attempt}, {failure.type}"
        found.append(Step(Status.STARTED, began, max(failure.failed_at, began), what, failed=True))
        since = failure.failed_at
    return found


def _wait(since: datetime, until: datetime, before: Sequence[Step]) -> list[Step]:
    if until <= since:
        return []
    return [Step(Status.RETRYING if before else Status.PENDING, since, until, "Backoff" if before else "")]


def _present(task: Task, since: datetime, now: datetime) -> list[Step]:
    if task.status in WAITING:
        return _waiting(task, since, now)
    began, end = task.started_at, task.finished_at or now
    if began is None or began < since:  # it ended without a further attempt
        ends = [Step(task.status, end, end)] if task.finished_at else []
        return (_wait(since, end, []) if began is None else []) + ends
    running = Step(Status.STARTED, began, max(end, began), f"Attempt {task.attempts}")
    first = [Step(Status.PENDING if task.attempts <= 1 else Status.RETRYING, since, began)] if began > since else []
    return [*first, running] + ([Step(task.status, end, end)] if task.finished_at else [])


def _waiting(task: Task, since: datetime, now: datetime) -> list[Step]:
    what = "Backoff" if task.status == Status.RETRYING else ""
    found = [Step(task.status, since, max(now, since), what)]
    if task.run_at > now:
        length = max((task.run_at - since) * 0.02, timedelta(milliseconds=1))
        what = f"Attempt {task.attempts + 1} of {task.max_retries + 1}"
        found.append(Step(Status.STARTED, task.run_at, task.run_at + length, what, future=True))
    return found
