"""Swagger UI in a real browser, against a real server: it works, and loads nothing from elsewhere."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator

import pytest
from flask.testing import FlaskClient
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright

from tests.support.processes import Process, free_port
from tests.support.system import WEB, WEB_READY

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # one kind is enough here

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        missing = f"no browser on this machine: none of {', '.join(BROWSERS)}"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def server(start: Callable[..., Process]) -> str:
    """The URL of a web process."""
    port = free_port()
    start(*WEB, ready=WEB_READY, PORT=str(port))
    return f"http://127.0.0.1:{port}"


class Watch:
    """What a page asks for, and complains about."""

    def __init__(self, page: Page) -> None:
        self.requests: list[str] = []
        self.errors: list[str] = []
        page.on("request", self._request)
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _request(self, request: Request) -> None:
        self.requests.append(request.url)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def asked_elsewhere(self, server: str) -> list[str]:
        return [url for url in self.requests if not url.startswith((f"{server}/", "data:"))]


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1200, "height": 1600})
    yield page
    page.close()


@pytest.mark.parametrize("path", ["/swagger/", "/swagger"])
def test_the_page_shows_every_operation_and_loads_nothing_from_elsewhere(page: Page, server: str, path: str) -> None:
    watch = Watch(page)
    page.goto(server + path)
    expect(page.locator(".info .title")).to_contain_text("Backbeat")
    spec = json.loads(page.request.get(f"{server}/openapi.json").text())
    count = sum(len(item.keys() - {"parameters"}) for item in spec["paths"].values())
    expect(page.locator(".opblock")).to_have_count(count)
    assert watch.asked_elsewhere(server) == []
    assert watch.errors == []


def test_a_task_can_be_posted_from_the_page(page: Page, server: str) -> None:
    watch = Watch(page)
    page.goto(f"{server}/swagger/")
    post = page.locator(".opblock-post", has=page.locator('[data-path="/tasks/"]'))
    post.locator(".opblock-summary-control").click()
    post.get_by_role("button", name="Try it out").click()
    post.get_by_role("button", name="Execute").click()
    answer = post.locator(".live-responses-table .response")
    expect(answer.locator(".response-col_status")).to_contain_text("202")
    expect(answer).to_contain_text('"status": "PENDING"')
    assert f"{server}/tasks/" in watch.requests
    assert watch.asked_elsewhere(server) == []
    assert watch.errors == []


@pytest.mark.parametrize("prefix", ["", "/backbeat"])
def test_the_root_leads_to_swagger_ui(client: FlaskClient, prefix: str) -> None:
    answer = client.get("/", base_url=f"http://localhost{prefix}")
    assert (answer.status_code, answer.location) == (302, f"{prefix}/swagger/")


def test_posting_a_task_offers_examples_and_each_fills_the_body(page: Page, server: str) -> None:
    page.goto(f"{server}/swagger/")
    post = page.locator(".opblock-post", has=page.locator('[data-path="/tasks/"]'))
    post.locator(".opblock-summary-control").click()
    post.get_by_role("button", name="Try it out").click()
    choice = post.locator(".opblock-section-request-body .examples-select select")
    expect(choice.locator("option")).to_have_text(["an arithmetic expression", "a task for later", "an HTTP call"])
    choice.select_option(label="an HTTP call")
    expect(post.locator("textarea.body-param__text")).to_have_value(re.compile('"operation": "http_request"'))


def test_the_errors_of_a_call_are_folded_until_they_are_asked_for(page: Page, server: str) -> None:
    watch = Watch(page)
    page.goto(f"{server}/swagger/")
    post = page.locator(".opblock-post", has=page.locator('[data-path="/tasks/"]'))
    post.locator(".opblock-summary-control").click()
    codes = post.locator(".responses-table:not(.live-responses-table) .response .response-col_status")
    expect(codes).to_have_text(["202"])
    post.get_by_role("button", name="Show the errors: 400, 401, 403, 413, 415, 422, 429, 503").click()
    expect(codes).to_have_text(["202", "400", "401", "403", "413", "415", "422", "429", "503"])
    post.get_by_role("button", name="Hide the errors").click()
    expect(codes).to_have_text(["202"])
    assert watch.errors == []
