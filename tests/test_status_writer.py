"""The start of an attempt and its success, written together."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from scheduler_app.extensions import db
from scheduler_app.models import Status
from scheduler_app.services import tasks
from scheduler_app.services.attempts import Attempt
from scheduler_app.worker.running import registered
from scheduler_app.worker.status_writer import StatusWriter
from tests.support.servers import Postgres

NOW = datetime(2040, 6, 1, 12, tzinfo=UTC)

pytestmark = pytest.mark.usefixtures("context")


@pytest.fixture
def writer(context: None) -> Iterator[StatusWriter]:
    with closing(StatusWriter("this worker")) as writer:
        yield writer


def posted(count: int) -> list[int]:
    request = {"operation": "calculate", "params": {"expression": "1+1"}, "priority": 5, "max_retries": 3}
    created = tasks.create([request] * count, now=NOW)
    db.session.commit()
    return [row.task_id for row in created]


def columns(task_id: int) -> tuple[Any, ...]:
    db.session.rollback()
    task = tasks.get(task_id)
    return task.status, task.result, task.attempts, task.worker_id


def begun(writer: StatusWriter, task_id: int) -> Attempt:
    attempt = writer.claim((task_id, 0), now=NOW)
    assert attempt
    return attempt


def test_a_claim_gives_what_the_attempt_needs(writer: StatusWriter) -> None:
    [task_id] = posted(1)
    assert begun(writer, task_id) == Attempt(task_id, 1, 1, 3, "calculate", {"expression": "1+1"})
    assert columns(task_id) == (Status.STARTED, None, 1, "this worker")
    assert writer.claim((task_id, 0), now=NOW) is None


def test_a_success_and_the_claim_of_the_next_task_are_written_together(writer: StatusWriter) -> None:
    first, second = posted(2)
    won, following = writer.succeed(begun(writer, first), "2", following=(second, 0), now=NOW)
    assert won
    assert following == Attempt(second, 1, 1, 3, "calculate", {"expression": "1+1"})
    assert [columns(task_id)[:3] for task_id in (first, second)] == [(Status.SUCCESS, 2, 1), (Status.STARTED, None, 1)]


def test_a_success_stands_when_the_next_task_is_gone(writer: StatusWriter) -> None:
    first, second = posted(2)
    tasks.remove(second, now=NOW)
    assert writer.succeed(begun(writer, first), "2", following=(second, 0), now=NOW) == (True, None)
    assert columns(first)[0] == Status.SUCCESS


def test_the_next_task_is_claimed_although_the_success_comes_too_late(writer: StatusWriter) -> None:
    first, second = posted(2)
    attempt = begun(writer, first)
    assert writer.succeed(attempt, "2", now=NOW) == (True, None)
    won, following = writer.succeed(attempt, "3", following=(second, 0), now=NOW)
    assert not won
    assert following
    assert columns(first)[:2] == (Status.SUCCESS, 2)


def test_a_claim_whose_answer_was_lost_is_found_when_it_is_tried_again(writer: StatusWriter) -> None:
    first, second = posted(2)
    claimed = begun(writer, first)
    assert writer.claim((first, 0), again=True, now=NOW) == claimed
    assert writer.succeed(claimed, "2", following=(second, 0), now=NOW)[1]
    won, ahead = writer.succeed(claimed, "2", following=(second, 0), again=True, now=NOW)
    assert (won, ahead) == (False, Attempt(second, 1, 1, 3, "calculate", {"expression": "1+1"}))
    assert columns(second)[2] == 1


def test_what_another_worker_has_claimed_is_not_found(writer: StatusWriter) -> None:
    [task_id] = posted(1)
    with closing(StatusWriter("another worker")) as other:
        begun(other, task_id)
    assert writer.claim((task_id, 0), again=True, now=NOW) is None


def test_what_runs_here_already_is_not_begun_again(writer: StatusWriter) -> None:
    [task_id] = posted(1)
    with registered(begun(writer, task_id)):
        assert writer.claim((task_id, 0), again=True, now=NOW) is None


def test_progress_that_was_not_written_yet_comes_with_the_success(writer: StatusWriter) -> None:
    [task_id] = posted(1)
    writer.succeed(begun(writer, task_id), "null", progress={"percent": 100, "message": "done"}, now=NOW)
    assert tasks.get(task_id).progress == {"percent": 100, "message": "done"}


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_connection_that_was_ended_is_replaced(writer: StatusWriter, postgres: Postgres) -> None:
    first, second = posted(2)
    begun(writer, first)
    postgres.end_sessions()
    with pytest.raises(OperationalError):
        begun(writer, second)
    assert begun(writer, second)
