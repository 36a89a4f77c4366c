"""The pages of priorities: who starves? One is paused, and its tasks wait until it is resumed."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import Page, expect

from scheduler_app.access_models import Scope
from scheduler_app.config import Settings
from scheduler_app.dashboard import priorities
from scheduler_app.extensions import db
from scheduler_app.models import Status
from scheduler_app.services import statistics
from scheduler_app.web import create_web_app
from tests.support.browser import Watch, inaccessible
from tests.support.pages import OURS, new_key, sign_in, signed_in
from tests.support.processes import Process, eventually
from tests.support.servers import Valkey
from tests.support.tasks import get, set_status, submit

browsers = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
ADDRESS = "/dashboard/priorities"


def headline(client: FlaskClient, address: str = ADDRESS) -> str:
    answer = client.get(address)
    assert answer.status_code == 200, answer.text
    found = re.search(r"<h2>(.*?)</h2>", answer.text)
    assert found
    return re.sub(r"<.*?>", "", found[1])


def row(share: float, due: float, *, waiting: int = 1, oldest: float = 1.0, paused: bool = False) -> dict[str, Any]:
    figures = {"waiting": waiting, "oldest_waiting_seconds": oldest, "paused": paused}
    return {"priority": 5, "got": share, "due": due} | figures


@pytest.mark.parametrize(
    ("one", "text"),
    [
        (row(0.4, 0.4), "Nobody starves: each priority gets its share."),
        (row(0.1, 0.4), "Priority 5 gets 10 % of the starts, and 40 % were due to it."),
        (row(0.1, 0.4, waiting=0), "Nobody starves: each priority gets its share."),
        (row(0.1, 0.4, paused=True), "Nobody starves: each priority gets its share."),
        (row(0.4, 0.4, oldest=250), "Nobody starves, but at priority 5 the oldest waits for 4 min."),
    ],
)
def test_the_headline_tells_who_starves(one: dict[str, Any], text: str) -> None:
    assert priorities._starves([one])[0] == text


def test_every_priority_has_its_figures(client: FlaskClient) -> None:
    ids = submit(client, *[{"operation": "1+1", "priority": 7}] * 6)
    set_status(client, ids[:2], Status.STARTED)
    set_status(client, ids[2:3], Status.ERROR)
    text = client.get(f"{ADDRESS}/7").text
    figures = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text)
    found = {name: re.sub(r"<.*?>", "", value) for name, value in figures}
    assert (found["waiting"], found["running"], found["in ERROR"]) == ("6", "2", "1")
    assert len(re.findall(r'<tr id="p-\d"', client.get(ADDRESS).text)) == 10


@pytest.mark.parametrize("period", ["hour", "day", "month", "wrong", ""])
def test_each_period_is_shown(client: FlaskClient, period: str) -> None:
    for address in (ADDRESS, f"{ADDRESS}/3"):
        text = client.get(f"{address}?period={period}").text
        expected = period if period in list(statistics.Period) else "hour"
        assert f'period={expected}" aria-current="true"' in text


def test_there_is_no_priority_10(client: FlaskClient) -> None:
    assert client.get(f"{ADDRESS}/10").status_code == 404
    assert client.get(f"{ADDRESS}/10/purge").status_code == 404
    for act in ("pause", "resume", "purge"):
        assert client.post(f"{ADDRESS}/10/{act}", headers=OURS).status_code == 404


def test_a_note_that_is_too_long_pauses_nothing(client: FlaskClient) -> None:
    answer = client.post(f"{ADDRESS}/7/pause", data={"note": "n" * 501}, headers=OURS)
    assert (answer.status_code, "more than 500 characters" in answer.text) == (422, True)
    assert headline(client, f"{ADDRESS}/7").startswith("It got")


def test_only_an_admin_can_steer(app: Flask) -> None:
    client = signed_in(app, new_key(app, "writer", Scope.WRITE))
    assert "/priorities/7/" not in client.get(f"{ADDRESS}/7").text
    assert client.get(f"{ADDRESS}/7/purge").status_code == 403
    for act in ("pause", "resume", "purge"):
        assert client.post(f"{ADDRESS}/7/{act}", headers=OURS).status_code == 403


def test_a_purge_says_first_how_many_it_cancels(client: FlaskClient) -> None:
    assert headline(client, f"{ADDRESS}/7/purge") == "Nothing waits at priority 7."
    submit(client, *[{"operation": "1+1", "priority": 7}] * 3, {"operation": "1+1", "priority": 6})
    assert headline(client, f"{ADDRESS}/7/purge") == "3 tasks wait at priority 7."
    answer = client.post(f"{ADDRESS}/7/purge", headers=OURS, follow_redirects=True)
    assert "3 tasks are cancelled. Nothing waits there any more." in answer.text
    assert len(client.get("/tasks/?status=CANCELLED").json) == 3


@pytest.fixture
def away(app: Flask, environ: dict[str, str], own_valkey: Valkey) -> Iterator[FlaskClient]:
    """A client of an application whose Redis is gone."""
    without = create_web_app(Settings.from_env(environ | {"REDIS_URL": own_valkey.url}))
    own_valkey.kill()
    yield without.test_client()
    with without.app_context():
        for engine in db.engines.values():
            engine.dispose()


def test_without_redis_the_pages_say_so_and_show_what_the_database_knows(away: FlaskClient) -> None:
    ids = submit(away, *[{"operation": "1+1", "priority": 7}] * 2)
    set_status(away, ids, Status.STARTED)
    for address in (ADDRESS, f"{ADDRESS}/7"):
        text = away.get(address).text
        assert "Redis does not answer." in text
    assert re.search(r"<dt>running</dt><dd>(<a.*?>)?2", text)
    paused = away.post(f"{ADDRESS}/7/pause", data={"note": "moving"}, headers=OURS, follow_redirects=True)
    assert "“moving”" in paused.text


@browsers
def test_a_paused_priority_holds_its_tasks_until_it_is_resumed(
    app: Flask, page: Page, site: str, watch: Watch, worker: Callable[..., Process]
) -> None:
    worker()
    key = new_key(app, "ops", Scope.ADMIN)
    ours = app.test_client()
    ours.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {key}"
    sign_in(page, site, key)
    page.get_by_role("link", name="Priorities").first.click()
    page.get_by_role("link", name="Priority 7").click()
    page.get_by_role("textbox", name="Why, for the others").fill("the partner's API is down")
    page.get_by_role("button", name="Pause", exact=True).last.click()
    expect(page.get_by_role("status")).to_contain_text("Priority 7 is paused")
    expect(page.get_by_role("heading", level=2).first).to_contain_text("Paused by ops")
    expect(page.locator("#live")).to_contain_text("“the partner's API is down”")
    [task_id] = submit(ours, {"operation": "1+1", "priority": 7})
    page.goto(f"{site}/dashboard/tasks/{task_id}")
    expect(page.locator(".why")).to_contain_text("Priority 7 is paused since")
    expect(page.locator(".why")).to_contain_text("“the partner's API is down”")
    page.goto(f"{site}{ADDRESS}")
    expect(page.locator("#p-7")).to_contain_text("paused")
    page.get_by_role("link", name="Priority 7").click()
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("status")).to_contain_text("Priority 7 goes on.")
    expect(page.locator("#resume")).to_be_empty()
    eventually(lambda: get(ours, task_id)["status"] == "SUCCESS")


@browsers
def test_what_waits_is_cancelled_on_a_page_that_says_how_much(
    app: Flask, client: FlaskClient, page: Page, site: str, watch: Watch
) -> None:
    ids = submit(client, *[{"operation": "1+1", "priority": 7}] * 2)
    page.goto(f"{site}{ADDRESS}/7")
    page.get_by_role("link", name="Cancel what waits…").click()
    expect(page.get_by_role("heading", level=2)).to_have_text("2 tasks wait at priority 7.")
    page.get_by_role("button", name="Cancel 2 tasks").click()
    expect(page.get_by_role("status")).to_contain_text("2 tasks are cancelled.")
    assert {get(client, task_id)["status"] for task_id in ids} == {"CANCELLED"}


@browsers
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_on_the_pages_of_one_priority(
    client: FlaskClient, page: Page, site: str, watch: Watch, theme: str, width: int
) -> None:
    submit(client, *[{"operation": "1+1", "priority": 7}] * 3)
    client.post(f"{ADDRESS}/7/pause", data={"note": "<b>" * 100}, headers=OURS)
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size({"width": width, "height": 900})
    for address in (ADDRESS, f"{ADDRESS}/7", f"{ADDRESS}/7?period=month", f"{ADDRESS}/7/purge"):
        page.goto(site + address)
        assert inaccessible(page) == "", address
        assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
