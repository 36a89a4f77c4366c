"""Clocks that are wrong, or are set while the system runs: the database's clock alone counts."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import urllib3
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event, func, select, update

from scheduler_app.database import DIRECT, DatabaseClock
from scheduler_app.extensions import db
from scheduler_app.models import Failure, Scheduler, Status, Task, Worker
from scheduler_app.services import tasks
from tests.support.faketime import WrongClock, needed
from tests.support.processes import Process, eventually, free_port
from tests.support.schedules import HOUR, create, look
from tests.support.system import WEB, WEB_READY

Start = Callable[..., Process]

MONTH = 30 * 24 * 3600.0  # seconds

on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


@dataclass
class Machine:
    """Its clocks, as the process reads them."""

    ahead: float = 0.0  # seconds that its wall clock is ahead of the real time
    asleep: float = 0.0  # seconds for which its monotonic clock has not counted

    def clock(self) -> DatabaseClock:
        return DatabaseClock(
            db.engines[DIRECT],
            wall=lambda: time.time() + self.ahead,
            monotonic=lambda: time.monotonic() - self.asleep,
        )


@pytest.fixture
def machine(app: Flask) -> Iterator[Machine]:
    with app.app_context():
        yield Machine()


@pytest.fixture
def asked(machine: Machine) -> list[str]:
    """The statements that go to the database, as they go."""
    statements: list[str] = []
    event.listen(db.engines[DIRECT], "before_cursor_execute", lambda *args: statements.append(args[2]))
    return statements


def is_right(clock: DatabaseClock) -> bool:
    """Whether it gives the real time, as exactly as the database's answer can tell; it is asked now."""
    began = datetime.now(UTC)
    told = clock.now()
    ended = datetime.now(UTC)
    return abs(told - ended) <= ended - began + timedelta(milliseconds=1)


@on_postgresql
@pytest.mark.parametrize("ahead", [-10.0, 300.0, MONTH])
def test_the_time_is_the_databases_whatever_this_machines_clock_says(machine: Machine, ahead: float) -> None:
    machine.ahead = ahead
    clock = machine.clock()
    assert is_right(clock)
    assert clock.offset() == pytest.approx(ahead, abs=1)


@on_postgresql
def test_a_thousand_looks_ask_the_database_once(machine: Machine, asked: list[str]) -> None:
    clock = machine.clock()
    with ThreadPoolExecutor(8) as threads:
        clock.now()
        times = list(threads.map(lambda _: clock.now(), range(1000)))
    assert len(asked) == 1
    assert max(times) - min(times) < timedelta(seconds=5)


@on_postgresql
def test_the_time_never_runs_backwards_when_it_is_measured_again(machine: Machine, asked: list[str]) -> None:
    clock = machine.clock()
    before = clock.now()
    for number in range(200):
        clock._next_measure = 0.0
        assert before < (before := clock.now())
        assert len(asked) == number + 2


@on_postgresql
@pytest.mark.parametrize("moment", ["before_cursor_execute", "after_cursor_execute"])
def test_neither_does_it_when_the_first_answer_took_long(machine: Machine, moment: str) -> None:
    clock = machine.clock()
    event.listen(db.engines[DIRECT], moment, lambda *_: time.sleep(0.5), once=True)
    before = clock.now()
    clock._next_measure = 0.0
    assert before < clock.now()


@on_postgresql
def test_a_machine_that_slept_measures_at_once(machine: Machine) -> None:
    clock = machine.clock()
    assert is_right(clock)
    machine.asleep = 60
    assert is_right(clock)


@on_postgresql
def test_a_step_of_this_machines_clock_is_told_once_when_it_begins_and_once_when_it_ends(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    clock = machine.clock()
    for machine.ahead in (0.0, 60.0, 61.0, 62.0, 0.0, 1.0):
        assert clock.offset() == pytest.approx(machine.ahead, abs=1)
    assert [record.message for record in caplog.records] == [
        "this machine's clock is 60 s ahead of the database's; the database's counts",
        "this machine's clock agrees with the database's again",
    ]


@pytest.fixture
def wrong_clock(tmp_path: Path) -> WrongClock:
    return WrongClock(tmp_path)


@pytest.fixture
def web(start: Start) -> Callable[..., str]:
    """Starts a web process; gives its address."""

    def web(**extra: str) -> str:
        port = free_port()
        start(*WEB, ready=WEB_READY, PORT=str(port), **extra)
        return f"http://127.0.0.1:{port}"

    return web


def post(count: int, **request: object) -> list[int]:
    work = {"operation": "calculate", "params": {"expression": "1+1"}, "priority": 5, "max_retries": 5}
    posted = tasks.submit([work | request] * count, now=datetime.now(UTC))
    return [task.task_id for task in posted]


def counts() -> dict[str, int]:
    db.session.rollback()
    query = select(Task.status, func.count()).group_by(Task.status)
    return dict(db.session.execute(query).all())


def now_or_before(moment: datetime | None) -> bool:
    return moment is not None and abs(datetime.now(UTC) - moment) < timedelta(seconds=60)


@needed
@on_postgresql
@pytest.mark.usefixtures("context")
@pytest.mark.parametrize("ahead", [-10.0, 300.0])
def test_what_a_worker_with_a_wrong_clock_runs_succeeds_at_its_first_attempt(
    worker: Start, wrong_clock: WrongClock, ahead: float
) -> None:
    wrong_clock.set(ahead)
    worker(**wrong_clock.environ)
    began = datetime.now(UTC)
    post(3_000)
    eventually(lambda: counts() == {Status.SUCCESS: 3_000}, within=180)
    query = select(func.min(Task.started_at), func.max(Task.finished_at), func.max(Task.attempts))
    first, last, most_attempts = db.session.execute(query).one()
    second = timedelta(seconds=1)  # that a measure of the database's clock may be off on a busy machine
    assert began - second <= first <= last <= datetime.now(UTC) + second
    assert most_attempts == 1
    assert db.session.scalar(select(func.count()).select_from(Failure)) == 0


@needed
@on_postgresql
@pytest.mark.usefixtures("context")
@pytest.mark.parametrize("ahead", [-300.0, 300.0])
def test_the_task_of_a_killed_worker_with_a_wrong_clock_is_rescued_as_any_other(
    worker: Start, scheduler: Start, wrong_clock: WrongClock, ahead: float
) -> None:
    wrong_clock.set(ahead)
    scheduler()
    killed = worker(BACKBEAT_OPERATIONS="actors,tests.support.trial_operations", **wrong_clock.environ)
    post(1, operation="trial.wait", params={"seconds": 600})
    eventually(lambda: counts() == {Status.STARTED: 1})
    killed.kill()
    eventually(lambda: counts() == {Status.RETRYING: 1}, within=20)


@needed
@on_postgresql
@pytest.mark.usefixtures("context")
def test_a_scheduler_a_month_ahead_deletes_nothing_and_fires_nothing_early(
    scheduler: Start, wrong_clock: WrongClock
) -> None:
    [finished] = post(1)
    minute_ago = datetime.now(UTC) - timedelta(minutes=1)
    db.session.execute(update(Task).values(status=Status.SUCCESS, finished_at=minute_ago))
    db.session.commit()
    in_an_hour = datetime.now(UTC).replace(microsecond=0) + HOUR
    schedule_id = create(every_x_hours=1, start_at=in_an_hour, now=datetime.now(UTC))
    wrong_clock.set(MONTH)
    scheduler(**wrong_clock.environ)
    watch_scans(6)
    assert tasks.get(finished).status == Status.SUCCESS
    schedule = look(schedule_id)
    assert (schedule.next_run_at, schedule.times_scheduled, schedule.missed) == (in_an_hour, 0, 0)
    assert now_or_before(db.session.scalar(select(Scheduler.scanned_at)))


def watch_scans(count: int) -> float:
    """Waits for so many scans; the longest time between two of them, in seconds."""
    longest, before = 0.0, latest_scan()
    for _ in range(count):
        began = time.monotonic()
        before = eventually(lambda before=before: later_scan(before))  # type: ignore[misc]
        longest = max(longest, time.monotonic() - began)
    return longest


def later_scan(before: datetime | None) -> datetime | None:
    latest = latest_scan()
    return latest if latest != before else None


def latest_scan() -> datetime | None:
    db.session.rollback()
    return db.session.scalar(select(Scheduler.scanned_at))


INTERVAL = 3.0  # seconds between the scans of a scheduler whose clock is set


@needed
@pytest.mark.usefixtures("context")
def test_no_scan_comes_late_when_the_clock_of_a_scheduler_is_set(scheduler: Start, wrong_clock: WrongClock) -> None:
    process = scheduler(BACKBEAT_SCAN_INTERVAL=f"{INTERVAL:g}", **wrong_clock.environ)
    watch_scans(2)
    for ahead in (-60.0, MONTH, 0.0):
        wrong_clock.set(ahead)
        assert watch_scans(2) < 2 * INTERVAL
    assert process.output.count("clock was set by") == 3


@needed
@on_postgresql
def test_a_web_process_with_a_wrong_clock_stamps_tasks_by_the_databases(
    web: Callable[..., str], worker: Start, wrong_clock: WrongClock
) -> None:
    wrong_clock.set(3600)
    worker()
    url = web(**wrong_clock.environ)
    task = urllib3.request("POST", f"{url}/tasks/", json={"operation": "4+7"}, timeout=30).json()
    assert now_or_before(datetime.fromisoformat(task["created_at"]))
    assert now_or_before(datetime.fromisoformat(task["run_at"]))
    eventually(lambda: urllib3.request("GET", f"{url}/tasks/{task['task_id']}/").json()["status"] == "SUCCESS")


@needed
@on_postgresql
def test_wrong_clocks_show_in_readiness_metrics_and_logs_until_they_are_right(
    web: Callable[..., str], worker: Start, scheduler: Start, wrong_clock: WrongClock
) -> None:
    wrong_clock.set(-40)
    processes = [worker(**wrong_clock.environ), scheduler(**wrong_clock.environ)]
    url = web(**wrong_clock.environ)

    def readiness() -> tuple[int, str, str]:
        answer = urllib3.request("GET", f"{url}/readyz", timeout=30)
        return answer.status, answer.json()["status"], answer.json()["checks"]["clocks"]

    def all_are_behind() -> bool:
        status, state, clocks = readiness()
        return (status, state, clocks.count("is 40 s behind")) == (200, "degraded", 3)

    eventually(all_are_behind, within=60)
    assert offsets(url) == {"web": -40, "worker": -40, "scheduler": -40}
    [shown] = urllib3.request("GET", f"{url}/workers/").json()
    assert round(shown["clock_offset"]) == -40
    wrong_clock.set(0)
    eventually(lambda: readiness() == (200, "ok", "ok"), within=60)
    assert offsets(url) == {"web": 0, "worker": 0, "scheduler": 0}
    for process in processes:
        assert process.output.count("this machine's clock is 40 s behind the database's") == 1
        assert process.output.count("this machine's clock agrees with the database's again") == 1


def offsets(url: str) -> dict[str, int]:
    """In whole seconds, by kind of process."""
    lines = urllib3.request("GET", f"{url}/metrics").data.decode().splitlines()
    found = [line for line in lines if line.startswith("backbeat_clock_offset_seconds{")]
    return {line.split('kind="')[1].split('"')[0]: round(float(line.split()[-1])) for line in found}


def test_one_machine_needs_no_comparison(client: FlaskClient) -> None:
    assert client.get("/readyz").json["checks"]["clocks"] == "ok"


@on_postgresql
@pytest.mark.usefixtures("context")
def test_a_worker_of_an_earlier_release_says_nothing_of_its_clock(client: FlaskClient) -> None:
    now = datetime.now(UTC)
    db.session.add(Worker(worker_id="old", host="h", pid=1, threads=1, queues=[], started_at=now, seen_at=now))
    db.session.commit()
    eventually(lambda: client.get("/readyz").json["checks"]["clocks"] == "ok")
    assert client.get("/workers/").json[0]["clock_offset"] is None
    assert client.get("/metrics").status_code == 200
