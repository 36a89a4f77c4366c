"""Keys and the log in the dashboard, as somebody who keeps them uses both."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import Page, expect

from scheduler_app.access_models import Scope
from scheduler_app.services import audit, callers, keys
from tests.support.browser import Watch, inaccessible
from tests.support.pages import OURS, new_key, sign_in, signed_in
from tests.support.processes import eventually

KEY = re.compile(r"bb_[a-z0-9]{12}_[A-Za-z0-9_-]{43}")
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
browsers = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # one kind is enough here


def admin(app: Flask) -> FlaskClient:
    return signed_in(app, new_key(app, "ops", Scope.ADMIN))


def note(app: Flask, *entries: tuple[str, str | int | None], now: datetime = NOW, **details: object) -> None:
    """Writes (action, target) into the log, as ops."""
    with app.app_context():
        callers.current.set(callers.Caller("ops", address="10.0.0.7"))
        for action, target in entries:
            audit.record(action, target, details=details or None, now=now)
        audit.db.session.commit()
        callers.current.set(None)


def test_a_key_is_shown_in_the_answer_that_made_it_and_nowhere_else(app: Flask) -> None:
    client = admin(app)
    made = client.post("/dashboard/keys/new", data={"name": "shop", "scope": "write"}, headers=OURS)
    [text] = set(KEY.findall(made.text))
    assert (made.status_code, made.headers["Cache-Control"]) == (201, "no-store")
    assert text not in str(made.headers)
    assert "/tasks/" in made.text
    for address in ("/dashboard/keys", "/dashboard/keys/shop/rotate", "/dashboard/log"):
        assert not KEY.search(client.get(address).text)
    assert app.test_client().get("/tasks/", headers={"Authorization": f"Bearer {text}"}).status_code == 200


def test_what_is_wrong_with_a_key_is_told_at_its_field(app: Flask) -> None:
    client = admin(app)
    wrong = {"name": "Shop!", "scope": "everything", "operations": "shop.*, No", "rate": "fast", "days": "3"}
    answer = client.post("/dashboard/keys/new", data=wrong, headers=OURS)
    assert answer.status_code == 422
    for field, said in {
        "name": "A small letter or a digit",
        "scope": "Must be one of: read, write, admin.",
        "operations": "No: The name of an operation",
        "rate": "Such as 100/s",
        "days": "Choose one of these.",
    }.items():
        assert re.search(rf'id="{field}-wrong">(<svg.*?</svg>)?{re.escape(said)}', answer.text), field
    assert 'value="shop.*, No"' in answer.text
    taken = client.post("/dashboard/keys/new", data={"name": "ops", "scope": "read"}, headers=OURS)
    assert "There is or was a key of this name." in taken.text
    bound = client.post(
        "/dashboard/keys/new", data={"name": "a", "scope": "admin", "operations": "calculate"}, headers=OURS
    )
    assert "Not with scope admin" in bound.text


def test_a_key_gets_its_limits(app: Flask) -> None:
    given = {"name": "shop", "scope": "write", "operations": "shop.*\n http_request,", "rate": "5/s", "days": "30"}
    assert admin(app).post("/dashboard/keys/new", data=given, headers=OURS).status_code == 201
    with app.app_context():
        key = keys.get("shop")
        assert (key.scope, key.operations, key.rate) == ("write", ["shop.*", "http_request"], "5/s")
        assert key.expires_at
        assert key.expires_at - key.created_at == timedelta(days=30)


def test_a_rotation_that_is_sent_twice_happens_once(app: Flask) -> None:
    client, before = admin(app), new_key(app, "shop", Scope.READ)
    page = client.get("/dashboard/keys/shop/rotate").text
    form = {"hours": "24", "seen": re.findall('name="seen" value="(.+?)"', page)[0]}
    first, second = (client.post("/dashboard/keys/shop/rotate", data=form, headers=OURS) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 409)
    for key in (before, KEY.findall(first.text)[0]):
        assert app.test_client().get("/tasks/", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    assert "This rotation ends it at once." in client.get("/dashboard/keys/shop/rotate").text
    assert client.post("/dashboard/keys/shop/rotate", data={"hours": "7"}, headers=OURS).status_code == 422
    assert "two secrets" in client.get("/dashboard/keys").text


def test_keys_that_have_ended_are_apart_and_keep_their_names(app: Flask) -> None:
    client = admin(app)
    with app.app_context():
        keys.create("expired", Scope.READ, now=NOW - timedelta(days=9), expires_at=NOW - timedelta(days=1))
        keys.create("later", Scope.READ, now=NOW, expires_at=datetime.now(UTC) + timedelta(days=1))
    new_key(app, "leaked", Scope.READ)
    told = client.post("/dashboard/keys/leaked/revoke", headers=OURS)
    assert told.status_code == 303
    assert "Key leaked is revoked" in client.get(told.location).text
    using, ended = (
        set(re.findall('id="k-(.+?)"', client.get(f"/dashboard/keys{q}").text)) for q in ("", "?show=ended")
    )
    assert (using, ended) == ({"ops", "later"}, {"expired", "leaked"})
    assert client.get("/dashboard/keys/leaked/revoke").status_code == 409
    assert client.get("/dashboard/keys/nobody/revoke").status_code == 404


def test_many_keys_come_in_pages(app: Flask) -> None:
    client = admin(app)
    with app.app_context():
        for number in range(101):
            keys.create(f"k{number:03}", Scope.READ, now=NOW)
    first = client.get("/dashboard/keys").text
    assert first.count('id="k-') == 100
    [following] = re.findall('href="([^"]*after=[^"]*)"', first)
    assert client.get(following).text.count('id="k-') == 2
    assert "The list ends before this page." in client.get("/dashboard/keys?after=zzz").text


def test_without_a_key_the_page_says_that_all_is_open(app: Flask, client: FlaskClient) -> None:
    assert "Everybody on this machine may do everything." in client.get("/dashboard/keys").text
    assert "This is the first key." in client.get("/dashboard/keys/new").text
    assert client.post("/dashboard/keys/new", data={"name": "ops", "scope": "admin"}, headers=OURS).status_code == 201


def test_each_action_is_told_in_words(app: Flask, client: FlaskClient) -> None:
    assert "Nothing done yet" in client.get("/dashboard/log").text
    client.post("/tasks/", json={"operation": "4+7", "run_at": "2999-12-31T23:00:00Z"})
    client.patch("/tasks/1/", json={"priority": 1})
    client.post("/tasks/cancel/", json={"status": "PENDING"})
    client.post("/task-schedules/", json={"operation": "4+7", "cron": "0 0 * * *"})
    client.post("/task-schedules/1/backfill/", json={"start": "2026-01-01T00:00:00Z", "end": "2026-01-03T00:00:00Z"})
    client.post("/queues/5/pause/", json={"note": "<b>down</b>"})
    text = " ".join(re.sub("<[^>]+>", " ", client.get("/dashboard/log").text).split())
    for said in (
        "changed task 1 priority",
        "cancelled tasks status PENDING",
        "backfilled schedule 1 from 2026-01-01 00:00 UTC, to 2026-01-03 00:00 UTC",
        "paused priority 5 “&lt;b&gt;down&lt;/b&gt;”",
    ):
        assert said in text
    for link in ("tasks/1", "schedules/1", "priorities/5"):
        assert f'href="/dashboard/{link}">' in client.get("/dashboard/log").text
        assert client.get(f"/dashboard/{link}").status_code == 200
    note(app, ("something.new", 3), why="nobody knows yet")
    assert "something.new 3 why nobody knows yet" in re.sub("<[^>]+>", "", client.get("/dashboard/log").text)


def test_the_filter_of_the_log_is_in_its_address(app: Flask, client: FlaskClient) -> None:
    note(app, ("task.cancel", 1), ("task.retry", 1), ("task.cancel", 2))
    note(app, ("task.cancel", 1), now=NOW + timedelta(days=1))

    def found(query: str) -> int:
        return client.get(f"/dashboard/log?{query}").text.count('id="e-')

    assert found("") == 4
    assert found("what=task.cancel&on=1&who=ops&from=10.0.0.7") == 2
    assert found("until=2026-11-24") == 3
    assert found("until=2026-11-23") == 0
    assert "Nothing fits" in client.get("/dashboard/log?who=nobody").text
    for wrong in ("until=soon", "until=9999-12-31", "until=0001-01-01", "before=x", "before=0", f"before={2**63}"):
        assert client.get(f"/dashboard/log?{wrong}").status_code == 400, wrong


def test_a_filtered_page_of_the_log_stops_and_says_so(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "SEARCHED", 3)
    note(app, ("task.cancel", 1), *[("task.retry", 2)] * 4)
    first = client.get("/dashboard/log?what=task.cancel").text
    assert "Nothing found so far" in first
    assert "Searched back to" in first
    [further] = re.findall('href="([^"]*before=[^"]*)"', first)
    assert client.get(further.replace("&amp;", "&")).text.count('id="e-') == 1


@browsers
def test_a_person_makes_a_key_signs_in_with_it_and_revokes_it(app: Flask, page: Page, site: str, watch: Watch) -> None:
    page.goto(f"{site}/dashboard/keys")
    page.get_by_role("link", name="Make the first key").click()
    page.get_by_role("textbox", name="Name").fill("ops")
    expect(page.get_by_role("radio", name="admin")).to_be_checked()
    assert inaccessible(page) == ""
    page.get_by_role("button", name="Make the key").click()
    ops = page.locator("#key").inner_text()
    assert KEY.fullmatch(ops)
    assert inaccessible(page) == ""
    eventually(lambda: page.goto(f"{site}/dashboard/") and page.url.endswith("/sign-in"), within=1.5)
    sign_in(page, site, ops)
    page.goto(f"{site}/dashboard/keys/new")
    page.get_by_role("textbox", name="Name").fill("reader")
    page.get_by_role("button", name="Make the key").click()
    text = page.locator("#key").inner_text()

    other = page.context.browser.new_context().new_page()  # type: ignore[union-attr]
    sign_in(other, site, text)
    expect(other.get_by_role("navigation", name="Pages").get_by_role("link", name="Keys")).to_have_count(0)
    assert other.goto(f"{site}/dashboard/keys").status == 403  # type: ignore[union-attr]
    expect(other.get_by_role("heading", name="That is not allowed")).to_be_visible()

    page.get_by_role("link", name="I have copied it").click()
    page.locator("#k-reader").get_by_role("link", name="Revoke…").click()
    assert inaccessible(page) == ""
    page.get_by_role("button", name="Revoke reader").click()
    expect(page.get_by_role("status")).to_contain_text("Key reader is revoked")
    eventually(lambda: other.goto(f"{site}/dashboard/") and other.url.endswith("/sign-in"), within=1.5)
    other.context.close()

    page.get_by_role("navigation", name="Pages").get_by_role("link", name="Log").click()
    rows = page.locator("tbody tr")
    expect(rows.first).to_contain_text("revoked key reader")
    page.get_by_role("combobox", name="Did what").select_option("made key")
    page.get_by_role("button", name="Filter").click()
    expect(rows).to_have_count(2)
    expect(rows.last).to_contain_text("local")
    rows.first.get_by_role("link", name="ops", exact=True).click()
    expect(rows).to_have_count(1)


@browsers
def test_a_new_secret_works_beside_the_one_in_use(app: Flask, page: Page, site: str, watch: Watch) -> None:
    sign_in(page, site, new_key(app, "ops", Scope.ADMIN))
    page.goto(f"{site}/dashboard/keys")
    page.locator("#k-ops").get_by_role("link", name="Rotate…").click()
    assert inaccessible(page) == ""
    page.get_by_role("button", name="Make a new secret").click()
    expect(page.get_by_role("heading", name="Key ops has a new secret")).to_be_visible()
    page.get_by_role("link", name="I have copied it").click()
    expect(page.locator("#k-ops")).to_contain_text("two secrets")
