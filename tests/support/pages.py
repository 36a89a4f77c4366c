"""The dashboard's pages as a browser's user and a test client reach them."""

from datetime import UTC, datetime

from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import Page

from scheduler_app.access_models import Scope
from scheduler_app.services import keys

OURS = {"Sec-Fetch-Site": "same-origin"}  # as a browser says that one of our own pages asks


def new_key(app: Flask, name: str, scope: Scope, *operations: str) -> str:
    with app.app_context():
        return keys.create(name, scope, operations=operations or None, now=datetime.now(UTC))[1]


def signed_in(app: Flask, key: str) -> FlaskClient:
    """A client with the cookie of a session."""
    client = app.test_client()
    answer = client.post("/dashboard/sign-in", data={"key": key}, headers=OURS)
    assert answer.status_code == 303, answer.text
    return client


def sign_in(page: Page, site: str, key: str) -> None:
    page.goto(f"{site}/dashboard/sign-in")
    page.get_by_role("textbox", name="Key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{site}/dashboard/")
