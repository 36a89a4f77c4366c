"""The history counts every task that came in or ended once, whatever happens to it, to the clock or to a scheduler."""

import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import delete, insert, select, text, update

from scheduler_app.extensions import db
from scheduler_app.models import ALL, Depth, History, HistoryMark, Status, Task
from scheduler_app.services import control, depths, history, retention, spans, tasks
from tests.support.processes import eventually
from tests.support.servers import Valkey

pytestmark = pytest.mark.usefixtures("context")

NOW = datetime(2040, 6, 1, 12, 0, 5, tzinfo=UTC)
SECOND, DAY = timedelta(seconds=1), timedelta(days=1)
LATER = NOW + timedelta(seconds=30)  # when all that ended until NOW is counted


def end(
    count: int = 1,
    *,
    at: datetime = NOW,
    status: Status = Status.SUCCESS,
    waited: timedelta = SECOND,
    ran: timedelta = SECOND,
    **columns: Any,
) -> list[int]:
    """Tasks that ended at the time."""
    begun = at - ran
    values = {"operation": "calculate", "params": {}, "priority": 5, "max_retries": 0, "attempts": 1, "claims": 1}
    values |= {"status": status, "finished_at": at, "started_at": begun, "run_at": begun - waited}
    values |= {"created_at": begun - waited, **columns}
    ids = db.session.scalars(insert(Task).returning(Task.task_id), [values] * count).all()
    db.session.commit()
    return list(ids)


def roll_up(now: datetime = LATER) -> int:
    """All that there is to count."""
    rounds = 1
    while history.roll_up(now=now):
        rounds += 1
    return rounds


def counted(span: int = 3600, **columns: Any) -> dict[str, int]:
    """How many tasks, by status, in the spans of this length."""
    query = select(History).where(History.span == span, History.operation != ALL[0]).filter_by(**columns)
    found: Counter[str] = Counter()
    for row in db.session.scalars(query.execution_options(populate_existing=True)):
        found[row.status] += row.tasks
    db.session.rollback()
    return {status: tasks for status, tasks in found.items() if tasks}


def buckets(name: str) -> dict[str, int]:
    [found] = db.session.scalars(
        select(getattr(History, name)).where(
            History.span == 10, History.operation == ALL[0], History.status != "CREATED"
        )
    )
    return found


def test_what_ended_and_came_in_is_counted_by_operation_priority_and_status() -> None:
    end(3)
    end(2, status=Status.ERROR, priority=0)
    end(1, status=Status.CANCELLED, operation="http_request")
    roll_up()
    for span in spans.KEPT:
        assert counted(span) == {"CREATED": 6, "SUCCESS": 3, "ERROR": 2, "CANCELLED": 1}
        assert counted(span, priority=0) == {"CREATED": 2, "ERROR": 2}
        assert counted(span, operation="http_request") == {"CREATED": 1, "CANCELLED": 1}
    totals = db.session.execute(select(History.status, History.tasks).filter_by(span=60, operation="", priority=-1))
    assert dict(totals.all()) == {"CREATED": 6, "SUCCESS": 3, "ERROR": 2, "CANCELLED": 1}


def test_each_task_falls_into_the_span_in_which_it_ended() -> None:
    for seconds in (0, 4, 6, 55, 3595):
        end(at=NOW + timedelta(seconds=seconds))
    roll_up(NOW + timedelta(seconds=3630))
    for span, begins in {10: [0, 10, 60, 3600], 60: [0, 60, 3600], 3600: [0, 3600]}.items():
        query = select(History.begins_at).where(History.span == span, History.status == "SUCCESS").distinct()
        found = sorted(db.session.scalars(query))
        assert found == [NOW - 5 * SECOND + timedelta(seconds=begin) for begin in begins]


def test_waiting_and_running_are_counted_in_buckets_that_grow_by_half() -> None:
    for milliseconds in (0, 0.9, 1.1, 1.6, 2.3, 1e9):
        duration = timedelta(milliseconds=milliseconds)
        end(waited=duration, ran=2 * duration)
    roll_up()
    assert buckets("waiting") == {"0": 2, "1": 1, "2": 1, "3": 1, "40": 1}
    assert buckets("running") == {"0": 1, "2": 2, "3": 1, "4": 1, "40": 1}


def test_what_was_cancelled_while_it_waited_has_neither_waited_nor_run_for_a_time() -> None:
    end(status=Status.CANCELLED, started_at=None)
    end(status=Status.CANCELLED, run_at=NOW + DAY)
    roll_up()
    assert counted() == {"CREATED": 2, "CANCELLED": 2}
    assert (buckets("waiting"), buckets("running")) == ({}, {})


def test_nothing_is_counted_twice_however_often_and_by_however_many_it_is_counted(app: Flask) -> None:
    end(500)

    def count() -> None:
        with app.app_context():
            roll_up()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    roll_up()
    assert counted() == {"CREATED": 500, "SUCCESS": 500}


def test_an_outage_is_caught_up_in_bounded_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "BATCH", 10)
    for second in range(5):
        end(5, at=NOW + second * SECOND)
    end(25, at=NOW + 5 * SECOND)  # more than a batch at one moment
    assert roll_up(LATER + 5 * SECOND) >= 5
    assert counted() == {"CREATED": 50, "SUCCESS": 50}


def test_what_is_not_settled_yet_waits_for_the_next_time() -> None:
    end()
    roll_up(NOW + SECOND)
    assert "SUCCESS" not in counted()
    roll_up(NOW + 11 * SECOND)
    assert counted() == {"CREATED": 1, "SUCCESS": 1}


def test_the_mark_does_not_pass_a_row_that_is_still_being_written(app: Flask) -> None:
    """On PostgreSQL a transaction that ends late, on SQLite one that waits for the lock."""
    [task_id] = end(status=Status.STARTED, at=datetime.now(UTC), finished_at=None)

    def write(late: Any, now: datetime) -> None:
        late.execute(update(Task).where(Task.task_id == task_id).values(status="SUCCESS", finished_at=now))
        late.execute(insert(Task), [_row(now)])

    if db.engine.dialect.name == "postgresql":
        with db.engine.connect() as late:
            late.execute(text("SELECT 1"))  # it has begun before any of the times that follow
            now = datetime.now(UTC)
            write(late, now)
            end(at=now + SECOND)
            roll_up(now + timedelta(minutes=4))
            assert "SUCCESS" not in counted()
            late.commit()
    else:
        now = datetime.now(UTC)
        roll_up(now + 9 * SECOND)
        write(db.session, now)
        db.session.commit()
        end(at=now + SECOND)
    roll_up(now + timedelta(minutes=4))
    assert counted() == {"CREATED": 3, "SUCCESS": 2}


def _row(now: datetime) -> dict[str, Any]:
    return {"operation": "calculate", "params": {}, "priority": 5, "max_retries": 0, "run_at": now, "created_at": now}


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_transaction_that_somebody_forgot_stops_the_count_for_five_minutes_only() -> None:
    with db.engine.connect() as forgotten:
        forgotten.execute(text("SELECT 1"))
        now = datetime.now(UTC)
        end(at=now)
        roll_up(now + timedelta(minutes=4))
        assert counted() == {}
        roll_up(now + timedelta(minutes=6))
        assert counted() == {"CREATED": 1, "SUCCESS": 1}


def test_a_clock_that_steps_back_makes_nothing_count_twice_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "BATCH", 10)
    for second in range(0, 60, 2):
        end(at=NOW + second * SECOND)
    roll_up(NOW + 120 * SECOND)
    assert counted() == {"CREATED": 30, "SUCCESS": 30}
    stepped = NOW + 21 * SECOND  # the time is this again
    roll_up(stepped)
    end(5, at=NOW + 25 * SECOND)
    roll_up(stepped + 10 * SECOND)
    end(5, at=NOW + 35 * SECOND)
    roll_up(NOW + 300 * SECOND)
    assert counted() == {"CREATED": 40, "SUCCESS": 40}
    assert counted(10) == {"CREATED": 40, "SUCCESS": 40}


def test_a_retry_counts_first_what_ended_before_it() -> None:
    roll_up()
    [task_id] = end(status=Status.ERROR, at=LATER)
    control.retry(task_id, now=LATER)
    assert counted() == {"ERROR": 1}
    db.session.execute(update(Task).values(status=Status.SUCCESS, finished_at=LATER + SECOND, started_at=LATER))
    db.session.commit()
    roll_up(LATER + 60 * SECOND)
    assert counted() == {"CREATED": 1, "ERROR": 1, "SUCCESS": 1}


def test_a_retry_of_what_is_counted_counts_nothing() -> None:
    [task_id] = end(status=Status.ERROR)
    roll_up()
    control.retry(task_id, now=LATER)
    roll_up(LATER + 60 * SECOND)
    assert counted() == {"CREATED": 1, "ERROR": 1}


def test_retention_counts_first_what_it_deletes() -> None:
    end(3)
    assert retention.prune(now=NOW + 31 * DAY) == 3
    assert counted() == {"SUCCESS": 3}
    roll_up(NOW + 31 * DAY)
    assert counted() == {"SUCCESS": 3}


def test_old_spans_go_the_short_ones_first() -> None:
    end()
    roll_up()
    later_on = {timedelta(hours=3): [900, 3600, 21_600], 3 * DAY: [3600, 21_600], 41 * DAY: [3600], 401 * DAY: []}
    for later, kept in later_on.items():
        depths_of_all = [{"span": span, "begins_at": NOW, "priority": 5, "waiting": 1, "running": 0} for span in kept]
        db.session.execute(insert(Depth), [row | {"oldest_seconds": 0.0} for row in depths_of_all] or [_nothing()])
        db.session.commit()
        roll_up(LATER + later)
        assert sorted(db.session.scalars(select(History.span).distinct())) == kept
        db.session.execute(delete(Depth))
        db.session.commit()


def _nothing() -> dict[str, Any]:
    return {"span": 10, "begins_at": NOW, "priority": 5, "waiting": 1, "running": 0, "oldest_seconds": 0.0}


def test_what_is_too_old_for_a_span_is_not_written_there() -> None:
    end(at=NOW - DAY)
    roll_up()
    assert [counted(span) for span in (10, 60)] == [{}, {}]
    assert [counted(span) for span in (900, 3600, 21_600)] == [{"CREATED": 1, "SUCCESS": 1}] * 3


def test_an_hour_tells_two_hundred_operations_apart() -> None:
    for number in range(205):
        end(operation=f"shop.{number}")
    roll_up()
    assert counted() == {"CREATED": 205, "SUCCESS": 205}
    names = set(db.session.scalars(select(History.operation).where(History.span == 3600))) - {ALL[0]}
    assert len(names) == 201
    assert counted(operation="other") == {"CREATED": 5, "SUCCESS": 5}


def test_a_batch_can_fall_into_more_spans_than_a_statement_takes_parameters() -> None:
    row = {"params": {}, "priority": 5, "max_retries": 0, "attempts": 1, "claims": 1, "status": Status.SUCCESS}
    times = [NOW - number * timedelta(seconds=65) for number in range(110)]
    db.session.execute(
        insert(Task),
        [
            row | dict.fromkeys(("created_at", "run_at", "started_at", "finished_at"), at) | {"operation": f"op{name}"}
            for at in times
            for name in range(110)
        ],
    )
    db.session.commit()
    assert roll_up() == 5, "few kinds at a time: to add them up takes longer than to count many tasks"
    assert counted() == {"CREATED": 12_100, "SUCCESS": 12_100}


def test_the_depth_is_the_highest_that_was_seen_in_the_span(valkey: Valkey) -> None:
    def post(count: int, at: datetime) -> None:
        request = {"operation": "calculate", "params": {}, "priority": 5, "max_retries": 0, "run_at": at}
        tasks.submit([request] * count, now=at)

    post(3, at=NOW - 5 * SECOND)
    [runs] = end(status=Status.STARTED)
    depths.sample(now=NOW)
    db.session.execute(delete(Task).where(Task.task_id == runs))
    db.session.commit()
    post(4, at=NOW)
    depths.sample(now=NOW - 3 * SECOND)
    valkey.client.flushall()
    depths.sample(now=NOW)
    rows = db.session.scalars(select(Depth).order_by(Depth.span)).all()
    assert [(row.span, row.waiting, row.running, row.oldest_seconds) for row in rows] == [
        (span, 7, 1, 5.0) for span in (10, 60, 900, 3600, 21_600)
    ]


def test_the_scheduler_does_it(app: Flask, scheduler: Any) -> None:
    now = datetime.now(UTC)
    end(3, at=now - timedelta(minutes=1))
    scheduler()
    eventually(lambda: counted() == {"CREATED": 3, "SUCCESS": 3})
    assert db.session.scalar(select(HistoryMark.finished_to)) > now - timedelta(minutes=1)
