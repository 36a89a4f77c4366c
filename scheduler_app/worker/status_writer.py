"""Records which attempts begin and which have succeeded, for many tasks in one statement and one commit.

Every task costs these two writes. Each is a compare-and-set, as in services/attempts.py.
"""

import json
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

from scheduler_app.broker import Message
from scheduler_app.database import ThreadCursors, sqlite_time
from scheduler_app.models import Status
from scheduler_app.services.attempts import Attempt

Claim = tuple[datetime, str, bool, bool]  # now, the worker, whether it begins at once, whether suspects are left out
Rows = list[Sequence[Any]]

# A claim returns the callback itself: IS NOT NULL in RETURNING is wrong on SQLite 3.40, and a null costs nothing.
# For one row, on both databases.
SUCCEED = """
    UPDATE task
    SET status = 'SUCCESS', result = ?, progress = COALESCE(?, progress), started_at = ?, finished_at = ?,
        cancel_requested = FALSE, suspected = FALSE
    WHERE task_id = ? AND claims = ? AND status = 'STARTED'
    RETURNING task_id, claims
"""
CLAIM = """
    UPDATE task
    SET status = 'STARTED', claims = claims + 1, attempts = attempts + 1, started_at = ?, worker_id = ?,
        progress = NULL, begun = ?
    WHERE task_id = ? AND claims = ? AND status IN ('PENDING', 'RETRYING') AND NOT (suspected AND ?)
        AND (expires_at IS NULL OR expires_at > ?)
    RETURNING task_id, claims, attempts, max_retries, operation, params, trace, callback
"""
# For many, on PostgreSQL: one update. It locks the rows in the order in which it meets them, which has to be that of
# their ids, as everywhere. So the session may neither hash nor read the whole table: then each change is looked up by
# its key, one after the other, or both sides are merged in the order of the key. Behind a pooler no session is ours to
# set that on, and the rows are locked first, which costs more.
BY_KEY = "SET enable_hashjoin = off; SET enable_seqscan = off"
SETTLE = """
    WITH {open}change AS MATERIALIZED (
        SELECT change.* FROM unnest(%s::bigint[], %s::int[], %s::int[], %s::boolean[], %s::text[], %s::text[],
            %s::timestamptz[], %s::timestamptz[])
            AS change (task_id, claims, epoch, ends, result, progress, started_at, finished_at)
        {lock}
    )
    UPDATE task
    SET status = CASE WHEN ends THEN 'SUCCESS' ELSE 'STARTED' END,
        claims = CASE WHEN ends THEN task.claims ELSE task.claims + 1 END,
        attempts = CASE WHEN ends THEN task.attempts ELSE task.attempts + 1 END,
        result = CASE WHEN ends THEN change.result::json ELSE task.result END,
        progress = CASE WHEN ends THEN COALESCE(change.progress::json, task.progress) END,
        started_at = CASE WHEN ends THEN change.started_at ELSE %s END,
        finished_at = CASE WHEN ends THEN change.finished_at ELSE task.finished_at END,
        worker_id = CASE WHEN ends THEN task.worker_id ELSE %s END,
        begun = CASE WHEN ends THEN task.begun ELSE %s END,
        cancel_requested = task.cancel_requested AND NOT ends,
        suspected = task.suspected AND NOT ends
    FROM change
    WHERE task.task_id = change.task_id AND task.claims = change.claims AND CASE
        WHEN ends THEN task.status = 'STARTED'
        ELSE task.status IN ('PENDING', 'RETRYING') AND NOT (task.suspected AND %s)
            AND (task.expires_at IS NULL OR task.expires_at > %s){is_open} END
    RETURNING ends, task.task_id, task.claims, task.attempts, task.max_retries, task.operation,
        CASE WHEN NOT ends THEN task.params END, task.trace, task.callback
"""
IN_ORDER = "ORDER BY change.task_id"
LOCKED = "JOIN task USING (task_id) ORDER BY task_id FOR NO KEY UPDATE OF task"
# Messages with slots in limits are only claimed while these count. The lock makes a new epoch wait for this commit.
OPEN = "open AS MATERIALIZED (SELECT epoch FROM limit_epoch FOR SHARE), "
IS_OPEN = " AND (change.epoch = 0 OR change.epoch = (SELECT epoch FROM open))"
EPOCH = "SELECT epoch FROM limit_epoch"
# Why a message was not claimed.
LOOK = """
    SELECT status, suspected, attempts, max_retries, operation, params, trace, callback FROM task
    WHERE task_id = ? AND (claims = ? AND status IN ('PENDING', 'RETRYING')
            AND (suspected OR expires_at IS NULL OR expires_at > ?)
        OR claims = ? AND status = 'STARTED' AND worker_id = ?)
"""


class Success(NamedTuple):
    """What an attempt leaves that has succeeded."""

    attempt: Attempt
    result: str  # JSON
    progress: str | None  # JSON; its last word, if that is not in the table yet
    started_at: datetime
    finished_at: datetime


class Settled(NamedTuple):
    """What a settlement did."""

    succeeded: set[tuple[int, int]]  # task and claims; the other tasks have moved on, and their results are dropped
    claimed: dict[Message, Attempt]
    suspected: set[Message]  # to be claimed alone
    refused: set[Message]  # their slots do not count any more: they have to wait again
    # All other messages are out of date: the task is deleted, cancelled or claimed already.


class StatusWriter:
    """One per worker process. Its methods raise SQLAlchemy's errors."""

    def __init__(self, worker_id: str) -> None:
        self.worker_id = worker_id
        self.cursors = ThreadCursors(_look_up_by_key)
        self._sqlite = self.cursors.engine.dialect.name == "sqlite"
        self._turn = threading.Lock()  # for writes to SQLite, which itself waits by sleeping, ever longer

    def settle(
        self,
        ended: Sequence[Success],
        messages: Sequence[Message],
        *,
        begun: bool = False,
        suspected: bool = False,
        again: bool = False,
        now: datetime,
    ) -> Settled:
        """Records the successes, and claims the tasks of the messages.

        begun: the attempts begin at once; without it, nobody will know whether they have begun, should they be lost.
        suspected: tasks are claimed that are suspected. `again` says that an earlier try ended with an error. That try
        may have claimed tasks for this worker without our hearing of it; then these count as claimed now.
        """
        claim = now, self.worker_id, begun, not suspected
        many = not self._sqlite and (len(ended) + len(messages) > 1 or any(one.epoch for one in messages))
        succeeded, rows = (self._together if many else self._row_by_row)(ended, messages, claim)
        found = {(task_id, claims): row for task_id, claims, *row in rows}
        claimed = {one: _attempt(one, found[one.claim], begun) for one in messages if one.claim in found}
        missed = [message for message in messages if message not in claimed]
        missed_why = self._look_again(missed, claimed, begun, again, now) if missed else (set(), set())
        return Settled(succeeded, claimed, *missed_why)

    def close(self) -> None:
        """Call this in a thread that ends."""
        self.cursors.close()

    def _look_again(
        self, missed: Collection[Message], claimed: dict[Message, Attempt], begun: bool, again: bool, now: datetime
    ) -> tuple[set[Message], set[Message]]:
        """Adds to the claimed ones what an earlier try has claimed; returns what is suspected, and what was refused."""
        suspects, refused = set[Message](), set[Message]()
        with self.cursors.current() as cursor:
            for message in missed:
                key = message.task_id, message.claims, self._time(now), message.claim[1], self.worker_id
                for status, suspected, *row in cursor.execute(self._text(LOOK), key).fetchall():
                    if status != Status.STARTED:
                        (suspects if suspected else refused).add(message)
                    elif again:
                        claimed[message] = _attempt(message, row, begun)
        return suspects, refused

    def _row_by_row(
        self, ended: Sequence[Success], messages: Sequence[Message], claim: Claim
    ) -> tuple[set[tuple[int, int]], Rows]:
        """In one transaction on SQLite. On PostgreSQL it is only for a single row."""
        now, worker_id, begun, innocent = claim
        begin = self._time(now), worker_id, begun
        succeed, claim_one = self._text(SUCCEED), self._text(CLAIM)
        with self._transaction() as cursor:
            won = [cursor.execute(succeed, self._row(success)).fetchone() for success in ended]
            epoch = cursor.execute(EPOCH).fetchone()[0] if any(one.epoch for one in messages) else 0
            keys = [(one.task_id, one.claims) for one in messages if one.epoch in (0, epoch)]
            rows = [cursor.execute(claim_one, (*begin, *key, innocent, self._time(now))).fetchone() for key in keys]
        return {(row[0], row[1]) for row in won if row}, [row for row in rows if row]

    def _together(
        self, ended: Sequence[Success], messages: Sequence[Message], claim: Claim
    ) -> tuple[set[tuple[int, int]], Rows]:
        none = [None] * len(messages)
        values = (
            _array([*(one.attempt.task_id for one in ended), *(message.task_id for message in messages)]),
            _array([*(one.attempt.claims for one in ended), *(message.claims for message in messages)]),
            _array([*(0 for _ in ended), *(message.epoch for message in messages)]),
            _array([*("t" for _ in ended), *("f" for _ in messages)]),
            [one.result for one in ended] + none,
            [one.progress for one in ended] + none,
            _array([*(one.started_at.isoformat() for one in ended), *("NULL" for _ in messages)]),
            _array([*(one.finished_at.isoformat() for one in ended), *("NULL" for _ in messages)]),
            *claim,
            claim[0],
        )
        limited = any(message.epoch for message in messages)
        with self.cursors.current() as cursor:
            text = _settlement(limited, cursor.connection.has_session)
            # Not prepared: a plan that was made while the table was small would be kept when it is large.
            rows = cursor.execute(text, values, prepare=False).fetchall()
        return {(row[1], row[2]) for row in rows if row[0]}, [row[1:] for row in rows if not row[0]]

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        if not self._sqlite:  # each statement is one by itself
            with self.cursors.current() as cursor:
                yield cursor
            return
        with self.cursors.current() as cursor, self._turn, cursor.connection:  # which commits, or rolls back
            cursor.execute("BEGIN IMMEDIATE")
            yield cursor

    def _text(self, statement: str) -> str:
        return statement if self._sqlite else statement.replace("?", "%s")

    def _time(self, moment: datetime) -> datetime | str:
        return sqlite_time(moment) if self._sqlite else moment

    def _row(self, success: Success) -> Sequence[Any]:
        times = self._time(success.started_at), self._time(success.finished_at)
        return success.result, success.progress, *times, success.attempt.task_id, success.attempt.claims


def _array(values: Iterable[object]) -> str:
    """As PostgreSQL writes an array. For values that need no quotation marks: the driver's own lists cost more."""
    return f"{{{','.join(map(str, values))}}}"


def _look_up_by_key(cursor: Any) -> None:
    if getattr(cursor.connection, "has_session", False):
        cursor.execute(BY_KEY)


@cache
def _settlement(limited: bool, by_key: bool) -> str:
    parts = {"open": OPEN, "is_open": IS_OPEN} if limited else {"open": "", "is_open": ""}
    return SETTLE.format(lock=IN_ORDER if by_key else LOCKED, **parts)


def _attempt(message: Message, row: Sequence[Any], begun: bool) -> Attempt:
    number, max_retries, operation, params, trace, calls_back = row
    parsed = json.loads(params) if isinstance(params, str) else params
    trace = json.loads(trace) if isinstance(trace, str) else trace
    return Attempt(*message.claim, number, max_retries, operation, parsed, begun, trace, bool(calls_back))
