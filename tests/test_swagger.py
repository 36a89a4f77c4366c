"""Swagger UI in a real browser, against a real server: it works, and loads nothing from elsewhere."""

import json
import re

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import Watch

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # one kind is enough here


@pytest.mark.parametrize("path", ["/swagger/", "/swagger"])
def test_the_page_shows_every_operation_and_loads_nothing_from_elsewhere(
    page: Page, site: str, path: str, watch: Watch
) -> None:
    page.goto(site + path)
    expect(page.locator(".info .title")).to_contain_text("Backbeat")
    spec = json.loads(page.request.get(f"{site}/openapi.json").text())
    count = sum(len(item.keys() - {"parameters"}) for item in spec["paths"].values())
    expect(page.locator(".opblock")).to_have_count(count)


def test_a_task_can_be_posted_from_the_page(page: Page, site: str, watch: Watch) -> None:
    page.goto(f"{site}/swagger/")
    post = page.locator(".opblock-post", has=page.locator('[data-path="/tasks/"]'))
    post.locator(".opblock-summary-control").click()
    post.get_by_role("button", name="Try it out").click()
    post.get_by_role("button", name="Execute").click()
    answer = post.locator(".live-responses-table .response")
    expect(answer.locator(".response-col_status")).to_contain_text("202")
    expect(answer).to_contain_text('"status": "PENDING"')
    assert f"{site}/tasks/" in watch.requests


def test_posting_a_task_offers_examples_and_each_fills_the_body(page: Page, site: str) -> None:
    page.goto(f"{site}/swagger/")
    post = page.locator(".opblock-post", has=page.locator('[data-path="/tasks/"]'))
    post.locator(".opblock-summary-control").click()
    post.get_by_role("button", name="Try it out").click()
    choice = post.locator(".opblock-section-request-body .examples-select select")
    expect(choice.locator("option")).to_have_text(["an arithmetic expression", "a task for later", "an HTTP call"])
    choice.select_option(label="an HTTP call")
    expect(post.locator("textarea.body-param__text")).to_have_value(re.compile('"operation": "http_request"'))


def test_the_errors_of_a_call_are_folded_until_they_are_asked_for(page: Page, site: str, watch: Watch) -> None:
    page.goto(f"{site}/swagger/")
    post = page.locator(".opblock-post", has=page.locator('[data-path="/tasks/"]'))
    post.locator(".opblock-summary-control").click()
    codes = post.locator(".responses-table:not(.live-responses-table) .response .response-col_status")
    expect(codes).to_have_text(["200", "202"])
    post.get_by_role("button", name="Show the errors: 400, 401, 403, 409, 413, 415, 422, 429, 503").click()
    expect(codes).to_have_text(["200", "202", "400", "401", "403", "409", "413", "415", "422", "429", "503"])
    post.get_by_role("button", name="Hide the errors").click()
    expect(codes).to_have_text(["200", "202"])
