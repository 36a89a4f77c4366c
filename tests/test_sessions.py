"""Sessions of the dashboard: with which key they begin, when they end, and who may ask for what."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, select, update

from scheduler_app.access import callers
from scheduler_app.access_models import ApiKey, Scope, Session
from scheduler_app.extensions import db
from scheduler_app.services import keys, retention
from tests.support.pages import OURS, new_key, signed_in

ADMIN_KEY = "a-key-of-24-characters!!"
NAVIGATION = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "cross-site"}


@pytest.fixture
def keyed(another: Callable[..., Flask]) -> Flask:
    return another(BACKBEAT_API_KEY=ADMIN_KEY)


@pytest.fixture
def unremembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request asks anew who calls, as a request a second later would."""
    monkeypatch.setattr(callers, "REMEMBERED", -1.0)


def sign_in(client: FlaskClient, key: str, **data: str) -> Any:
    return client.post("/dashboard/sign-in", data={"key": key} | data, headers=OURS)


def test_without_a_session_a_page_leads_to_the_sign_in_and_back(keyed: Flask) -> None:
    client = keyed.test_client()
    answer = client.get("/dashboard/tasks?q=status:error")
    assert (answer.status_code, answer.location) == (302, "/dashboard/sign-in?to=tasks?q%3Dstatus:error")
    assert 'value="tasks?q=status:error"' in client.get(answer.location).text
    answer = sign_in(client, ADMIN_KEY, to="tasks?q=status:error")
    assert (answer.status_code, answer.location) == (303, "/dashboard/tasks?q=status:error")
    assert client.get("/dashboard/").status_code == 200


@pytest.mark.parametrize("to", ["//evil.example", "https://evil.example", "\\\\evil.example", "/../x", "..", "a\r\nb"])
def test_signing_in_leads_to_no_page_but_our_own(keyed: Flask, to: str) -> None:
    location = sign_in(keyed.test_client(), ADMIN_KEY, to=to).location
    assert location.startswith("/dashboard/")
    assert ".." not in location


def test_the_cookie_holds_no_key_and_is_for_pages_only(keyed: Flask) -> None:
    plain = sign_in(keyed.test_client(), ADMIN_KEY).headers["Set-Cookie"]
    assert ADMIN_KEY not in plain
    assert {"HttpOnly", "Path=/dashboard/", "SameSite=Lax", "Max-Age=43200"} <= set(plain.split("; "))
    assert "Secure" not in plain
    secure = keyed.test_client().post(
        "/dashboard/sign-in", data={"key": ADMIN_KEY}, headers=OURS, base_url="https://localhost"
    )
    assert "Secure" in secure.headers["Set-Cookie"].split("; ")


def test_the_api_takes_no_cookie_and_a_page_no_key(keyed: Flask) -> None:
    client = signed_in(keyed, ADMIN_KEY)
    token = client.get_cookie("backbeat_session", path="/dashboard/")
    assert token
    assert client.get("/tasks/", headers={"Cookie": f"backbeat_session={token.value}"}).status_code == 401
    fresh = keyed.test_client().get("/dashboard/", headers={"Authorization": f"Bearer {ADMIN_KEY}"})
    assert fresh.status_code == 302


@pytest.mark.usefixtures("unremembered")
def test_a_session_ends_with_its_key(app: Flask) -> None:
    new_key(app, "root", Scope.ADMIN)
    now = datetime.now(UTC)

    def revoke(name: str) -> None:
        keys.revoke(name, now=now)

    def expire(name: str) -> None:
        db.session.execute(update(ApiKey).where(ApiKey.name == name).values(expires_at=now))
        db.session.commit()

    def rotate(name: str) -> None:
        keys.rotate(name, now=now, overlap=timedelta())

    for end in (revoke, expire, rotate):
        client = signed_in(app, new_key(app, end.__name__, Scope.READ))
        assert client.get("/dashboard/").status_code == 200
        with app.app_context():
            end(end.__name__)
        assert client.get("/dashboard/").status_code == 302


@pytest.mark.usefixtures("unremembered")
def test_a_session_lasts_through_a_rotation_as_long_as_the_old_secret(app: Flask) -> None:
    client = signed_in(app, new_key(app, "ops", Scope.READ))
    with app.app_context():
        keys.rotate("ops", now=datetime.now(UTC))
    assert client.get("/dashboard/").status_code == 200


def test_a_session_ends_when_the_admin_key_changes(keyed: Flask, another: Callable[..., Flask]) -> None:
    client = signed_in(keyed, ADMIN_KEY)
    token = client.get_cookie("backbeat_session", path="/dashboard/")
    assert token
    for key, status in ((ADMIN_KEY, 200), ("another-key-of-24-chars!", 302)):
        other = another(BACKBEAT_API_KEY=key).test_client()
        other.set_cookie("backbeat_session", token.value, path="/dashboard/")
        assert other.get("/dashboard/").status_code == status
    with keyed.app_context():
        row = db.session.scalars(select(Session)).one()
        assert ADMIN_KEY not in f"{row.token_hash} {row.secret_hash}"
        assert token.value not in f"{row.token_hash} {row.secret_hash}"


@pytest.mark.usefixtures("unremembered")
def test_a_session_ends_after_twelve_hours_and_its_row_goes(keyed: Flask) -> None:
    client = signed_in(keyed, ADMIN_KEY)
    later = datetime.now(UTC) + timedelta(hours=12, seconds=1)
    with keyed.app_context():
        [ends] = db.session.scalars(select(Session.expires_at))
        assert timedelta(hours=11, minutes=59) < ends - datetime.now(UTC) <= timedelta(hours=12)
        assert retention.prune(now=later) == 1
    assert client.get("/dashboard/").status_code == 302


def test_signing_out_ends_the_session_at_once(keyed: Flask) -> None:
    client = signed_in(keyed, ADMIN_KEY)
    token = client.get_cookie("backbeat_session", path="/dashboard/")
    assert token
    assert client.post("/dashboard/sign-out", headers=OURS).status_code == 303
    client.set_cookie("backbeat_session", token.value, path="/dashboard/")
    assert client.get("/dashboard/").status_code == 302
    with keyed.app_context():
        assert db.session.scalar(select(func.count()).select_from(Session)) == 0


def test_a_wrong_key_is_told_and_counted(keyed: Flask) -> None:
    client = keyed.test_client()
    answers = [sign_in(client, "bb_000000000000_" + "x" * 43) for _ in range(21)]
    assert [answer.status_code for answer in answers] == [401] * 20 + [429]
    assert "The key is not valid." in answers[0].text
    assert "Too many wrong keys" in answers[20].text
    assert sign_in(client, ADMIN_KEY).status_code == 303


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"}, False),
        ({"Origin": "http://localhost"}, True),
        ({"Origin": "http://localhost:8000"}, False),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({}, False),
    ],
    ids=str,
)
@pytest.mark.parametrize("with_key", [True, False])
def test_only_our_own_pages_may_change_something(
    app: Flask, keyed: Flask, headers: dict[str, str], allowed: bool, with_key: bool
) -> None:
    client = signed_in(keyed, ADMIN_KEY) if with_key else app.test_client()
    answer = client.post("/dashboard/theme", data={"theme": "dark"}, headers=headers)
    assert answer.status_code == (303 if allowed else 403)
    assert client.post("/dashboard/sign-out", headers=headers).status_code == (303 if allowed else 403)


def test_without_a_key_a_link_from_another_site_opens_a_page_and_nothing_else_does(client: FlaskClient) -> None:
    assert client.get("/dashboard/", headers=NAVIGATION).status_code == 200
    assert client.get("/dashboard/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert client.get("/dashboard/", headers=NAVIGATION | {"Sec-Fetch-Mode": "no-cors"}).status_code == 403
    assert client.get("/dashboard/", headers=NAVIGATION, base_url="http://evil.example").status_code == 403
    assert client.get("/tasks/", headers=NAVIGATION).status_code == 403


def test_without_a_key_pages_need_no_sign_in(client: FlaskClient) -> None:
    assert "local" in client.get("/dashboard/").text
    assert client.get("/dashboard/sign-in").location == "/dashboard/"


def test_below_a_prefix_cookies_links_and_redirects_stay_below_it(another: Callable[..., Flask]) -> None:
    client = another(BACKBEAT_API_KEY=ADMIN_KEY, BACKBEAT_TRUSTED_PROXIES="1").test_client()
    proxied = {"X-Forwarded-Prefix": "/backbeat", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "example.com"}
    assert client.get("/", headers=proxied).location == "/backbeat/dashboard/"
    assert client.get("/dashboard/tasks", headers=proxied).location == "/backbeat/dashboard/sign-in?to=tasks"
    answer = client.post("/dashboard/sign-in", data={"key": ADMIN_KEY, "to": "tasks"}, headers=OURS | proxied)
    assert answer.location == "/backbeat/dashboard/tasks"
    assert {"Path=/backbeat/dashboard/", "Secure"} <= set(answer.headers["Set-Cookie"].split("; "))
    links = re.findall(r'(?:href|src|action)="([^"#]+)', client.get("/dashboard/sign-in", headers=proxied).text)
    assert [link for link in links if not link.startswith("/backbeat/dashboard/")] == []
