"""Records the start and the success of an attempt. Every task costs these two writes.

A thread that finishes a task and has the next one at hand writes the success of the first and the start of the second
together. So under load a task costs only one commit. Each is a compare-and-set, as in attempts.py.
"""

import json
import threading
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from scheduler_app.database import ThreadCursors, sqlite_time
from scheduler_app.services.attempts import Attempt
from scheduler_app.worker.running import running_tasks

# Each text is the whole change, for both databases. With None as the task's id it changes nothing.
SUCCEED = """
    UPDATE task
    SET status = 'SUCCESS', result = ?, progress = COALESCE(?, progress), finished_at = ?, cancel_requested = FALSE
    WHERE task_id = ? AND claims = ? AND status = 'STARTED'
    RETURNING task_id
"""
CLAIM = """
    UPDATE task
    SET status = 'STARTED', claims = claims + 1, attempts = attempts + 1, started_at = ?, worker_id = ?, progress = NULL
    WHERE (expires_at IS NULL OR expires_at > ?) AND task_id = ? AND claims = ? AND status IN ('PENDING', 'RETRYING')
    RETURNING attempts, max_retries, operation, params
"""
CLAIMED = """
    SELECT attempts, max_retries, operation, params FROM task
    WHERE task_id = ? AND claims = ? AND status = 'STARTED' AND worker_id = ?
"""

BOTH = (
    "WITH {} SELECT succeeded.task_id, claimed.*"
    " FROM (VALUES (0)) AS always LEFT JOIN succeeded ON TRUE LEFT JOIN claimed ON TRUE"
)


def _after(done: str, change: str) -> str:
    """The change, made to wait until the change named `done` is complete."""
    return change.replace("RETURNING", f"AND (SELECT count(*) FROM {done}) >= 0 RETURNING")  # noqa: S608


SUCCEED_FIRST = BOTH.format(f"succeeded AS ({SUCCEED}), claimed AS ({_after('succeeded', CLAIM)})").replace("?", "%s")
CLAIM_FIRST = BOTH.format(f"claimed AS ({CLAIM}), succeeded AS ({_after('claimed', SUCCEED)})").replace("?", "%s")

Message = tuple[int, int]  # the task's id and how often it was claimed before


class StatusWriter:
    """One per worker process. Its methods raise SQLAlchemy's errors."""

    def __init__(self, worker_id: str) -> None:
        self.worker_id = worker_id
        self.cursors = ThreadCursors()
        self._sqlite = self.cursors.engine.dialect.name == "sqlite"
        self._turn = threading.Lock()  # for writes to SQLite, which itself waits by sleeping, ever longer

    def claim(self, message: Message, *, again: bool = False, now: datetime) -> Attempt | None:
        """Claims the task and returns the attempt. None when the task is deleted, cancelled or claimed already.

        `again` says that an earlier try ended with an error. That try may have claimed the task for this worker without
        our hearing of it; then this counts as claimed now.
        """
        return self._write(None, None, None, message, now)[1] or (self._find_claimed(message) if again else None)

    def succeed(
        self,
        attempt: Attempt,
        result: str,
        *,
        progress: dict[str, Any] | None = None,
        following: Message | None = None,
        again: bool = False,
        now: datetime,
    ) -> tuple[bool, Attempt | None]:
        """Records the result, which is JSON, and claims the message that the thread runs next, if there is one.

        The first value returned is False when the task has moved on without this attempt; its result is then dropped.
        `again` is as in `claim`.
        """
        won, ahead = self._write(attempt, result, json.dumps(progress) if progress else None, following, now)
        return won, ahead or (self._find_claimed(following) if again and following else None)

    def close(self) -> None:
        """Call this in a thread that ends."""
        self.cursors.close()

    def _write(
        self, attempt: Attempt | None, result: str | None, progress: str | None, message: Message | None, now: datetime
    ) -> tuple[bool, Attempt | None]:
        # Numbers go as text: a statement is prepared once for each combination of its parameters' types.
        ended = (str(attempt.task_id), str(attempt.claims)) if attempt else (None, None)
        begun = map(str, message) if message else (None, None)
        execute = self._on_sqlite if self._sqlite else _on_postgresql
        with self.cursors.current() as cursor:
            succeeded, *claimed = execute(cursor, (result, progress, now, *ended), (now, self.worker_id, now, *begun))
        if message is None or claimed[0] is None:
            return succeeded is not None, None
        return succeeded is not None, _attempt(message, claimed)

    def _find_claimed(self, message: Message) -> Attempt | None:
        task_id, claims = message
        if any(task.task_id == task_id for task in running_tasks()):
            return None
        statement = CLAIMED if self._sqlite else CLAIMED.replace("?", "%s")
        with self.cursors.current() as cursor:
            row = cursor.execute(statement, (task_id, claims + 1, self.worker_id)).fetchone()
        return _attempt(message, row) if row else None

    def _on_sqlite(self, cursor: Any, success: Sequence[Any], claim: Sequence[Any]) -> Sequence[Any]:
        with self._turn, cursor.connection:  # which commits, or rolls back
            cursor.execute("BEGIN IMMEDIATE")
            [succeeded] = cursor.execute(SUCCEED, _stored(success)).fetchall() or [(None,)]
            [claimed] = cursor.execute(CLAIM, _stored(claim)).fetchall() or [(None, None, None, None)]
        return *succeeded, *claimed


def _on_postgresql(cursor: Any, success: Sequence[Any], claim: Sequence[Any]) -> Sequence[Any]:
    *_, ended, _ = success
    *_, begun, _ = claim
    # In the order of the ids, because all transactions lock tasks in that order.
    claim_first = ended and begun and int(begun) < int(ended)
    text, values = (CLAIM_FIRST, (*claim, *success)) if claim_first else (SUCCEED_FIRST, (*success, *claim))
    row: Sequence[Any] = cursor.execute(text, values, prepare=True).fetchone()
    return row


def _attempt(message: Message, claimed: Sequence[Any]) -> Attempt:
    number, max_retries, operation, params = claimed
    parsed = json.loads(params) if isinstance(params, str) else params
    return Attempt(message[0], message[1] + 1, number, max_retries, operation, parsed)


def _stored(values: Sequence[Any]) -> list[Any]:
    return [sqlite_time(value) if isinstance(value, datetime) else value for value in values]
