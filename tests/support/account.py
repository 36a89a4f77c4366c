"""Accounts for every task that a system had accepted: how it ended, and how often it ran."""

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select

from scheduler_app.models import WAITING, Failure, Status, Task
from tests.support.processes import eventually
from tests.support.target import Target

UNFINISHED = (*WAITING, Status.STARTED)


def unfinished(target: Target) -> list[Row[Any]]:
    columns = (Task.task_id, Task.status, Task.claims, Task.attempts, Task.enqueued_at, Task.run_at, Task.worker_id)
    return target.rows(select(*columns).where(Task.status.in_(UNFINISHED)))


def settled(target: Target, *, within: float) -> list[Row[Any]]:
    """Waits up to `within` seconds. Returns the tasks that are still not final."""
    with suppress(AssertionError):
        eventually(lambda: not unfinished(target), within=within)
    return unfinished(target)


@dataclass
class Account:
    """How the accepted tasks ended."""

    lost: list[int] = field(default_factory=list)
    wrong: dict[int, str] = field(default_factory=dict)  # final, but not as its attempts ended
    run_twice: list[int] = field(default_factory=list)  # tasks whose effect happened more than once
    statuses: Counter[str] = field(default_factory=Counter)
    finished: dict[int, datetime] = field(default_factory=dict)

    def recovery(self, accepted: Mapping[int, float], harmed_at: float) -> float:
        """Seconds from the harm until all tasks that were accepted before it had finished."""
        before = (task_id for task_id, at in accepted.items() if at < harmed_at)
        ends = (self.finished[task_id].timestamp() for task_id in before if task_id in self.finished)
        return max(0.0, max(ends, default=0.0) - harmed_at)


def account(target: Target, accepted: Iterable[int]) -> Account:
    result = Account()
    query = select(Task.task_id, Task.status, Task.attempts, Task.claims, Task.result, Task.error, Task.finished_at)
    tasks = {task.task_id: task for task in target.rows(query)}
    failures = Counter(task_id for (task_id,) in target.rows(select(Failure.task_id)))
    effects = Counter(int(line.split()[0]) for line in target.effects.read_text().splitlines())
    for task_id in accepted:
        task = tasks.get(task_id)
        if task is None:
            result.lost.append(task_id)
            continue
        if task.status in UNFINISHED:
            continue
        result.statuses[task.status] += 1
        result.finished[task_id] = task.finished_at
        if problem := _problem(task, failures[task_id], effects[task_id]):
            result.wrong[task_id] = f"{task}: {problem}"
        if effects[task_id] > 1:
            result.run_twice.append(task_id)
    return result


def _problem(task: Row[Any], failures: int, effects: int) -> str | None:
    if task.status not in (Status.SUCCESS, Status.ERROR) or task.finished_at is None:
        return "in a status that nobody asked for"
    if task.claims < task.attempts:  # more of them were given back
        return "an attempt that was not counted"
    if task.status == Status.ERROR:
        if effects:
            return f"an error, although it ran to its end ({effects} effects)"
        return None if failures == task.attempts and task.error["type"] == "WorkerLost" else "failed for no reason"
    if not effects or task.result != task.attempts or failures != task.attempts - 1:
        return f"{failures} failures and {effects} effects"
    return None
