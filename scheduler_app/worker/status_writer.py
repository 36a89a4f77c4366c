"""Records which attempts begin and which have succeeded, for many tasks in one statement and one commit.

Every task costs these two writes. Each is a compare-and-set, as in services/attempts.py.
"""

import json
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
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
# For many, on PostgreSQL. The rows are locked first, in the order of their ids: an update from a list locks in any.
# What is compared is the locked row, so that only the primary key leads to the rows: the index of statuses is full of
# what just was.
SETTLE = """
    WITH ended AS (
        SELECT * FROM unnest(%s::text[]::bigint[], %s::text[]::int[], %s::text[], %s::text[], %s::timestamptz[],
            %s::timestamptz[]) AS ended (task_id, claims, result, progress, started_at, finished_at)
    ), wanted AS (
        SELECT * FROM unnest(%s::text[]::bigint[], %s::text[]::int[]{epochs}) AS wanted (task_id, claims{epoch})
    ), {open}locked AS MATERIALIZED (
        SELECT task_id, claims, status, suspected, expires_at FROM task
        WHERE task_id = ANY (%s::text[]::bigint[]) ORDER BY task_id FOR NO KEY UPDATE
    ), succeeded AS (
        UPDATE task
        SET status = 'SUCCESS', result = ended.result::json, progress = COALESCE(ended.progress::json, task.progress),
            started_at = ended.started_at, finished_at = ended.finished_at, cancel_requested = FALSE, suspected = FALSE
        FROM ended JOIN locked USING (task_id, claims)
        WHERE task.task_id = ended.task_id AND locked.status = 'STARTED'
        RETURNING task.task_id, task.claims
    ), claimed AS (
        UPDATE task
        SET status = 'STARTED', claims = task.claims + 1, attempts = attempts + 1, started_at = %s, worker_id = %s,
            progress = NULL, begun = %s
        FROM wanted JOIN locked USING (task_id, claims)
        WHERE task.task_id = wanted.task_id AND locked.status IN ('PENDING', 'RETRYING')
            AND NOT (locked.suspected AND %s) AND (locked.expires_at IS NULL OR locked.expires_at > %s){is_open}
        RETURNING task.task_id, task.claims, attempts, max_retries, operation, params, trace, callback
    )
    SELECT TRUE, * FROM claimed UNION ALL
    SELECT FALSE, task_id, claims, NULL, NULL, NULL, NULL, NULL, NULL FROM succeeded
"""
# Messages with slots in limits are only claimed while these count. The lock makes a new epoch wait for this commit.
LIMITED = {
    "epochs": ", %s::text[]::int[]",
    "epoch": ", epoch",
    "open": "open AS MATERIALIZED (SELECT epoch FROM limit_epoch FOR SHARE), ",
    "is_open": " AND (wanted.epoch = 0 OR wanted.epoch = (SELECT epoch FROM open))",
}
SETTLE_LIMITED = SETTLE.format(**LIMITED)
SETTLE = SETTLE.format(**dict.fromkeys(LIMITED, ""))
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
        self.cursors = ThreadCursors()
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
        # Numbers go as text, since the driver gives a list of numbers another type with each size of them.
        ids = [str(success.attempt.task_id) for success in ended]
        wanted = [str(message.task_id) for message in messages]
        limited = any(message.epoch for message in messages)
        values = (
            ids,
            [str(success.attempt.claims) for success in ended],
            [success.result for success in ended],
            [success.progress for success in ended],
            [success.started_at for success in ended],
            [success.finished_at for success in ended],
            wanted,
            [str(message.claims) for message in messages],
            *([[str(message.epoch) for message in messages]] if limited else ()),
            ids + wanted,
            *claim,
            claim[0],
        )
        with self.cursors.current() as cursor:
            # Not prepared: a plan that was made while the table was small would be kept when it is large.
            rows = cursor.execute(SETTLE_LIMITED if limited else SETTLE, values, prepare=False).fetchall()
        return {(row[1], row[2]) for row in rows if not row[0]}, [row[1:] for row in rows if row[0]]

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


def _attempt(message: Message, row: Sequence[Any], begun: bool) -> Attempt:
    number, max_retries, operation, params, trace, calls_back = row
    parsed = json.loads(params) if isinstance(params, str) else params
    trace = json.loads(trace) if isinstance(trace, str) else trace
    return Attempt(*message.claim, number, max_retries, operation, parsed, begun, trace, bool(calls_back))
