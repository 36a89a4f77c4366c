"""What pages need beyond what the API does.

A browser sends a page's cookie with whatever asks for it. So a page changes nothing unless one of our own pages asks.
The browser says who asks in Sec-Fetch-Site, or in Origin where it is too old for that.
"""

from urllib.parse import urlsplit

from flask import request

from scheduler_app.errors import Forbidden, Unauthorized

PAGES = "dashboard"  # the blueprint whose views are pages
COOKIE = "backbeat_session"
READING = ("GET", "HEAD", "OPTIONS")


class SignInNeeded(Unauthorized):
    def __init__(self) -> None:
        super().__init__("Sign in first.")


def is_page() -> bool:
    return request.blueprint == PAGES


def check_asked_by_us() -> None:
    """Raises Forbidden for a request to a page that changes something and does not come from one of our pages."""
    if not is_page() or request.method in READING:
        return
    site = request.headers.get("Sec-Fetch-Site")
    origin = urlsplit(request.headers.get("Origin", "")).netloc
    if site != "same-origin" if site is not None else origin != request.host:
        raise Forbidden("Only the dashboard's own pages may ask for that.")


def is_link() -> bool:
    """Whether somebody follows a link to the page. Another site may have it, and learns nothing of the page."""
    return is_page() and request.method in READING and request.headers.get("Sec-Fetch-Mode") == "navigate"
