"""The page of failures: what broke, and since when? And its causes are run again."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import Page, expect
from sqlalchemy import func, insert, select

from scheduler_app.access_models import Scope
from scheduler_app.dashboard import failures
from scheduler_app.extensions import db
from scheduler_app.models import Status, Task
from scheduler_app.services import causes
from tests.support.browser import Watch, inaccessible
from tests.support.pages import new_key, sign_in, signed_in
from tests.support.processes import Process, eventually
from tests.support.tasks import finished, submit

browsers = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)
HOSTILE = "<script>alert('x')</script> \u202eevil 17"


def fail(app: Flask, *ages: timedelta, message: str = "Order 17 is gone.", **columns: Any) -> None:
    """A failed task for each age."""
    row = {"operation": "shop.mail", "params": {}, "priority": 5, "max_retries": 0, "run_at": NOW, "created_at": NOW}
    row |= {"status": Status.ERROR, "error": {"type": "KeyError", "message": message}} | columns
    row["cause"] = causes.fingerprint(row["operation"], row["error"])
    with app.app_context():
        db.session.execute(insert(Task), [row | {"finished_at": NOW - age} for age in ages])
        db.session.commit()


def headline(client: FlaskClient, query: str = "") -> str:
    answer = client.get(f"/dashboard/failures{query}")
    assert answer.status_code == 200, answer.text
    found = re.search(r"<h2>(.*?)</h2>", answer.text)
    return found[1] if found else ""


def test_without_failures_it_says_so(client: FlaskClient) -> None:
    assert headline(client) == "Nothing has failed"


@pytest.mark.parametrize(
    ("ages", "others", "text"),
    [
        ([HOUR], [], "All failures have one cause."),
        ([HOUR / 60], [], "All failures have one cause, and it goes on."),
        ([HOUR] * 3, [[HOUR * 3]], "One cause makes 75 % of the failures."),
        ([HOUR], [[HOUR], [50 * HOUR]], "3 causes, 2 of them new since yesterday."),
        ([50 * HOUR], [[50 * HOUR], [50 * HOUR]], "3 causes, none new since yesterday."),
    ],
)
def test_the_headline_tells_what_matters_most(
    app: Flask, client: FlaskClient, ages: list[timedelta], others: list[list[timedelta]], text: str
) -> None:
    fail(app, *ages)
    for number, more in enumerate(others):
        fail(app, *more, message="x" * (number + 1))
    assert headline(client) == text


def test_each_cause_is_a_row_in_the_order_that_was_asked_for(app: Flask, client: FlaskClient) -> None:
    fail(app, 3 * HOUR, 2 * HOUR, 1 * HOUR, message="most")
    fail(app, HOUR / 2, 9 * HOUR, message="latest")
    fail(app, HOUR, message="newest")
    for order, first in (("most", "most"), ("latest", "latest"), ("newest", "newest"), ("wrong", "most")):
        found = re.findall(r'class="sub mono" title="(\w+)"', client.get(f"/dashboard/failures?order={order}").text)
        assert (found[0], sorted(found)) == (first, ["latest", "most", "newest"])


def test_what_a_task_failed_with_cannot_harm_the_page(app: Flask, client: FlaskClient) -> None:
    fail(app, HOUR, message=HOSTILE, operation="a<b>", error={"type": "<i>", "message": HOSTILE * 20})
    text = client.get("/dashboard/failures").text
    assert "<script>alert" not in text
    assert "&lt;i&gt;" in text
    assert text.count("alert") < 100


def test_many_causes_are_shown_from_page_to_page(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "SHOWN", 2)
    for letter in "abcde":
        fail(app, HOUR, message=letter)
    address, shown = "/dashboard/failures", []
    while address:
        text = client.get(address).text
        shown.append(re.findall(r'class="sub mono" title="(\w)"', text))
        found = re.search(r'href="([^"]+)">Older', text)
        address = found[1].replace("&amp;", "&") if found else ""
    assert [len(part) for part in shown] == [2, 2, 1]
    assert sorted(letter for part in shown for letter in part) == list("abcde")
    assert client.get("/dashboard/failures?from=-9").status_code == 200
    assert client.get("/dashboard/failures?from=99999999999999999999").status_code == 200


def test_a_key_sees_the_failures_that_it_reaches(app: Flask) -> None:
    fail(app, HOUR, message="seen")
    fail(app, HOUR, message="no money", operation="bank.pay")
    text = signed_in(app, new_key(app, "shop", Scope.READ, "shop.*")).get("/dashboard/failures").text
    assert "seen" in text
    assert "no money" not in text
    assert "bank.pay" not in text


def test_the_columns_of_a_strip_have_all_failures_of_its_time(app: Flask) -> None:
    ages = [HOUR, 2 * HOUR, 30 * HOUR, 60 * HOUR]
    found = [{"first_at": NOW - age} for age in ages]
    strip = failures._strip(found, NOW)
    assert strip == {"name": "3 days", "column": 8640}
    columns = failures._columns([NOW - age for age in ages], strip, NOW)
    assert (len(columns), sum(columns)) == (30, 4)
    assert columns[-1] + columns[-2] == 2


@browsers
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_where_there_are_failures(
    app: Flask, page: Page, site: str, watch: Watch, theme: str, width: int
) -> None:
    fail(app, *[HOUR * age for age in range(40)])
    fail(app, HOUR, message=HOSTILE * 10)
    fail(app, HOUR, status=Status.RETRYING)
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(f"{site}/dashboard/failures")
    expect(page.get_by_role("row")).to_have_count(3)
    assert inaccessible(page) == ""
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0


@browsers
def test_all_tasks_of_a_cause_are_run_again(
    app: Flask, client: FlaskClient, page: Page, site: str, watch: Watch, worker: Callable[..., Process]
) -> None:
    worker()
    broken = submit(client, *[{"operation": f"{number}/0"} for number in range(3)])
    other = submit(client, {"operation": "http_request", "params": {"url": "http://127.0.0.1:1/"}})
    assert {task["status"] for task in finished(client, broken + other)} == {"ERROR"}
    sign_in(page, site, new_key(app, "ops", Scope.WRITE))
    page.get_by_role("link", name="Failures").first.click()
    row = page.get_by_role("row", name="Division by zero.")
    row.get_by_role("link", name="PermanentError", exact=True).click()
    for task_id in broken:
        expect(page.get_by_role("link", name=str(task_id), exact=True)).to_be_visible()
    page.go_back()
    row.get_by_role("link", name="Retry the tasks").click()
    expect(page.get_by_role("heading", level=2).first).to_have_text("Retry 3 tasks?")
    page.get_by_role("button", name="Retry 3 tasks").click()
    expect(page.get_by_role("status")).to_contain_text("3")
    with app.app_context():
        again = select(func.count()).select_from(Task).where(Task.task_id.in_(broken), Task.claims == 3)
        eventually(lambda: (db.session.rollback(), db.session.scalar(again))[1] == 3)
        assert db.session.scalar(select(Task.claims).where(Task.task_id == other[0])) == 1


@browsers
def test_a_reader_sees_the_causes_and_no_button(app: Flask, page: Page, site: str, watch: Watch) -> None:
    fail(app, HOUR)
    sign_in(page, site, new_key(app, "reader", Scope.READ))
    page.goto(f"{site}/dashboard/failures")
    expect(page.get_by_role("row")).to_have_count(2)
    expect(page.get_by_role("link", name="Retry")).to_have_count(0)
