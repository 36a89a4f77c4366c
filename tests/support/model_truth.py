"""What a model's test holds true of the task table, whoever did what to it in which order.

The table is read after each step, on a connection of its own. What is seen wrong is noted in `wrong`.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, select

from scheduler_app.models import FINISHED, Failure, Status, Task, Worker
from scheduler_app.services.attempts import Attempt
from scheduler_app.services.workers import DEAD_AFTER
from tests.support.model_worker import AT_ONCE, LIMITED, ModelWorker

# Where the same claim may lead to, over any number of changes.
LATER = {
    Status.PENDING: {Status.CANCELLED, Status.EXPIRED},
    Status.RETRYING: {Status.CANCELLED, Status.EXPIRED},
    Status.STARTED: {Status.RETRYING, Status.SUCCESS, Status.ERROR, Status.CANCELLED},
}


class Row(NamedTuple):
    status: str
    claims: int
    result: Any
    worker_id: str | None
    started_at: datetime | None
    expires_at: datetime | None
    cancel_requested: bool
    task_schedule_id: int | None

    @property
    def final(self) -> bool:
        return self.status in FINISHED


@dataclass(eq=False)
class Cancellation:
    """One that is under way, and what was seen of its tasks since it began."""

    task_ids: Collection[int]  # that it is about
    ended: set[int] = field(default_factory=set)  # were seen in a final status, or gone
    retried: set[int] = field(default_factory=set)  # may have begun again after it reached them


@dataclass(eq=False)
class Running:
    worker: ModelWorker
    attempt: Attempt


class Truth:
    def __init__(self, connection: Connection, now: Callable[[], datetime]) -> None:
        self.connection = connection
        self.now = now
        self.wrong: list[str] = []
        self.rows: dict[int, Row] = {}
        self.cancellations: list[Cancellation] = []  # under way
        self.retrying: Callable[[], set[int]] = set  # tasks that a retry which is under way may reach
        self.deleting: Callable[[], set[int]] = set  # tasks that a deletion which is under way may reach
        self.deleted: set[int] = set()
        self.cancelled: dict[int, int] = {}  # with how many claims a task was whose cancellation was answered
        self.seen_at: dict[str, datetime] = {}  # the latest heartbeat of each worker
        self.silent_at: dict[str, datetime] = {}  # when it was last silent for DEAD_AFTER
        self.claimed: dict[tuple[int, int], Row] = {}  # each claim, as it was first seen
        self._outcomes: defaultdict[tuple[int, int], set[str]] = defaultdict(set)
        self._running: list[Running] = []

    def look(self) -> None:
        """At what the tables have now."""
        rows = self._read()
        for task_id, before in self.rows.items():
            self._check_change(task_id, before, rows.get(task_id))
        for call in self.cancellations:
            self._follow(call, rows)
        for task_id, row in rows.items():
            if row.status == Status.STARTED:
                self._check_claim(task_id, self.claimed.setdefault((task_id, row.claims), row))
        self.rows = rows
        self._check_outcomes()
        self._check_cancelled()
        for worker_id, seen_at in self.seen_at.items():
            if (self.now() - seen_at).total_seconds() >= DEAD_AFTER:
                self.silent_at[worker_id] = self.now()

    def begin(self, worker: ModelWorker, attempt: Attempt) -> None:
        """An operation begins to run."""
        new = Running(worker, attempt)
        if not self._was_lost(new):
            self._check_limit(new)
            for other in self._running:
                if other.attempt.task_id == attempt.task_id and not self._was_lost(other):
                    self.wrong.append(f"{worker.name} and {other.worker.name} run task {attempt.task_id} at once")
        self._running.append(new)

    def _check_limit(self, new: Running) -> None:
        limited = [one for one in (new, *self._running) if one.attempt.operation == LIMITED]
        if new in limited and sum(not self._was_lost(one) for one in limited) > AT_ONCE:
            self.wrong.append(f"over the limit run {[one.attempt[:2] for one in limited]}")

    def end(self, worker: ModelWorker, attempt: Attempt) -> None:
        self._running = [one for one in self._running if one.attempt is not attempt]

    def cancellation(self, task_ids: Iterable[int]) -> Cancellation:
        """To be called when it begins."""
        call = Cancellation([*task_ids])
        self.cancellations.append(call)
        self._follow(call, self.rows)
        return call

    def answered(self, call: Cancellation, reached: Iterable[int]) -> None:
        """A cancellation has said whom it reached."""
        self.cancellations.remove(call)
        for task_id in {*call.task_ids} - call.ended - {*reached}:
            if not self.rows[task_id].cancel_requested:  # an earlier one may have reached it
                self.wrong.append(f"a cancellation missed task {task_id}, which is {self.rows[task_id].status}")
        for task_id in {*reached} - call.retried:
            self.cancelled[task_id] = self.rows[task_id].claims
        self._check_cancelled()

    def _follow(self, call: Cancellation, rows: dict[int, Row]) -> None:
        call.ended.update(task_id for task_id in call.task_ids if task_id not in rows or rows[task_id].final)
        call.retried |= self.retrying()

    def all_ended(self) -> bool:
        return all(row.final for row in self.rows.values())

    def check_end(self, accepted: set[int]) -> None:
        """When nothing is left to do."""
        waiting = {task_id: row.status for task_id, row in self.rows.items() if not row.final}
        assert not waiting, f"not ended: {waiting}"
        gone = accepted - self.rows.keys() - self.deleted
        assert not gone, f"accepted and gone: {gone}"
        assert not self.cancelled

    def _read(self) -> dict[int, Row]:
        columns = [Task.__table__.c[name] for name in Row._fields]
        tasks = self.connection.execute(select(Task.task_id, *columns).order_by(Task.task_id)).all()
        for task_id, claim in self.connection.execute(select(Failure.task_id, Failure.claim)):
            self._outcomes[task_id, claim].add("a failure")
        for worker_id, seen_at in self.connection.execute(select(Worker.worker_id, Worker.seen_at)):
            self.seen_at[worker_id] = seen_at
        self.connection.rollback()
        return {task_id: Row(*row) for task_id, *row in tasks}

    def _check_change(self, task_id: int, before: Row, after: Row | None) -> None:
        if after is None:
            self.deleted.add(task_id)
            if task_id not in self.deleting() or before.status != Status.PENDING:
                self.wrong.append(f"task {task_id} is gone")
        elif after.claims == before.claims:
            if after.status != before.status and after.status not in LATER.get(Status(before.status), ()):
                self.wrong.append(f"task {task_id} went from {before.status} to {after.status}")
        elif after.claims < before.claims or before.status == Status.SUCCESS:
            self.wrong.append(f"task {task_id} went from {before} to {after}")
        elif before.final and task_id not in self.retrying():
            self.wrong.append(f"task {task_id} went from {before.status} to {after.status} without a retry")

    def _check_claim(self, task_id: int, row: Row) -> None:
        if row.started_at and row.expires_at and row.started_at >= row.expires_at:
            self.wrong.append(f"task {task_id} began at {row.started_at}, and had expired at {row.expires_at}")

    def _check_outcomes(self) -> None:
        for task_id, row in self.rows.items():
            outcomes = self._outcomes[task_id, row.claims]
            if row.status == Status.SUCCESS:
                outcomes.add(f"the success of claim {row.result}")
                if row.result != row.claims:
                    self.wrong.append(f"task {task_id} has the result of claim {row.result}, but {row.claims} claims")
            if len(outcomes) > 1:
                self.wrong.append(f"claim {row.claims} of task {task_id} ended in {outcomes}")

    def _check_cancelled(self) -> None:
        for task_id, claims in list(self.cancelled.items()):
            row = self.rows.get(task_id)
            if task_id in self.retrying() or row is None or row.status == Status.CANCELLED:
                del self.cancelled[task_id]
            elif row.claims != claims or not (row.final or row.cancel_requested) or row.status == Status.ERROR:
                self.wrong.append(f"task {task_id} is {row.status}, though its cancellation was answered")
            elif row.status == Status.SUCCESS:
                del self.cancelled[task_id]

    def _was_lost(self, one: Running) -> bool:
        """Whether the worker was silent for so long, since it claimed the task, that it counted as lost."""
        if one.worker.killed:
            return True
        claimed = self.claimed.get((one.attempt.task_id, one.attempt.claims))
        began = claimed.started_at if claimed else self.now()
        return self.silent_at.get(one.worker.name, began) > began
