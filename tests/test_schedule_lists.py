"""Schedules as the dashboard lists them. Time is passed in."""

from datetime import datetime, timedelta

import pytest
from flask import Flask
from sqlalchemy import event

from scheduler_app.extensions import db
from scheduler_app.services import callers, occurrences, schedule_lists, task_schedules
from scheduler_app.services.callers import Caller
from scheduler_app.services.firing import fire_due
from scheduler_app.services.schedule_lists import Cursor, State
from tests.support.schedules import DAY, HOUR, NOON, create

pytestmark = pytest.mark.usefixtures("context")

SECOND = timedelta(seconds=1)


def found(now: datetime = NOON, words: str = "", state: State = State.ALL) -> list[int]:
    """All pages, of two schedules each; the count agrees."""
    ids: list[int] = []
    cursor: Cursor | None = None
    while True:
        page, cursor = schedule_lists.find(now=now, limit=2, words=words, state=state, cursor=cursor)
        ids += [schedule.task_schedule_id for schedule in page]
        if cursor is None:
            break
    assert schedule_lists.count(now=now, words=words, state=state) == len(ids)
    return ids


def test_what_fires_next_comes_first_and_what_never_fires_last(app: Flask) -> None:
    paused, later, other, soon, same = (
        create(every_x_hours=1, start_at=NOON + hours * HOUR) for hours in (0, 3, 9, 1, 1)
    )
    task_schedules.pause(paused, now=NOON)
    task_schedules.pause(other, now=NOON)
    assert found() == [soon, same, later, other, paused]


def test_text_is_looked_for_in_names_operations_and_ids(app: Flask) -> None:
    report, stock = create(every_x_hours=1, name="Nightly 100% report"), create(every_x_hours=1, name="stock")
    request = create(every_x_hours=1, operation="http_request", params={})
    assert found(words="nightly") == [report]
    assert found(words="100%") == [report]
    assert found(words="0%r") == found(words="_tock") == []
    assert found(words="HTTP") == [request]
    assert found(words=str(stock)) == [stock]
    assert found(words="9" * 200) == found(words="²") == []


def test_states_are_told_apart(app: Flask) -> None:
    late, paused, ended = create(every_x_hours=1), create(every_x_hours=1), create(every_x_hours=1, schedule_x_times=1)
    task_schedules.pause(paused, now=NOON)
    fire_due(now=NOON)
    soon = NOON + HOUR + 5 * SECOND
    assert [found(soon, state=state) for state in (State.LATE, State.PAUSED, State.ENDED)] == [[], [paused], [ended]]
    assert found(NOON + HOUR + 30 * SECOND, state=State.LATE) == [late]
    schedule = task_schedules.get(late)
    assert schedule_lists.late_by(schedule, soon) is None
    assert schedule_lists.late_by(schedule, NOON + 2 * HOUR) == HOUR


def test_the_latest_ten_runs_of_many_schedules_come_in_one_statement(app: Flask) -> None:
    schedules = [create(every_x_hours=1, catch_up="all", catch_up_window=86_400) for _ in range(3)]
    fire_due(now=NOON + 12 * HOUR)
    occurrences.trigger(schedules[0], now=NOON + 13 * HOUR)
    none = create(every_x_hours=1, start_at=NOON + 9 * DAY)
    statements: list[str] = []
    event.listen(db.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    runs = schedule_lists.latest_runs([*schedules, none])
    assert len(statements) == 1
    assert {key: len(value) for key, value in runs.items()} == dict.fromkeys(schedules, 10)
    assert [run.scheduled_for for run in runs[schedules[1]]] == [NOON + hour * HOUR for hour in range(12, 2, -1)]
    assert runs[schedules[0]][0].scheduled_for > NOON + 13 * HOUR - SECOND
    assert schedule_lists.latest_runs([]) == {}


def test_a_caller_sees_what_it_reaches(app: Flask) -> None:
    mine = create(every_x_hours=1, operation="http_request", params={})
    other = create(every_x_hours=1)
    fire_due(now=NOON)
    token = callers.current.set(Caller("shop", operations=("http_request",)))
    try:
        assert found() == [mine]
        assert list(schedule_lists.latest_runs([mine, other])) == [mine]
    finally:
        callers.current.reset(token)
