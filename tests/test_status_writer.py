"""The begin of attempts and their successes, written together."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.exc import DBAPIError, OperationalError

from scheduler_app.database import failures
from scheduler_app.extensions import db
from scheduler_app.models import Status, Task
from scheduler_app.services import tasks
from scheduler_app.services.attempts import Attempt
from scheduler_app.worker.status_writer import StatusWriter
from tests.support.claims import begun, ended, message, success
from tests.support.servers import Postgres

NOW = datetime(2040, 6, 1, 12, tzinfo=UTC)

pytestmark = pytest.mark.usefixtures("context")


@pytest.fixture
def writer(context: None) -> Iterator[StatusWriter]:
    with closing(StatusWriter("this worker")) as writer:
        yield writer


def posted(count: int, **columns: Any) -> list[int]:
    request = {"operation": "calculate", "params": {"expression": "1+1"}, "priority": 5, "max_retries": 3}
    created = tasks.create([request] * count, now=NOW)
    task_ids = [row.task_id for row in created]
    if columns:
        db.session.execute(update(Task).where(Task.task_id.in_(task_ids)).values(**columns))
    db.session.commit()
    return task_ids


def columns(task_id: int) -> tuple[Any, ...]:
    db.session.rollback()
    task = tasks.get(task_id)
    return task.status, task.result, task.attempts, task.worker_id


def attempt(task_id: int, *, begun: bool) -> Attempt:
    return Attempt(task_id, 1, 1, 3, "calculate", {"expression": "1+1"}, begun)


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("begins", [True, False])
def test_a_claim_gives_what_each_attempt_needs(writer: StatusWriter, size: int, begins: bool) -> None:
    messages = [message(task_id) for task_id in posted(size)]
    settled = writer.settle([], messages, begun=begins, now=NOW)
    assert settled.claimed == {one: attempt(one.task_id, begun=begins) for one in messages}
    assert (settled.succeeded, settled.suspected) == (set(), set())
    for one in messages:
        assert columns(one.task_id) == (Status.STARTED, None, 1, "this worker")
        assert (tasks.get(one.task_id).begun, tasks.get(one.task_id).started_at) == (begins, NOW)
    assert writer.settle([], messages, now=NOW).claimed == {}


def test_successes_and_claims_are_written_together(writer: StatusWriter) -> None:
    task_ids = posted(4)
    before = [begun(writer, message(task_id), now=NOW) for task_id in task_ids[:2]]
    successes = [success(one, str(n), now=NOW + timedelta(seconds=1)) for n, one in enumerate(before) if one]
    settled = writer.settle(successes, [message(task_id) for task_id in task_ids[2:]], now=NOW)
    assert settled.succeeded == {(task_id, 1) for task_id in task_ids[:2]}
    assert {one.task_id for one in settled.claimed} == {*task_ids[2:]}
    assert [columns(task_id)[:3] for task_id in task_ids] == [
        (Status.SUCCESS, 0, 1),
        (Status.SUCCESS, 1, 1),
        (Status.STARTED, None, 1),
        (Status.STARTED, None, 1),
    ]
    done = tasks.get(task_ids[0])
    assert done.started_at == done.finished_at == NOW + timedelta(seconds=1), "not when it was claimed"


def test_nothing_of_others_is_touched(writer: StatusWriter) -> None:
    here, gone, cancelled, elsewhere, late = posted(5)
    tasks.remove(gone, now=NOW)
    db.session.execute(update(Task).where(Task.task_id == cancelled).values(status=Status.CANCELLED, finished_at=NOW))
    db.session.commit()
    with closing(StatusWriter("another worker")) as other:
        assert begun(other, message(elsewhere), now=NOW)
    attempt = begun(writer, message(late), now=NOW)
    assert attempt
    assert ended(writer, attempt, now=NOW)
    messages = [message(task_id) for task_id in (here, gone, cancelled, elsewhere)]
    settled = writer.settle([success(attempt, "3", now=NOW)], messages, again=True, now=NOW)
    assert (settled.succeeded, [*settled.claimed], settled.suspected) == (set(), [messages[0]], set())
    assert columns(late)[:2] == (Status.SUCCESS, 2)
    assert columns(elsewhere)[3] == "another worker"


@pytest.mark.parametrize("size", [1, 3])
def test_claims_whose_answer_was_lost_are_found_when_it_is_tried_again(writer: StatusWriter, size: int) -> None:
    messages = [message(task_id) for task_id in posted(size)]
    claimed = writer.settle([], messages, now=NOW).claimed
    assert writer.settle([], messages, again=True, now=NOW).claimed == claimed
    assert {columns(one.task_id)[2] for one in messages} == {1}


@pytest.mark.parametrize("size", [1, 3])
def test_what_is_suspected_is_claimed_by_itself(writer: StatusWriter, size: int) -> None:
    suspected, *others = (message(task_id) for task_id in posted(size))
    db.session.execute(update(Task).where(Task.task_id == suspected.task_id).values(suspected=True))
    db.session.commit()
    settled = writer.settle([], [suspected, *others], now=NOW)
    assert (settled.suspected, {*settled.claimed}) == ({suspected}, {*others})
    claimed = writer.settle([], [suspected], begun=True, suspected=True, now=NOW).claimed
    assert claimed == {suspected: attempt(suspected.task_id, begun=True)}
    assert ended(writer, claimed[suspected], now=NOW)
    db.session.rollback()
    assert not tasks.get(suspected.task_id).suspected, "it has ended well"


def test_of_two_messages_for_one_task_only_the_newer_claims(writer: StatusWriter) -> None:
    task_id, other = posted(2, claims=1)
    messages = [message(task_id, 0), message(task_id, 1), message(other, 1)]
    assert [*writer.settle([], messages, now=NOW).claimed] == messages[1:]


def test_progress_that_was_not_written_yet_comes_with_the_success(writer: StatusWriter) -> None:
    task_ids = posted(2)
    claimed = writer.settle([], [message(task_id) for task_id in task_ids], now=NOW).claimed.values()
    last_word = '{"percent": 100, "message": "done"}'
    writer.settle([success(one, "null", progress=last_word, now=NOW) for one in claimed], [], now=NOW)
    assert [tasks.get(task_id).progress for task_id in task_ids] == [{"percent": 100, "message": "done"}] * 2


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_result_that_cannot_be_stored_leaves_all_as_it_was(writer: StatusWriter) -> None:
    first, second = (begun(writer, message(task_id), now=NOW) for task_id in posted(2))
    assert first
    assert second
    successes = [success(first, "1", now=NOW), success(second, "[" * 30_000 + "]" * 30_000, now=NOW)]
    with pytest.raises(DBAPIError) as raised:
        writer.settle(successes, [], now=NOW)
    assert failures.is_of_the_data(raised.value)
    assert columns(first.task_id)[0] == Status.STARTED


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_connection_that_was_ended_is_replaced(writer: StatusWriter, postgres: Postgres) -> None:
    first, second = (message(task_id) for task_id in posted(2))
    begun(writer, first, now=NOW)
    postgres.end_sessions()
    with pytest.raises(OperationalError):
        begun(writer, second, now=NOW)
    assert begun(writer, second, now=NOW)
