"""A real browser, and what a page asks for and complains about."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserType, ConsoleMessage, Page, Request, expect, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
INSTALL = ".venv/bin/playwright install --with-deps chromium"
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
expect.set_options(timeout=20_000)  # milliseconds; a page takes a while on a busy machine


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Skips the test on a machine without a browser, and says how to get one."""
    with sync_playwright() as playwright:
        executable = _executable(playwright.chromium)
        if executable is None:
            missing = f"no browser on this machine; get one with: {INSTALL}"
            pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()


def _executable(chromium: BrowserType) -> str | None:
    own = chromium.executable_path  # where `playwright install` puts it
    return next(filter(None, map(shutil.which, BROWSERS)), own if Path(own).exists() else None)


class Watch:
    """What a page asks for, and complains about: errors of scripts, and what its policy forbids."""

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

    def asked_elsewhere(self, site: str) -> list[str]:
        return [url for url in self.requests if not url.startswith((f"{site}/", "data:"))]


def inaccessible(page: Page) -> str:
    """What axe finds on the page; empty when it finds nothing."""
    found = Axe().run(page, options={"resultTypes": ["violations"]})
    return found.generate_report() if found.violations_count else ""
