"""Whether it keeps up, in a sentence that is true, and what needs attention."""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event, insert, update

from scheduler_app.config import Settings
from scheduler_app.extensions import db, settings
from scheduler_app.models import Scheduler, Status, TaskSchedule
from scheduler_app.services import attempts, attention, health, pauses, schedulers, tasks, verdict, workers
from scheduler_app.services.attention import Target
from scheduler_app.services.verdict import State, length
from scheduler_app.web import create_web_app
from tests.support.servers import Valkey
from tests.test_history import NOW, SECOND, end, roll_up

pytestmark = pytest.mark.usefixtures("context")

MINUTE = timedelta(minutes=1)


def beat(now: datetime = NOW, worker_id: str = "a") -> None:
    worker = {"worker_id": worker_id, "host": "b", "pid": 7, "threads": 1, "queues": [], "started_at": now}
    workers.beat(worker, clock_offset=0.0, now=now)


def post(count: int, *, priority: int = 5, at: datetime = NOW, **fields: Any) -> list[int]:
    request = {"operation": "calculate", "params": {}, "priority": priority, "max_retries": 0, "run_at": at} | fields
    return [task.task_id for task in tasks.submit([request] * count, now=at)]


def says(now: datetime = NOW) -> str:
    text = verdict.reach(now=now).text
    db.session.rollback()  # a new transaction sees what others write
    return text


def test_with_nothing_to_do_it_says_so() -> None:
    beat()
    assert (verdict.reach(now=NOW).state, says()) == (State.IDLE, "Nothing to do.")


def test_a_task_for_later_does_not_wait() -> None:
    beat()
    post(3, run_at=NOW + MINUTE)
    assert says() == "Nothing to do."


def test_without_a_worker_it_says_so() -> None:
    assert says() == "No worker runs: nothing waits."
    post(1)
    assert says() == "No worker runs: 1 waits."
    beat(NOW - MINUTE)
    assert verdict.reach(now=NOW).state == State.NO_WORKER


def test_it_keeps_up_while_no_due_task_waits_for_long() -> None:
    beat()
    end(status=Status.STARTED, finished_at=None)
    assert says() == "Keeping up: 1 runs, nothing waits."
    post(2000)
    beat(NOW + 20 * SECOND)
    assert says(NOW + 29 * SECOND) == "Keeping up: 1 runs, 2,000 wait."
    assert verdict.reach(now=NOW + 30 * SECOND).state == State.FALLING_BEHIND


@pytest.mark.parametrize(
    ("ended", "came", "text"),
    [
        (212, 0, "Keeping up: 212 a minute in and out."),
        (100, 3, "Keeping up: 100 a minute in and out."),
        (100, 60, "Keeping up: 160 a minute in, 100 out."),
    ],
)
def test_it_tells_how_much_comes_and_goes(ended: int, came: int, text: str) -> None:
    end(ended)
    post(came, at=NOW - SECOND, run_at=NOW + MINUTE)
    roll_up(NOW + 15 * SECOND)
    beat()
    found = verdict.reach(now=NOW + 10 * SECOND)
    assert found.text == text
    assert (found.in_per_minute, found.out_per_minute) == (ended + came, ended)


def test_it_tells_which_priority_falls_behind_and_when_it_will_be_empty() -> None:
    post(1, priority=9, at=NOW - 400 * SECOND)
    post(120, at=NOW - 4 * MINUTE)
    end(132, at=NOW, priority=5)
    end(500, at=NOW, priority=9)
    roll_up(NOW + 15 * SECOND)
    beat()
    found = verdict.reach(now=NOW + 10 * SECOND)
    assert found.text == "Falling behind at priority 5: 120 wait, the oldest 4 min."
    assert (found.priority, found.oldest_seconds, found.empty_in_seconds) == (5, 250.0, None)
    assert found.waiting == 121
    end(12, at=NOW + 20 * SECOND, priority=5, created_at=NOW - 7 * MINUTE)
    roll_up(NOW + 35 * SECOND)
    beat(NOW + 30 * SECOND)
    found = verdict.reach(now=NOW + 30 * SECOND)
    assert found.text == "Falling behind at priority 5: 120 wait, the oldest 4 min, empty in about 10 min at this rate."
    assert found.empty_in_seconds == pytest.approx(600)


def test_it_tells_when_more_comes_than_goes() -> None:
    post(120, at=NOW - MINUTE)
    end(20, at=NOW - MINUTE, created_at=NOW - SECOND)
    roll_up(NOW + 15 * SECOND)
    beat()
    assert says() == "Falling behind at priority 5: 120 wait, the oldest 1 min, and 20 more a minute come than go."


def test_rates_that_no_scheduler_counts_are_not_told() -> None:
    end(100)
    roll_up(NOW + 15 * SECOND)
    beat(NOW + 5 * MINUTE)
    found = verdict.reach(now=NOW + 5 * MINUTE)
    assert (found.in_per_minute, found.out_per_minute, found.text) == (None, None, "Nothing to do.")


def test_a_paused_priority_does_not_fall_behind() -> None:
    post(5, priority=7)
    beat(NOW + 5 * MINUTE)
    pauses.pause(7, now=NOW)
    assert verdict.reach(now=NOW + 5 * MINUTE).state == State.IDLE
    pauses.resume(7, now=NOW)
    assert verdict.reach(now=NOW + 5 * MINUTE).state == State.FALLING_BEHIND


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (40.4, "40 s"), (60, "1 min"), (250, "4 min"), (7300, "2 h"), (86_400, "1 day"), (200_000, "2 days")],
)
def test_a_length_of_time_is_told_as_people_say_it(seconds: float, text: str) -> None:
    assert length(seconds) == text


def needs(now: datetime | None = None) -> dict[str, attention.Need]:
    return {need.kind: need for need in attention.needs(now=now or datetime.now(UTC))}


def scan() -> None:
    schedulers.record_scan(now=datetime.now(UTC), seconds=0.1, lags=[], clock_offset=0.0)


def test_a_healthy_system_needs_nothing() -> None:
    beat(datetime.now(UTC))
    scan()
    assert needs() == {}


def test_what_does_not_run_comes_first() -> None:
    pauses.pause(7, now=NOW)
    found = attention.needs(now=datetime.now(UTC))
    assert [(need.kind, need.severity) for need in found] == [
        ("scheduler", "error"),
        ("workers", "error"),
        ("paused_priority", "warning"),
    ]
    assert found[0].text == "No scheduler: none is running. No schedule fires."
    assert {asdict(need)["kind"] for need in found} <= set(attention.KINDS)


def test_a_silent_worker_and_a_wrong_clock_are_named() -> None:
    now = datetime.now(UTC)
    scan()
    beat(now - 10 * SECOND)
    beat(now, "b")
    schedulers.record_scan(now=now, seconds=0.1, lags=[], clock_offset=300.0)
    found = needs(now)
    assert found["worker"].text == "Worker 7 on b is silent for 10 s."
    assert found["worker"].target == Target("worker", "a")
    assert found["clocks"].text.startswith("Clocks are not as the database's: scheduler ")
    assert found.keys() == {"worker", "clocks"}


def test_failures_since_yesterday_are_counted() -> None:
    now = datetime.now(UTC)
    end(3, at=now - timedelta(hours=2), status=Status.ERROR)
    end(5, at=now - timedelta(hours=26), status=Status.ERROR)
    end(7, at=now - timedelta(hours=2))
    roll_up(now)
    need = needs()["failures"]
    assert (need.text, need.target) == ("3 tasks failed since yesterday.", Target("failures"))


def schedule(**values: Any) -> int:
    row = {"operation": "calculate", "params": {}, "priority": 5, "max_retries": 0, "anchor_at": NOW, "created_at": NOW}
    row |= {"times_scheduled": 0, "every_x_hours": 1} | values
    task_schedule_id: int = db.session.scalars(insert(TaskSchedule).returning(TaskSchedule.task_schedule_id), row).one()
    db.session.commit()
    return task_schedule_id


def test_late_schedules_are_counted() -> None:
    now = datetime.now(UTC)
    schedule(next_run_at=now - 5 * SECOND)
    schedule(next_run_at=now + MINUTE)
    late = schedule(next_run_at=now - timedelta(seconds=125))
    need = needs()["late"]
    assert (need.text, need.target) == ("1 schedule is late, by up to 2 min.", Target("schedule", str(late)))
    schedule(next_run_at=now - MINUTE)
    need = needs()["late"]
    assert (need.text, need.target) == ("2 schedules are late, by up to 2 min.", Target("schedules"))
    assert need.since == now - timedelta(seconds=125)


def test_a_schedule_that_a_failure_paused_is_named_until_it_is_resumed() -> None:
    paused = schedule(pause_on_failure=True, next_run_at=NOW)
    schedule(pause_on_failure=True, paused=True, pause_note="moving house")
    [task_id] = end(status=Status.STARTED, finished_at=None, task_schedule_id=paused, worker_id="a")
    attempt = attempts.Attempt(task_id, 1, 1, 0, "calculate", {})
    assert attempts.fail(attempt, RuntimeError("no"), now=NOW)
    need = needs()["paused_schedule"]
    assert need.text == "1 schedule is paused, because a task failed."
    assert need.target == Target("schedule", str(paused))
    db.session.execute(update(TaskSchedule).values(paused=False))
    assert "paused_schedule" not in needs()


def test_a_paused_priority_is_named_with_its_note_and_what_waits() -> None:
    post(1200, priority=7)
    pauses.pause(7, note="the partner's API is down", now=NOW)
    need = needs()["paused_priority"]
    assert need.text == "Priority 7 is paused: “the partner's API is down”. 1,200 tasks wait there."
    assert (need.target, need.since) == (Target("priority", "7"), NOW)


def test_a_broken_database_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = dict.fromkeys(health.PARTS, "ok")
    for outcome, kind, text in (
        ("is read-only", "database", "The database is read-only."),
        ("the disk is full; nothing can be stored", "disk", "The disk is full; nothing can be stored."),
        ("does not answer within 0.7 s", "database", "The database does not answer within 0.7 s."),
    ):
        monkeypatch.setattr(health, "checks", lambda outcome=outcome: parts | {"database": outcome})
        assert {need.text for need in needs().values()} == {text}
        assert list(needs()) == [kind]


def close() -> None:
    db.session.remove()
    for engine in db.engines.values():
        engine.dispose()


@pytest.fixture
def away(environ: dict[str, str], own_valkey: Valkey) -> Iterator[Flask]:
    """An application whose Redis is gone."""
    app = create_web_app(Settings.from_env(environ | {"REDIS_URL": own_valkey.url}))
    own_valkey.kill()
    with app.app_context():
        yield app
        for probe in app.extensions["backbeat.probes"].values():
            probe.outcome()
        close()


def test_without_redis_it_says_so_and_tells_what_the_database_knows(away: Flask) -> None:
    end(2, status=Status.STARTED, finished_at=None)
    found = verdict.reach(now=NOW)
    assert (found.state, found.running, found.waiting) == (State.UNKNOWN, 2, None)
    assert found.text == "Redis does not answer: running tasks go on, and no others begin."
    pauses.pause(7, now=NOW)
    answer = away.test_client().get("/attention/")
    assert answer.status_code == 200
    assert [need["kind"] for need in answer.json["needs"]] == ["redis", "scheduler", "workers", "paused_priority"]
    assert answer.json["needs"][-1]["text"] == "Priority 7 is paused."


def test_it_is_computed_once_in_two_seconds_however_many_ask(app: Flask, client: FlaskClient) -> None:
    first = client.get("/attention/").json
    asked: list[str] = []

    def note(*arguments: Any) -> None:
        asked.append(arguments[2])

    event.listen(db.engine, "before_cursor_execute", note)
    assert client.get("/attention/").json == first
    assert asked == []


def test_a_scan_interval_is_given_to_schedules_before_they_are_late(environ: dict[str, str]) -> None:
    now = datetime.now(UTC)
    schedule(next_run_at=now - 30 * SECOND)
    assert schedulers.late(now=now)
    assert settings.scan_interval == 1
    with create_web_app(Settings.from_env(environ | {"BACKBEAT_SCAN_INTERVAL": "60"})).app_context():
        assert not schedulers.late(now=now)
        close()
    assert db.session.query(Scheduler).count() == 0
