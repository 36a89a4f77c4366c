"""The page of limits: who has to wait for whom? Limits are made, changed, and given back to the code."""

import re
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import pytest
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import Page, expect
from werkzeug.test import TestResponse

from scheduler_app.access_models import Scope
from scheduler_app.config import Settings
from scheduler_app.dashboard.texts import limited, pace
from scheduler_app.database import clock
from scheduler_app.extensions import db
from scheduler_app.services import limits
from scheduler_app.web import create_web_app
from tests.support import limit_operations
from tests.support.browser import Watch, inaccessible
from tests.support.pages import OURS, new_key, sign_in, signed_in
from tests.support.processes import Process, eventually, free_port
from tests.support.servers import Valkey
from tests.support.system import WEB, WEB_READY
from tests.support.tasks import submit

browsers = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
ADDRESS = "/dashboard/limits"
HOSTS = {"operation": "http_request", "per": "group", "max_running": 4, "rate": {"count": 10}}
WORK = limit_operations.__name__
NONE = "\N{EN DASH}"


@pytest.fixture
def extra(tmp_path: Path) -> dict[str, str]:
    """Settings of processes that know the limited operations."""
    return {"BACKBEAT_OPERATIONS": f"actors,{WORK}", "LIMIT_LINES": str(tmp_path / "lines")}


@pytest.fixture
def site(start: Callable[..., Process], extra: dict[str, str]) -> str:
    port = free_port()
    start(*WEB, ready=WEB_READY, PORT=str(port), **extra)
    return f"http://127.0.0.1:{port}"


def words(text: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<.*?>", " ", text))).strip()


def row(client: FlaskClient, name: str) -> str:
    found = re.search(rf'<tr id="l-{re.escape(name)}">(.*?)</tr>', client.get(ADDRESS).text, re.DOTALL)
    assert found, name
    return words(found[1])


def post(client: FlaskClient, address: str, **fields: str) -> TestResponse:
    return client.post(
        f"{ADDRESS}/{address}", data={name.replace("__", "."): value for name, value in fields.items()}, headers=OURS
    )


def said(answer: TestResponse) -> str:
    assert answer.status_code == 303, words(answer.text)
    return unquote(answer.headers["Set-Cookie"])


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        ({"count": 10, "seconds": 1, "burst": 1}, "10 a second"),
        ({"count": 600, "seconds": 60.0, "burst": 5}, "600 a minute, 5 at once after a pause"),
        ({"count": 3, "seconds": 2.5, "burst": 1}, "3 in 2.5 s"),
        ({"count": 1, "seconds": 86_400, "burst": 1}, "1 a day"),
    ],
)
def test_a_rate_in_words(rate: dict[str, float], text: str) -> None:
    assert pace(rate) == text


def test_a_limit_in_words() -> None:
    rate = {"count": 10, "seconds": 1, "burst": 1}
    assert limited({"max_running": 4, "rate": rate, "per": "group"}) == "at most 4 at once, 10 a second for each group"
    assert limited({"max_running": None, "rate": rate, "per": "operation"}) == "at most 10 a second"
    assert limited({"max_running": None, "rate": None}) == "lifted"


def test_each_limit_says_what_it_is_and_who_set_it(client: FlaskClient) -> None:
    assert client.put("/limits/hosts/", json=HOSTS).status_code == 200
    assert row(client, "hosts").startswith(f"hosts http_request, each group 0 of 4 10 a second 0 {NONE} local,")
    assert row(client, "limited.work") == f"limited.work limited.work 0 of 3 any 0 {NONE} the code Change…"
    client.put("/limits/limited.work/", json={"max_running": 6})
    assert f"0 of 6 any 0 {NONE} local," in row(client, "limited.work")
    assert "in the code: at most 3 at once" in row(client, "limited.work")
    client.put("/limits/limited.work/", json={})
    assert "lifted" in row(client, "limited.work")


def test_the_form_makes_a_limit(client: FlaskClient) -> None:
    values = {"operation": "http_request", "per": "group", "max_running": "4", "rate__count": "10"}
    assert "Limit http_request:group counts: at most 4 at once, 10 a second for each group." in said(
        post(client, "new", **values)
    )
    made = client.get("/limits/http_request:group/").json
    assert (made["per"], made["max_running"]) == ("group", 4)
    assert made["rate"] == {"count": 10, "seconds": 1, "burst": 1}
    again = post(client, "new", **values)
    assert (again.status_code, "There is a limit of this name." in again.text) == (422, True)
    said(post(client, "new", name="calm", **values))
    assert client.get("/limits/calm/").json["operation"] == "http_request"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"operation": ""}, "Choose one."),
        ({"max_running": ""}, "Give max_running, rate, or both."),
        ({"max_running": "many"}, "Not a number."),
        ({"max_running": "0"}, "Must be a whole number from 1 to 10000."),
        ({"rate__seconds": "2"}, "Missing data for required field."),
        ({"rate__count": "1", "rate__seconds": "0"}, "Must be a number from 0.001 to 86400."),
        ({"per": "host"}, "Must be one of: operation, group."),
        ({"name": "No!"}, "A small letter first"),
        ({"operation": "No!"}, "Must be an operation's name."),
    ],
)
def test_what_is_wrong_is_told_at_its_field(client: FlaskClient, fields: dict[str, str], message: str) -> None:
    before = client.get("/limits/").json
    answer = post(client, "new", **{"operation": "http_request", "per": "operation", "max_running": "4"} | fields)
    assert answer.status_code == 422
    assert message.replace(",", "") in words(answer.text).replace(",", "")
    assert 'aria-invalid="true"' in answer.text
    assert client.get("/limits/").json == before


def test_numbers_are_changed_and_go_back_to_the_code_s(client: FlaskClient) -> None:
    text = client.get(f"{ADDRESS}/limited.work/change").text
    assert 'name="max_running" value="3"' in text
    assert "Back to the code" not in text
    assert "at most 6 at once, 2 a minute, 5 at once after a pause." in said(
        post(client, "limited.work/change", max_running="6", rate__count="2", rate__seconds="60", rate__burst="5")
    )
    text = client.get(f"{ADDRESS}/limited.work/change").text
    assert "The code says: at most 3 at once." in words(text)
    assert 'name="rate.burst" value="5"' in text
    wrong = post(client, "limited.work/change", max_running="-1")
    assert (wrong.status_code, "Must be a whole number from 1" in wrong.text) == (422, True)
    assert "what the code says counts again." in said(post(client, "limited.work/reset"))
    assert client.get("/limits/limited.work/").json["max_running"] == 3
    assert "counts: lifted." in said(post(client, "limited.work/change"))


def test_a_limit_that_is_not_in_the_code_is_deleted(client: FlaskClient) -> None:
    client.put("/limits/new/", json=HOSTS)
    assert "Delete the limit" in client.get(f"{ADDRESS}/new/change").text
    empty = post(client, "new/change")
    assert (empty.status_code, "Give max_running, rate, or both." in empty.text) == (422, True)
    assert "Limit new: it is gone." in said(post(client, "new/reset"))
    assert client.get(f"{ADDRESS}/new/change").status_code == 404
    assert post(client, "new/reset").status_code == 404


def test_only_an_admin_changes_limits(app: Flask) -> None:
    client = signed_in(app, new_key(app, "writer", Scope.WRITE))
    text = client.get(ADDRESS).text
    assert "limited.work" in text
    assert "Change…" not in text
    assert "New limit" not in text
    for address in ("new", "limited.work/change"):
        assert client.get(f"{ADDRESS}/{address}").status_code == 403
    for address in ("new", "limited.work/change", "limited.work/reset"):
        assert post(client, address).status_code == 403


def test_a_bound_key_sees_the_limits_of_its_operations_only(app: Flask) -> None:
    with app.app_context():
        limits.put("hosts", {"operation": "http_request", "max_running": 4}, now=clock())
    text = signed_in(app, new_key(app, "shop", Scope.WRITE, "http_request")).get(ADDRESS).text
    assert 'id="l-hosts"' in text
    assert "limited.work" not in text


def test_the_log_tells_who_changed_a_limit(client: FlaskClient) -> None:
    said(post(client, "new", operation="http_request", per="operation", max_running="4", rate__count="10"))
    said(post(client, "http_request/reset"))
    text = words(client.get("/dashboard/log").text)
    assert "changed limit http_request" in text
    assert "max running 4, 10 a second" in text
    assert "took back what was set of limit http_request" in text


def test_operations_say_which_limits_they_have(client: FlaskClient) -> None:
    client.put("/limits/hosts/", json=HOSTS)
    found = "at most 4 at once, 10 a second for each group"
    assert found in client.get("/dashboard/operations").text
    text = words(client.get("/dashboard/operations/http_request").text)
    assert f"Limits hosts : {found}" in text
    assert "Limits none" in words(client.get("/dashboard/operations/calculate").text)


def test_tasks_that_wait_for_a_rate_are_named(
    client: FlaskClient, worker: Callable[..., Process], extra: dict[str, str]
) -> None:
    client.put("/limits/limited.work/", json={"rate": {"count": 1, "seconds": 3600}})
    client.put("/limits/idle/", json={"operation": "limited.free", "rate": {"count": 1}})
    assert "limits have room." in words(client.get(ADDRESS).text)
    submit(client, *[{"operation": "limited.work", "params": {"seconds": 0}}] * 3)
    worker(**extra)
    eventually(lambda: "Tasks wait for the rate of one limit." in words(client.get(ADDRESS).text))


@pytest.fixture
def away(app: Flask, environ: dict[str, str], own_valkey: Valkey) -> Iterator[FlaskClient]:
    """A client of an application whose Redis is gone."""
    without = create_web_app(Settings.from_env(environ | {"REDIS_URL": own_valkey.url}))
    own_valkey.kill()
    yield without.test_client()
    with without.app_context():
        for engine in db.engines.values():
            engine.dispose()


def test_without_redis_nobody_says_that_nothing_is_used(away: FlaskClient) -> None:
    assert "Redis does not answer." in away.get(ADDRESS).text
    assert f"{NONE} of 3" in row(away, "limited.work")
    assert away.get("/limits/limited.work/").json["used"] is None
    assert "at most 5 at once." in said(post(away, "limited.work/change", max_running="5"))


@browsers
def test_a_limit_holds_before_one_s_eyes(
    app: Flask,
    page: Page,
    site: str,
    watch: Watch,
    worker: Callable[..., Process],
    scheduler: Callable[..., Process],
    extra: dict[str, str],
) -> None:
    worker(**extra)
    scheduler(**extra)
    key = new_key(app, "ops", Scope.ADMIN)
    ours = app.test_client()
    ours.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {key}"
    sign_in(page, site, key)
    page.get_by_role("link", name="Limits").first.click()
    page.get_by_role("link", name="New limit").click()
    page.get_by_label("operation").select_option("limited.free")
    page.get_by_label("per", exact=True).select_option("group")
    page.get_by_label("max_running").fill("2")
    page.get_by_role("button", name="Make the limit").click()
    expect(page.get_by_role("status")).to_contain_text("counts: at most 2 at once for each group.")
    task = {"operation": "limited.free", "params": {"seconds": 20}, "group": "api.example.com"}
    ids = submit(ours, *[task] * 5)
    one = page.locator("[id='l-limited.free:group']")
    expect(one).to_contain_text("2 of 2", timeout=15_000)
    expect(one).to_contain_text("ops,")
    expect(page.get_by_role("heading", level=2).first).to_have_text("One limit is used to the full, and tasks wait.")
    one.get_by_role("link", name="api.example.com").click()
    expect(page.locator("tbody tr")).to_have_count(5)
    page.goto(f"{site}/dashboard/tasks/{ids[-1]}")
    page.get_by_role("link", name="limited.free:group").click()
    page.get_by_role("link", name="Change limit limited.free:group").click()
    page.get_by_label("max_running").fill("4")
    page.get_by_role("button", name="Change the limit").click()
    expect(one).to_contain_text("4 of 4", timeout=15_000)
    one.get_by_role("link", name="Change limit").click()
    page.get_by_role("button", name="Delete the limit").click()
    expect(page.get_by_role("status")).to_contain_text("it is gone.")
    expect(one).to_have_count(0)


@browsers
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_on_the_pages_of_limits(
    client: FlaskClient, page: Page, site: str, watch: Watch, theme: str, width: int
) -> None:
    client.put("/limits/hosts/", json=HOSTS | {"rate": {"count": 10, "burst": 5}})
    client.put(f"/limits/{'long-' * 15}/", json=HOSTS | {"max_running": None})
    client.put("/limits/limited.work/", json={"max_running": 6})
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size({"width": width, "height": 900})
    for address in (ADDRESS, f"{ADDRESS}/new", f"{ADDRESS}/limited.work/change", f"{ADDRESS}/hosts/change"):
        page.goto(site + address)
        assert inaccessible(page) == "", address
        assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
