"""Where a running attempt stands is shown to whoever asks, and nothing of what it works with."""

import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import urllib3
from flask.testing import FlaskClient
from playwright.sync_api import Page, expect
from sqlalchemy import event

from scheduler_app.extensions import db
from scheduler_app.services import stacks
from scheduler_app.worker import pulse
from scheduler_app.worker.interrupts import InterruptibleCall
from scheduler_app.worker.running import registered
from scheduler_app.worker.stacks import located, taken
from tests.support import trial_operations  # noqa: F401 (registers them)
from tests.support.browser import Watch
from tests.support.claims import claim
from tests.support.processes import Process, eventually, free_port
from tests.support.system import WEB, WEB_READY
from tests.support.tasks import get, submit

OPERATIONS = "actors,tests.support.trial_operations"
MARKER = "xyzzy-4711"

Start = Callable[..., Process]


@pytest.fixture
def diving(client: FlaskClient, worker: Start) -> Callable[..., int]:
    """Starts a task that waits, so many calls deep; returns its id."""
    worker(BACKBEAT_OPERATIONS=OPERATIONS)

    def diving(depth: int = 2) -> int:
        [task_id] = submit(client, {"operation": "trial.dive", "params": {"depth": depth, "password": MARKER}})
        eventually(lambda: get(client, task_id)["status"] == "STARTED")
        return task_id

    return diving


def stack(client: FlaskClient, task_id: int, *, status: int = 200) -> Any:
    answer = client.get(f"/tasks/{task_id}/stack/")
    assert answer.status_code == status, answer.json
    return answer.json


def standing(client: FlaskClient, task_id: int) -> Any:
    """Once the operation has come to where it waits."""
    return eventually(lambda: "ask" in functions(found := stack(client, task_id)) and found)


def functions(stack: Any) -> list[str]:
    return [frame["function"] for frame in stack["frames"]]


def test_a_running_task_shows_its_lines_and_no_value(client: FlaskClient, diving: Callable[..., int]) -> None:
    found = standing(client, task_id := diving())
    assert functions(found)[:4] == ["dive", "dive", "dive", "ask"]
    assert (found["attempt"], found["left_out"]) == (1, 0)
    first = found["frames"][0]
    assert first["file"] == "tests/support/trial_operations.py"
    assert (first["code"], first["library"]) == ("dive(depth - 1, password)", None)
    assert {frame["library"] for frame in found["frames"][4:]} <= {"threading"}
    assert MARKER not in json.dumps(found)
    began = time.monotonic()
    assert stack(client, task_id)["taken_at"] > found["taken_at"]
    assert time.monotonic() - began < 2


def test_two_web_processes_that_ask_at_once_are_both_answered(
    client: FlaskClient, diving: Callable[..., int], start: Start
) -> None:
    ports = [free_port(), free_port()]
    for port in ports:
        start(*WEB, ready=WEB_READY, PORT=str(port), REDIS_URL="redis://127.0.0.1:1/0")
    standing(client, task_id := diving())
    answers: list[Any] = []

    def ask(port: int) -> None:
        answers.append(urllib3.request("GET", f"http://127.0.0.1:{port}/tasks/{task_id}/stack/", timeout=10))

    threads = [threading.Thread(target=ask, args=(port,)) for port in ports * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Their Redis is away, which does not matter.
    assert [answer.status for answer in answers] == [200] * 6
    assert all("ask" in functions(answer.json()) for answer in answers)


def test_a_very_deep_stack_is_cut_in_the_middle(client: FlaskClient, diving: Callable[..., int]) -> None:
    found = standing(client, diving(300))
    assert len(found["frames"]) == stacks.OUTERMOST + stacks.INNERMOST
    assert 301 <= found["left_out"] + 100 <= 310
    assert functions(found)[0] == "dive"


def test_a_task_that_does_not_run_has_none(client: FlaskClient) -> None:
    [task_id] = submit(client, {"operation": "4+7", "run_at": "2999-01-01T00:00:00Z"})
    answer = stack(client, task_id, status=409)
    assert answer["message"] == f"Task {task_id} is PENDING; only a task that runs has a stack."
    stack(client, task_id + 1, status=404)


@pytest.mark.usefixtures("context")
def test_one_whose_worker_does_not_answer_says_so_within_a_moment(client: FlaskClient) -> None:
    [task_id] = submit(client, {"operation": "4+7"})
    assert claim(task_id, 0, worker_id="lost", now=datetime.now(UTC))
    began = time.monotonic()
    answer = client.get(f"/tasks/{task_id}/stack/")
    assert 2 <= time.monotonic() - began < 4
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert answer.json["message"].startswith(f"The worker of task {task_id} has not answered within 2 s")


@pytest.mark.usefixtures("context")
def test_one_that_ends_while_somebody_waits_says_so(client: FlaskClient) -> None:
    [task_id] = submit(client, {"operation": "4+7"})
    attempt = claim(task_id, 0, worker_id="here", now=datetime.now(UTC))
    number = stacks.ask(task_id, now=datetime.now(UTC))
    assert attempt
    assert stacks.answer_to(task_id, number) is None
    db.session.execute(db.text("UPDATE task SET status = 'SUCCESS'"))
    with pytest.raises(stacks.WrongState, match="is SUCCESS"):
        stacks.answer_to(task_id, number)
    db.session.rollback()


@pytest.mark.usefixtures("context")
def test_a_worker_that_nobody_asks_makes_no_statement_more(client: FlaskClient) -> None:
    [task_id] = submit(client, {"operation": "4+7"})
    attempt = claim(task_id, 0, worker_id="here", now=datetime.now(UTC))
    assert attempt
    statements: list[str] = []
    event.listen(db.engine, "before_cursor_execute", lambda *call: statements.append(call[2].split()[0]))

    def attended() -> list[str]:
        del statements[:]
        pulse._attend()
        return [verb for verb in statements if not verb.startswith("BEGIN")]

    assert attended() == []  # nothing runs here
    with registered(attempt):
        assert attended() == ["SELECT"]  # as it always looked for cancellations
        stacks.ask(task_id, now=datetime.now(UTC))
        assert attended() == ["SELECT", "UPDATE"]
        assert attended() == ["SELECT"]
    found = stacks.latest(task_id)
    assert found
    assert found.frames == []  # its operation has not begun


def test_only_the_function_that_is_called_is_shown() -> None:
    call, begun, over = InterruptibleCall(), threading.Event(), threading.Event()

    def function() -> None:
        begun.set()
        over.wait(10)

    assert taken(call)["frames"] == []
    thread = threading.Thread(target=call.run, args=(function,), kwargs={"limit": 60})
    thread.start()
    begun.wait(10)
    # The outermost call is the worker's own, which hands the operation its arguments.
    assert all(frame["library"] == "threading" for frame in taken(call)["frames"])
    over.set()
    thread.join()
    assert taken(call) == {"frames": [], "left_out": 0}


def test_files_are_shown_without_the_folders_of_this_machine() -> None:
    assert located(urllib3.__file__) == ("urllib3/__init__.py", "urllib3")
    assert located(threading.__file__) == ("threading.py", "threading")
    assert located(json.__file__) == ("json/__init__.py", "json")
    assert located("<frozen importlib._bootstrap>") == ("<frozen importlib._bootstrap>", "importlib._bootstrap")
    assert located("/nowhere/shop/invoices.py") == ("shop/invoices.py", None)


def test_a_page_shows_where_a_task_stands(
    client: FlaskClient, diving: Callable[..., int], page: Page, site: str, watch: Watch
) -> None:
    standing(client, task_id := diving())
    page.goto(f"{site}/dashboard/tasks/{task_id}")
    page.get_by_role("button", name="Show where it stands").click()
    calls = page.get_by_role("region", name="Calls of attempt 1")
    expect(calls).to_contain_text("trial_operations.py")
    expect(calls).to_contain_text("ask()")
    assert MARKER not in calls.inner_text()
    client.post(f"/tasks/{task_id}/cancel/")
    eventually(lambda: get(client, task_id)["status"] == "CANCELLED")
    page.reload()
    expect(calls).to_have_count(0)
    expect(page.get_by_role("button", name="Show where it stands")).to_have_count(0)
