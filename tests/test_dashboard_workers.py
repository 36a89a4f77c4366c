"""The page of workers: who does what, and who is gone? A running task is cancelled from it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import Page, expect
from sqlalchemy import select, update

from scheduler_app.access_models import Scope
from scheduler_app.extensions import db
from scheduler_app.models import Status, Task
from scheduler_app.services import schedulers, workers
from tests.support.browser import Watch, inaccessible
from tests.support.pages import new_key, sign_in, signed_in
from tests.support.processes import Process, eventually
from tests.support.tasks import set_status, started, submit

browsers = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
TRIALS = "actors,tests.support.trial_operations"


@pytest.fixture
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | {"BACKBEAT_OPERATIONS": TRIALS}


def beat(app: Flask, *, ago: float = 0, clock_offset: float = 0.0, **values: Any) -> None:
    now = datetime.now(UTC) - timedelta(seconds=ago)
    row = {"worker_id": "a", "host": "printer", "pid": 4711, "threads": 4, "queues": ["tasks.p0"], "started_at": now}
    with app.app_context():
        workers.beat(row | values, clock_offset=clock_offset, now=now)


def run(app: Flask, client: FlaskClient, count: int = 1, **values: Any) -> list[int]:
    """Tasks that the worker `a` runs."""
    ids = submit(client, *[{"operation": "1+1"}] * count)
    set_status(client, ids, Status.STARTED)
    with app.app_context():
        values = {"worker_id": "a", "started_at": datetime.now(UTC)} | values
        db.session.execute(update(Task).where(Task.task_id.in_(ids)).values(**values))
        db.session.commit()
    return ids


def status(task_id: int) -> str | None:
    found = db.session.scalar(select(Task.status).where(Task.task_id == task_id))
    db.session.rollback()
    return found


def text(client: FlaskClient) -> str:
    answer = client.get("/dashboard/workers")
    assert answer.status_code == 200
    return answer.text


def test_without_processes_it_says_how_to_start_them(client: FlaskClient) -> None:
    found = text(client)
    assert "No worker runs." in found
    assert "No scheduler runs." in found
    assert "dramatiq actors.worker" in found


def test_a_worker_is_shown_with_what_it_runs_and_how_far_that_is(app: Flask, client: FlaskClient) -> None:
    beat(app)
    [task_id] = run(app, client, progress={"percent": 40.0, "message": "page <4>"})
    found = text(client)
    assert "1 of 4 threads are busy." in found
    assert "printer" in found
    assert "process 4711" in found
    assert "Takes priorities 0" in found
    assert f'<tr id="t-{task_id}">' in found
    assert "40 % page &lt;4&gt;" in found


def test_a_silent_worker_and_one_with_a_wrong_clock_are_marked(app: Flask, client: FlaskClient) -> None:
    beat(app, ago=10, clock_offset=-300)
    with app.app_context():
        now = datetime.now(UTC) - timedelta(minutes=2)
        schedulers.record_scan(now=now, seconds=0.1, lags=[timedelta(seconds=3)], clock_offset=0)
    found = text(client)
    assert "1 worker is silent." in found
    assert "its clock is 300 s behind" in found
    assert found.count(">silent<") == 2
    assert "3.0 s" in found


def test_a_key_sees_the_running_tasks_that_it_reaches(app: Flask, client: FlaskClient) -> None:
    beat(app)
    [task_id] = run(app, client)
    bound = signed_in(app, new_key(app, "shop", Scope.WRITE, "shop.*"))
    eventually(lambda: f'"t-{task_id}"' not in text(bound))  # for a moment the process believes that no key is needed


def test_no_more_than_fifty_tasks_of_a_worker_are_shown(app: Flask, client: FlaskClient) -> None:
    beat(app, threads=64)
    run(app, client, 60)
    assert text(client).count('<tr id="t-') == 50
    assert "The 50 that began first are shown." in text(client)


@browsers
def test_a_running_task_is_cancelled(
    app: Flask, client: FlaskClient, page: Page, site: str, watch: Watch, worker: Callable[..., Process]
) -> None:
    worker()
    [task_id] = submit(client, {"operation": "trial.ask"})
    started(client, task_id)
    sign_in(page, site, new_key(app, "ops", Scope.WRITE))
    page.get_by_role("link", name="Workers").first.click()
    row = page.locator(f"#t-{task_id}")
    expect(row).to_contain_text("trial.ask")
    row.get_by_role("link", name=f"Cancel task {task_id}").click()
    page.locator("summary", has_text="Cancel…").click()
    page.get_by_role("button", name="Ask it to stop").click()
    expect(page.get_by_role("status")).to_contain_text(f"Task {task_id} is asked to stop.")
    with app.app_context():
        eventually(lambda: status(task_id) == Status.CANCELLED)


@browsers
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_where_workers_run(
    app: Flask, client: FlaskClient, page: Page, site: str, watch: Watch, theme: str, width: int
) -> None:
    beat(app, ago=5, clock_offset=300)
    run(app, client, 3, progress={"percent": 40.0, "message": "page 4 of a very long book" * 9})
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(f"{site}/dashboard/workers")
    assert inaccessible(page) == ""
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
