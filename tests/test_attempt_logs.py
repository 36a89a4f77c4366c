"""What operations log can be read attempt by attempt, also while they run and after their worker was killed."""

import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import urllib3
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import Page, expect
from sqlalchemy import func, select

from scheduler_app.extensions import db
from scheduler_app.models import TaskLog
from scheduler_app.services import attempt_logs, retention
from scheduler_app.services.attempt_logs import HEAD, TAIL, Chunk, Place
from scheduler_app.worker import attempt_log
from scheduler_app.worker.attempt_log import LONGEST_LINE, AttemptLog
from tests.support import trial_operations  # noqa: F401 (registers them)
from tests.support.browser import Watch
from tests.support.processes import Process, eventually
from tests.support.tasks import finished, get, submit

OPERATIONS = "actors,tests.support.trial_operations"
STAMP = r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"

Start = Callable[..., Process]


@pytest.fixture
def trial(worker: Start) -> Start:
    return lambda **extra: worker(BACKBEAT_OPERATIONS=OPERATIONS, **extra)


def log(client: FlaskClient, task_id: int, **query: Any) -> dict[str, Any]:
    answer = client.get(f"/tasks/{task_id}/logs/", query_string=query)
    assert answer.status_code == 200, answer.json
    return answer.json


def texts(client: FlaskClient, task_id: int, **query: Any) -> list[str]:
    return [line["text"] for line in log(client, task_id, **query)["lines"]]


def said(lines: list[str]) -> list[str]:
    """Without when, how bad and by which logger."""
    return [re.sub(rf"^{STAMP} (\w+ \w+: )?", "", line) for line in lines]


def test_what_an_operation_logs_is_kept_and_nothing_else(client: FlaskClient, trial: Start) -> None:
    trial()
    [task_id] = submit(client, {"operation": "trial.choir"})
    finished(client, [task_id])
    eventually(lambda: texts(client, task_id))
    lines = texts(client, task_id)
    assert said(lines) == ["one", "two", "copied", "by hand \N{REPLACEMENT CHARACTER} ?"]
    assert re.fullmatch(rf"{STAMP} WARNING choir: one", lines[0])
    found = log(client, task_id)
    assert (found["attempts"], found["attempt"], found["complete"]) == ([1], 1, True)
    assert [line["number"] for line in found["lines"]] == [1, 2, 3, 4]


def test_it_can_be_read_while_the_attempt_runs_and_after_its_worker_was_killed(
    client: FlaskClient, trial: Start
) -> None:
    process = trial()
    [task_id] = submit(client, {"operation": "trial.talk", "params": {"then": "wait"}})
    eventually(lambda: len(texts(client, task_id)) == 3)
    assert log(client, task_id)["complete"] is False
    process.kill()
    assert said(texts(client, task_id)) == ["line 1", "line 2", "line 3"]
    assert said(texts(client, task_id, after=2)) == ["line 3"]
    assert texts(client, task_id, after=3) == []


def test_each_attempt_has_a_log_of_its_own(client: FlaskClient, trial: Start, scheduler: Start) -> None:
    trial()
    scheduler(BACKBEAT_SCAN_INTERVAL="0.1")
    retry = {"min_seconds": 1, "max_seconds": 1, "factor": 1}
    body = {"operation": "trial.talk", "params": {"lines": 1, "then": "fail"}, "max_retries": 1, "retry": retry}
    [task_id] = submit(client, body)
    finished(client, [task_id])
    eventually(lambda: log(client, task_id)["attempts"] == [1, 2])
    assert log(client, task_id)["attempt"] == 2
    first, second = texts(client, task_id, attempt=1), texts(client, task_id, attempt=2)
    assert said(first) == said(second) == ["line 1"]
    assert first < second
    unknown = log(client, task_id, attempt=3)
    assert (unknown["attempt"], unknown["lines"]) == (3, [])


def test_an_operation_says_what_is_kept(client: FlaskClient, trial: Start) -> None:
    process = trial()
    asked = [(name, then) for name in ("trial.talk", "trial.whisper", "trial.mute") for then in ("", "fail")]
    ids = submit(client, *({"operation": name, "params": {"then": then}} for name, then in asked))
    finished(client, ids)
    assert process.stop() == 0  # it writes what it still has
    kept = {asked[number]: len(texts(client, task_id)) for number, task_id in enumerate(ids)}
    assert kept == {
        ("trial.talk", ""): 3,
        ("trial.talk", "fail"): 3,
        ("trial.whisper", ""): 0,
        ("trial.whisper", "fail"): 3,
        ("trial.mute", ""): 0,
        ("trial.mute", "fail"): 0,
    }


def test_of_a_long_log_the_first_and_the_last_lines_are_kept(client: FlaskClient, trial: Start) -> None:
    trial()
    [task_id] = submit(client, {"operation": "trial.talk", "params": {"lines": 20_000, "length": 50}})
    finished(client, [task_id])
    eventually(lambda: said(texts(client, task_id))[-1:] == [f"line 20000 {'x' * 50}"])
    lines = log(client, task_id)["lines"]
    [gap] = [line for line in lines if line["left_out"]]
    place = lines.index(gap)
    assert gap["text"] == f"{gap['left_out']:,} lines left out"
    assert [line["number"] for line in lines[: place + 1]] == list(range(1, place + 2))
    assert lines[place + 1]["number"] == gap["number"] + gap["left_out"]
    head, tail = (sum(len(line["text"]) + 1 for line in part) for part in (lines[:place], lines[place + 1 :]))
    assert HEAD - 200 < head <= HEAD
    assert TAIL <= tail < TAIL + 2 * attempt_log.CHUNK
    assert client.get(f"/tasks/{task_id}/logs/?after={lines[-2]['number']}").json["lines"] == lines[-1:]


def test_memory_holds_no_more_than_the_table_would() -> None:
    log = AttemptLog(Place(1, 1, 1), waits=True)
    for number in range(50_000):
        log.add(f"line {number} " + "x" * 100)
    log.add("y" * 100_000)
    chunks, gone = log.take()
    assert gone == []
    size = sum(len(chunk.text) + 1 for chunk in chunks)
    assert HEAD + TAIL - 200 <= size <= HEAD + TAIL + LONGEST_LINE
    assert all(len(chunk.text) <= attempt_log.CHUNK for chunk in chunks)
    assert sum(chunk.lines for chunk in chunks) < 5_000
    assert chunks[-1].text.endswith("y" * LONGEST_LINE)


def test_what_the_table_holds_of_a_log_that_goes_on_is_bounded(client: FlaskClient) -> None:
    [task_id] = submit(client, {"operation": "4+7", "run_at": "2999-01-01T00:00:00Z"})
    long = AttemptLog(Place(task_id, 1, 1), waits=True)
    with client.application.app_context():
        for part in range(100):
            for number in range(100):
                long.add(f"{part} {number} " + "x" * 100)
            attempt_logs.write(*long.take(), now=datetime.now(UTC))
        stored = db.session.scalar(select(func.sum(func.length(TaskLog.text))))
    assert HEAD + TAIL - 20_000 < stored < HEAD + TAIL + 2 * attempt_log.CHUNK
    lines = texts(client, task_id)
    assert lines[0].startswith("0 0 ")
    assert lines[-1].startswith("99 99 ")
    assert sum("left out" in line for line in lines) == 1


@pytest.mark.usefixtures("context")
def test_a_chunk_that_is_written_again_or_whose_task_is_gone_changes_nothing(client: FlaskClient) -> None:
    [task_id] = submit(client, {"operation": "4+7", "run_at": "2999-01-01T00:00:00Z"})
    chunks = [Chunk(task_id, 1, 1, 1, 1, 2, "a\nb"), Chunk(task_id + 1, 1, 1, 1, 1, 1, "of nobody")]
    for _ in range(2):
        attempt_logs.write(chunks, [], now=datetime.now(UTC))
    assert texts(client, task_id) == ["a", "b"]
    assert client.get(f"/tasks/{task_id + 1}/logs/").status_code == 404
    client.delete(f"/tasks/{task_id}/")
    assert db.session.scalar(select(func.count(TaskLog.chunk))) == 0


@pytest.mark.usefixtures("context")
def test_a_log_is_kept_for_its_days(client: FlaskClient) -> None:
    [task_id] = submit(client, {"operation": "4+7", "run_at": "2999-01-01T00:00:00Z"})
    now = datetime(2040, 6, 1, tzinfo=UTC)
    for age, number in ((8, 1), (6, 2)):
        chunk = Chunk(task_id, 1, 1, number, number, 1, f"{age} days old")
        attempt_logs.write([chunk], [], now=now - timedelta(days=age))
    retention.prune(now=now)
    assert texts(client, task_id) == ["1 line left out", "6 days old"]


def test_an_operation_that_logs_nothing_leaves_nothing(client: FlaskClient, trial: Start, app: Flask) -> None:
    trial()
    finished(client, submit(client, *[{"operation": "4+7"}] * 20))
    with app.app_context():
        assert db.session.scalar(select(func.count(TaskLog.chunk))) == 0


def test_one_can_follow_a_log_as_it_comes(client: FlaskClient, trial: Start, site: str) -> None:
    trial()
    [task_id] = submit(client, {"operation": "trial.talk", "params": {"then": "wait"}})
    answer = urllib3.request(
        "GET", f"{site}/tasks/{task_id}/logs/?follow=true", preload_content=False, timeout=30, retries=False
    )
    lines = answer.stream(1)
    came = b""
    while came.count(b"\n") < 3:
        came += next(lines)
    assert said(came.decode().splitlines()) == ["line 1", "line 2", "line 3"]
    assert get(client, task_id)["status"] == "STARTED"
    client.post(f"/tasks/{task_id}/cancel/")
    rest = threading.Thread(target=lambda: list(lines))
    rest.start()
    rest.join(30)
    assert not rest.is_alive()  # it has ended with the task
    assert answer.headers["Content-Type"].startswith("text/plain")


def test_a_log_that_is_complete_is_followed_to_its_end_at_once(client: FlaskClient, trial: Start) -> None:
    trial()
    [task_id] = submit(client, {"operation": "trial.talk"})
    finished(client, [task_id])
    eventually(lambda: texts(client, task_id))
    answer = client.get(f"/tasks/{task_id}/logs/?follow=true&after=1")
    assert said(answer.text.splitlines()) == ["line 2", "line 3"]


@pytest.fixture
def shown(client: FlaskClient, trial: Start) -> int:
    """A task that has logged, and runs."""
    trial()
    [task_id] = submit(client, {"operation": "trial.talk", "params": {"lines": 250, "then": "wait"}})
    eventually(lambda: len(texts(client, task_id)) == 250)
    return task_id


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_page_of_the_task_shows_the_last_lines_and_leads_to_all(
    page: Page, site: str, watch: Watch, shown: int
) -> None:
    page.goto(f"{site}/dashboard/tasks/{shown}")
    lines = page.locator("#log-lines")
    expect(lines).to_contain_text("line 250")
    expect(lines).not_to_contain_text("line 50\n")
    expect(page.get_by_text("the last 200 lines")).to_be_visible()
    link = page.get_by_role("link", name="all of attempt 1")
    every = page.request.get(f"{site}{link.get_attribute('href')}")
    assert said(every.text().splitlines()) == [f"line {number}" for number in range(1, 251)]
    assert page.request.get(f"{site}/dashboard/tasks/{shown}/log?claim=9").status == 422
