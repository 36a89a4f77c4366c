"""The overview: the first start, and the answer to whether it keeps up."""

from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import Page, expect

from scheduler_app.dashboard import charts
from tests.support.browser import Watch
from tests.support.pages import OURS
from tests.support.processes import Process
from tests.support.servers import Valkey
from tests.support.tasks import submit

browsers = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # one kind is enough here


def test_an_empty_install_shows_what_is_there_and_what_is_missing(client: FlaskClient) -> None:
    text = client.get("/dashboard/").text
    assert "Give it something to do" in text
    assert "curl http://localhost/tasks/" in text
    assert text.count("not seen yet") == 2


def test_the_overview_shows_with_tasks(app: Flask, client: FlaskClient) -> None:
    submit(client, *[{"operation": "4+7"}] * 3)
    for period in ("", "hour", "day", "month", "year"):
        answer = client.get("/dashboard/", query_string={"period": period})
        assert answer.status_code == 200
        assert "Needs attention" in answer.text
        assert "No worker runs: 3 wait." in answer.text


def test_without_redis_the_pages_say_so_and_show_what_the_database_knows(
    another: Callable[..., Flask], own_valkey: Valkey
) -> None:
    client = another(REDIS_URL=own_valkey.url).test_client()
    ids = submit(client, *[{"operation": "4+7"}] * 3)
    own_valkey.kill()
    text = client.get("/dashboard/").text
    assert "Redis does not answer: running tasks go on, and no others begin." in text
    assert "Tasks a minute" in text
    assert "PENDING" in client.get("/dashboard/tasks").text
    assert "Redis does not answer" in client.get(f"/dashboard/tasks/{ids[0]}").text


def test_an_axis_ends_at_a_number_that_is_good_to_read() -> None:
    assert [charts.nice(value) for value in (0, 0.7, 1, 7, 212, 640, 1010)] == [1, 0.8, 1, 8, 250, 800, 2000]
    assert [charts.parts(top) for top in (1, 250, 300, 0.8)] == [2, 5, 3, 4]


def test_an_axis_of_durations_is_short_to_read() -> None:
    def ends(seconds: float) -> list[str]:
        slices = [{"waiting_p50": 0.001, "waiting_p95": seconds}] * 2
        return charts.pair(slices, "waiting")["ys"]

    assert [ends(seconds)[0] for seconds in (0.0004, 0.03, 0.95, 1.2, 2270, 9000)] == [
        "0.4 ms",
        "30 ms",
        "1 s",
        "2 s",
        "40 min",
        "2.5 h",
    ]


def test_a_line_begins_anew_after_a_gap() -> None:
    assert charts.line([1, 2, None, 4], 4, step=10, height=4) == "M0.0 3.0L10.0 2.0M30.0 0.0h.1"
    assert charts.area([2, 2], [0, 1], 2, step=10, height=2) == "M0.0 0.0L10.0 0.0L10.0 1.0L0.0 2.0Z"


@browsers
def test_open_an_empty_install_and_run_the_first_task(
    app: Flask, page: Page, site: str, watch: Watch, worker: Callable[..., Process], scheduler: Callable[..., Process]
) -> None:
    worker()
    scheduler()
    page.goto(f"{site}/")
    expect(page.locator(".steps .success")).to_have_count(4, timeout=15_000)
    page.get_by_role("button", name="Run 4+7").click()
    expect(page.locator("#first output")).to_have_text("4+7 = 11", timeout=15_000)
    expect(page.get_by_role("heading", name="4+7 is 11. Backbeat works.")).to_be_visible()


def test_a_first_task_that_has_a_posted_form_is_refused_from_elsewhere(client: FlaskClient) -> None:
    assert client.post("/dashboard/first-task").status_code == 403
    assert client.post("/dashboard/first-task", headers=OURS).location == "/dashboard/"
