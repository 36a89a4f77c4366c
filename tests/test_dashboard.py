"""What all pages of the dashboard have in common, and every page in a real browser."""

import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import Page, expect

from scheduler_app.access import PAGES, scope_of
from scheduler_app.access_models import Scope
from scheduler_app.dashboard import static
from scheduler_app.dashboard.frame import NAVIGATION, POLICY
from scheduler_app.services.shared import Shared
from tests.support.browser import Watch, inaccessible
from tests.support.pages import OURS, new_key, sign_in, signed_in
from tests.support.servers import Postgres

VENDORED = {
    "idiomorph.min.js": "idiomorph 0.8.0",
    "inter-latin.woff2": "@fontsource-variable/inter 5.3.0",
    "inter-latin-ext.woff2": "@fontsource-variable/inter 5.3.0",
}
PLAIN_PAGES = ["/dashboard/sign-in", "/dashboard/nothing"]  # besides those of the navigation


def pages(app: Flask) -> list[str]:
    """The addresses of all pages that the navigation leads to."""
    items = [item for group in NAVIGATION for item in group]
    with app.test_request_context():
        return [app.url_for(f"{PAGES}.{item.name}") for item in items if f"{PAGES}.{item.name}" in app.view_functions]


def forms(app: Flask) -> list[str]:
    """The addresses that take a POST."""
    rules = [rule for rule in app.url_map.iter_rules() if rule.endpoint.startswith(f"{PAGES}.")]
    posts = [rule.rule for rule in rules if "POST" in (rule.methods or ())]
    named = [rule.replace("<limit_name:name>", "x") for rule in posts if "<path:" not in rule]
    return [re.sub(r"<(?:\w+:)?\w+>", "9", rule) for rule in named]


def test_every_page_says_who_may_see_it(app: Flask) -> None:
    views = [endpoint for endpoint in app.view_functions if endpoint.startswith(f"{PAGES}.")]
    open_to_all = {endpoint for endpoint in views if scope_of(app, endpoint) is None}
    assert open_to_all == {f"{PAGES}.{name}" for name in ("sign_in", "begin_session", "set_theme", "static")}


def test_without_a_session_every_page_leads_to_the_sign_in(app: Flask) -> None:
    new_key(app, "ops", Scope.READ)
    for address in [*pages(app), "/dashboard/nothing"]:
        answer = app.test_client().get(address)
        assert (answer.status_code, answer.location.partition("?")[0]) == (302, "/dashboard/sign-in"), address


def test_a_reader_is_refused_every_form(app: Flask) -> None:
    client = signed_in(app, new_key(app, "reader", Scope.READ))
    for address in forms(app):
        if address in ("/dashboard/sign-in", "/dashboard/sign-out", "/dashboard/theme") or address.endswith("/stack"):
            continue  # of these, the last one only reads
        answer = client.post(address, headers=OURS)
        assert answer.status_code == 403, address
        assert "needs a key of scope" in answer.text, address


def test_every_form_is_refused_to_pages_of_other_sites(app: Flask, client: FlaskClient) -> None:
    for address in forms(app):
        assert client.post(address, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403, address


def test_nothing_is_inline_and_nothing_comes_from_elsewhere(app: Flask, client: FlaskClient) -> None:
    for address in [*pages(app), *PLAIN_PAGES]:
        answer = client.get(address, follow_redirects=True)
        assert answer.headers["Content-Security-Policy"] == POLICY
        assert not re.search(r"\son\w+=|\sstyle=|<style|<script(?! src)|javascript:", answer.text), address
        assert not re.search(r'(?:href|src|action)="(?:\w+:|//)', answer.text), address


def test_an_error_is_a_page_here_and_json_in_the_api(client: FlaskClient) -> None:
    answer = client.get("/dashboard/nothing")
    assert (answer.status_code, answer.mimetype) == (404, "text/html")
    assert "There is no such page." in answer.text
    assert client.get("/nothing").mimetype == "application/json"


def test_a_nul_character_is_refused(app: Flask, client: FlaskClient) -> None:
    for address in pages(app):
        assert client.get(f"{address}?q=a%00b").status_code == 400
    assert client.post("/dashboard/theme", data={"theme": "\0"}, headers=OURS).status_code == 400


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_without_a_database_a_page_says_so(own_postgres: Postgres, another: Callable[..., Flask]) -> None:
    client = another(DATABASE_URL=own_postgres.url("backbeat")).test_client()
    own_postgres.stop()
    answer = client.get("/dashboard/")
    assert (answer.status_code, answer.mimetype) == (503, "text/html")
    assert "The database does not answer; try again." in answer.text


def test_static_files_are_kept_for_a_year_under_an_address_that_changes_with_them(client: FlaskClient) -> None:
    [address] = re.findall(r'href="([^"]+/style\.css)"', client.get("/dashboard/").text)
    for asked, seconds in ((address, 31_536_000), ("/dashboard/static/old/style.css", 0)):
        with client.get(asked) as answer:
            assert f"max-age={seconds}" in answer.headers["Cache-Control"]
    assert client.get("/dashboard/static/old/../../frame.py").status_code == 404


def test_what_is_vendored_is_what_its_authors_published() -> None:
    folder = static.FOLDER / "vendor"
    listed = dict(line.split()[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())
    files = {file.name for file in folder.iterdir()} - {"SHA256SUMS"}
    assert files == listed.keys()
    assert {name for name in files if not name.startswith("LICENSE")} == VENDORED.keys()
    assert {name: sha256((folder / name).read_bytes()).hexdigest() for name in files} == listed


def test_the_script_is_short() -> None:
    assert len((static.FOLDER / "script.js").read_text().splitlines()) <= 120


def test_what_is_expensive_is_computed_once_however_many_look() -> None:
    shared, computed = Shared(fresh=60), []
    for _ in range(5):
        assert shared.get("key", lambda: computed.append(1) or len(computed)) == 1
    assert Shared(fresh=-1).get("key", lambda: 2) == 2
    few = Shared(fresh=60, most=2)
    for key in range(5):
        few.get(key, lambda: None)
    assert len(few._slots) == 2


def test_a_page_that_has_not_changed_is_not_sent_again(client: FlaskClient) -> None:
    again = {"Backbeat-Live": "1"}
    tag = client.get("/dashboard/tasks", headers=again).headers["ETag"]
    answer = client.get("/dashboard/tasks", headers=again | {"If-None-Match": tag})
    assert (answer.status_code, answer.data) == (304, b"")
    assert client.get("/dashboard/tasks?q=x", headers=again | {"If-None-Match": tag}).status_code == 200


def test_what_one_caller_is_shown_again_is_not_shown_to_another(app: Flask) -> None:
    again = {"Backbeat-Live": "1"}
    new_key(app, "root", Scope.ADMIN)
    writer, reader = (signed_in(app, new_key(app, scope.value, scope)) for scope in (Scope.WRITE, Scope.READ))
    for client, name in ((writer, "write"), (reader, "read"), (writer, "write")):
        assert f"<p>{name}<span>may {name}" in client.get("/dashboard/tasks", headers=again).text


browsers = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # one kind is enough here


@browsers
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_on_any_page(
    app: Flask, page: Page, site: str, watch: Watch, theme: str, width: int, tmp_path: Path
) -> None:
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size({"width": width, "height": 900})
    for address in [*pages(app), *PLAIN_PAGES]:
        page.goto(site + address)
        assert inaccessible(page) == "", f"{address}, {theme}, {width} px"
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{address} scrolls sideways at {width} px"
    watch.errors = [error for error in watch.errors if "404" not in error]


@browsers
def test_signing_in_and_out(app: Flask, page: Page, site: str, watch: Watch) -> None:
    key = new_key(app, "ops", Scope.WRITE)
    page.goto(f"{site}/")
    expect(page).to_have_url(f"{site}/dashboard/sign-in")
    page.get_by_role("textbox", name="Key").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_have_text("The key is not valid.")
    watch.errors.clear()  # the browser itself tells of the 401
    sign_in(page, site, key)
    expect(page.locator(".side .who p")).to_have_text("opsmay write")
    page.get_by_role("button", name="Sign out").first.click()
    expect(page).to_have_url(f"{site}/dashboard/sign-in")


@browsers
def test_the_theme_is_kept(page: Page, site: str, watch: Watch) -> None:
    page.goto(f"{site}/dashboard/")
    for theme in ("light", "dark"):
        page.locator(".side").get_by_role("button", name=f"Change to {theme}").click()
        expect(page.locator("html")).to_have_attribute("data-theme", theme)
    page.locator(".side").get_by_role("button", name="Change to system").click()
    expect(page.locator("html")).not_to_have_attribute("data-theme", re.compile(".*"))


@browsers
def test_a_page_asks_for_itself_again_until_it_is_paused(page: Page, site: str, watch: Watch) -> None:
    page.clock.install()
    page.goto(f"{site}/dashboard/")
    expect(page.locator(".marker")).to_have_text("Live")

    def asked() -> int:
        return sum(url == f"{site}/dashboard/" for url in watch.requests)

    with page.expect_response(f"{site}/dashboard/"):
        page.clock.run_for(6_000)
    page.get_by_role("button", name="Pause").click()
    expect(page.locator(".marker")).to_have_text("Paused")
    before = asked()
    page.clock.run_for(30_000)
    assert asked() == before
    with page.expect_response(f"{site}/dashboard/"):
        page.get_by_role("button", name="Go on").click()
        page.clock.run_for(2_000)


@browsers
def test_a_slash_leads_to_the_search(page: Page, site: str, watch: Watch) -> None:
    page.goto(f"{site}/dashboard/")
    field = page.get_by_role("searchbox", name="Find tasks")
    if field.count():
        page.keyboard.press("/")
        expect(field).to_be_focused()
        expect(field).to_have_value("")
