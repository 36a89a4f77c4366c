"""The pages of tasks: find one, see what happened and why, and act on one or on many."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import Page, expect
from sqlalchemy import select, update

from scheduler_app.access_models import Scope
from scheduler_app.dashboard import search, tracebacks, values, way
from scheduler_app.extensions import db
from scheduler_app.models import FINISHED, Failure, Status, Task
from scheduler_app.services import attempts, pauses, task_search, tasks
from tests.support.browser import Watch, inaccessible
from tests.support.claims import claim
from tests.support.pages import OURS, new_key, sign_in, signed_in
from tests.support.processes import Process

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
LATER = datetime(2999, 1, 1, tzinfo=UTC)
browsers = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # one kind is enough here


def post(app: Flask, *fields: dict[str, Any]) -> list[int]:
    given = {"operation": "calculate", "params": {"expression": "4+7"}, "priority": 5, "max_retries": 5}
    with app.app_context():
        return [task.task_id for task in tasks.submit([given | one for one in fields], now=datetime.now(UTC))]


def set_to(app: Flask, ids: list[int], **columns: Any) -> None:
    with app.app_context():
        db.session.execute(update(Task).where(Task.task_id.in_(ids)).values(columns))
        db.session.commit()


def failed(app: Flask, task_id: int, error: Exception) -> None:
    """By a worker, at its only attempt."""
    with app.app_context():
        claims = db.session.scalars(select(Task.claims).where(Task.task_id == task_id)).one()
        db.session.rollback()
        attempt = claim(task_id, claims, worker_id="w", now=datetime.now(UTC))
        assert attempt
        attempts.fail(attempt, error, now=datetime.now(UTC))


def shown(client: FlaskClient, q: str) -> list[int]:
    """The tasks that the list shows, from top to bottom."""
    text = client.get("/dashboard/tasks", query_string={"q": q}).text
    return [int(number) for number in re.findall(r'<tr id="t-(\d+)"', text)]


def test_a_search_is_read_as_conditions_and_words() -> None:
    read = search.read('operation:shop.invoices status:error,cancelled priority:0-3 schedule:7 by:"my key" late order')
    assert read.conditions == {
        "operation": "shop.invoices",
        "status": ["ERROR", "CANCELLED"],
        "priority": [0, 1, 2, 3],
        "task_schedule_id": 7,
        "created_by": "my key",
    }
    assert (read.words, read.wrong, read.task_id) == (["late", "order"], [], None)
    labels = search.read('label:order:17 label:"batch:2026 11:a" error:TimeoutError ended-after:2030-01-01T00:00:00Z')
    assert (labels.wrong, labels.conditions.keys()) == ([], {"label", "error_type", "finished_after"})
    assert labels.conditions["label"] == ["order:17", "batch:2026 11:a"]
    assert search.read(labels.with_status("error")).conditions == labels.conditions | {"status": ["ERROR"]}
    assert search.read(read.with_status("success")).conditions["status"] == ["SUCCESS"]
    assert "status" not in search.read(read.with_status(None)).conditions
    assert search.read(" 42 ").task_id == 42


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("operaton:x", "did you mean operation:?"),
        ("status:done", "status:done cannot be: pending, started"),
        ("priority:12", "priority:12 cannot be: a priority such as 5"),
        ("priority:5-2", "0 to 9, the smaller one first"),
        ("schedule:x", "schedule:x cannot be: a number"),
        ("cause:zz", "16 hexadecimal digits"),
        ("label:order", "Must be a name and a value with a colon between, such as order:17."),
        (" ".join(f"label:a:{number}" for number in range(9)), "at most 8 labels"),
        ("ended-before:9", "Not a time in ISO 8601"),
        ("after:yesterday", "Not a time in ISO 8601"),
        (f"by:{'x' * 65}", "1 to 64 characters"),
    ],
)
def test_what_cannot_be_read_is_said_and_shows_nothing(app: Flask, client: FlaskClient, text: str, says: str) -> None:
    post(app, {})
    answer = client.get("/dashboard/tasks", query_string={"q": text})
    assert answer.status_code == 200
    assert says in answer.text
    assert "<tr id=" not in answer.text


def test_a_number_leads_to_the_task(app: Flask, client: FlaskClient) -> None:
    [task_id] = post(app, {})
    assert client.get(f"/dashboard/tasks?q={task_id}").location == f"/dashboard/tasks/{task_id}"
    assert client.get("/dashboard/tasks/999999").status_code == 404


def test_the_filter_is_the_url_and_the_tabs_count_under_it(app: Flask, client: FlaskClient) -> None:
    ids = post(app, {}, {"priority": 0}, {"priority": 0, "operation": "http_request", "params": {"url": "http://a.b"}})
    set_to(app, ids[:1], status=Status.ERROR)
    assert shown(client, "") == ids[::-1]
    assert shown(client, "priority:0") == [ids[2], ids[1]]
    assert shown(client, "priority:0 operation:calculate") == [ids[1]]
    assert shown(client, "status:error") == ids[:1]
    text = client.get("/dashboard/tasks?q=priority:0").text
    assert re.search(r"PENDING</span> <small>2</small>", text)
    assert re.search(r"ERROR</span> <small>0</small>", text)
    assert "No task matches" in client.get("/dashboard/tasks?q=priority:9").text


def test_words_are_looked_for_in_params_and_errors(app: Flask, client: FlaskClient) -> None:
    ids = post(
        app, *({"operation": "http_request", "params": {"url": f"http://a.b/{word}"}} for word in ("Käse", "100%", "x"))
    )
    set_to(app, ids[2:], error={"type": "ReadTimeout", "message": "the partner is slow"})
    assert shown(client, "Käse") == ids[:1]
    assert shown(client, "100%") == [ids[1]]
    assert shown(client, "PARTNER slow") == [ids[2]]
    assert shown(client, "slow status:success") == []


def test_a_search_that_stops_says_so_and_goes_on(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_search, "READ", 3)
    ids = post(app, *({"params": {"expression": str(number)}} for number in (7777, 1, 2, 3, 4)))
    text = client.get("/dashboard/tasks?q=7777+expression").text
    assert "None so far" in text
    assert "Searched back to" in text
    [further] = re.findall(r'href="(/dashboard/tasks\?[^"]*cursor=\d+)">Look further', text)
    assert f'id="t-{ids[0]}"' in client.get(further.replace("&amp;", "&")).text


def test_a_bound_key_finds_only_what_it_reaches(app: Flask) -> None:
    new_key(app, "root", Scope.ADMIN)
    ids = post(app, {}, {"operation": "http_request", "params": {"url": "http://a.b"}})
    client = signed_in(app, new_key(app, "bound", Scope.WRITE, "calculate"))
    assert shown(client, "") == ids[:1]
    assert client.get(f"/dashboard/tasks/{ids[1]}").status_code == 404
    assert client.post(f"/dashboard/tasks/{ids[1]}/cancel", headers=OURS).status_code == 404
    text = client.get("/dashboard/many?action=cancel").text
    assert "1, exactly" in text
    assert "http_request" not in client.get("/dashboard/tasks").text


def test_a_hostile_task_does_no_harm(app: Flask, client: FlaskClient) -> None:
    params = {"url": "http://a.b/<script>alert(1)</script>\u202egnp.exe", "api_token": "hunter2"}
    params |= {"n": 12345678901234567890123}
    [task_id] = post(app, {"operation": "http_request", "params": params | {"body": '"><img src=x>'}})
    set_to(app, [task_id], status=Status.SUCCESS, result="x" * 1_000_000, finished_at=NOW, started_at=NOW)
    for address in ("/dashboard/tasks", f"/dashboard/tasks/{task_id}", "/dashboard/many?action=delete"):
        text = client.get(address).text
        assert len(text) < 100_000
        assert "<script>alert" not in text
        assert "<img" not in text
        assert "\u202e" not in text
        assert "hunter2" not in text
    text = client.get(f"/dashboard/tasks/{task_id}").text
    assert "12345678901234567890123" in text
    assert "more characters" in text


def test_what_looks_like_a_secret_is_masked_and_a_reference_to_one_is_not() -> None:
    given = {"Authorization": "Bearer x", "deep": [{"smtp_password": "y"}], "X-Api-Key": "${secret:SHOP}", "keys": 3}
    assert values.masked(given) == {
        "Authorization": values.MASKED,
        "deep": [{"smtp_password": values.MASKED}],
        "X-Api-Key": "${secret:SHOP}",
        "keys": 3,
    }


def test_a_traceback_shows_own_frames_and_folds_those_of_libraries() -> None:
    text = """Traceback (most recent call last):
  File "/srv/shop/operations.py", line 41, in write
    render(order)
    ~~~~~~^^^^^^^
  File "/srv/.venv/lib/python3.11/site-packages/httpx/_client.py", line 1, in post
    send()
  File "/srv/.venv/lib/python3.11/site-packages/httpx/_models.py", line 2, in raise_for_status
    raise error
  File "/usr/lib/python3.11/socket.py", line 3, in connect
    pass
shop.Error: no <paper>
and a second line
"""
    parts = tracebacks.parts(text)
    assert [(part.library, len(part.frames), part.text) for part in parts] == [
        (None, 1, ""),
        ("httpx", 2, ""),
        ("socket", 1, ""),
        (None, 0, "shop.Error: no <paper>"),
        (None, 0, "and a second line"),
    ]
    assert (parts[0].frames[0].place, parts[0].frames[0].code) == ("shop/operations.py", ["render(order)"])


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def test_the_way_of_a_task_shows_each_wait_and_each_attempt() -> None:
    failures = [
        Failure(attempt=1, type="ReadTimeout", started_at=at(5), failed_at=at(10), claim=1),
        Failure(attempt=2, type="ReadTimeout", started_at=at(20), failed_at=at(30), claim=2),
    ]
    times = {"created_at": at(0), "started_at": at(20), "finished_at": None, "run_at": at(100)}
    waits: Any = SimpleNamespace(status="RETRYING", attempts=2, max_retries=5, **times)
    found = way.steps(waits, failures, at(40))
    assert [(step.status, step.length.total_seconds()) for step in found["steps"][:-1]] == [
        ("PENDING", 5),
        ("STARTED", 5),
        ("RETRYING", 10),
        ("STARTED", 10),
        ("RETRYING", 10),
    ]
    assert (found["steps"][-1].future, found["steps"][-1].begins_at) == (True, at(100))
    done = SimpleNamespace(**vars(waits) | {"status": "SUCCESS", "started_at": at(50), "finished_at": at(60)})
    steps = way.steps(done, failures, at(99))["steps"]
    assert [step.status for step in steps[-3:]] == ["RETRYING", "STARTED", "SUCCESS"]
    assert all(0 <= step.x <= 100 and step.width > 0 for step in steps)


@pytest.mark.parametrize("status", list(Status))
def test_the_page_of_a_task_in_each_status(app: Flask, client: FlaskClient, status: Status) -> None:
    [task_id] = post(app, {"run_at": LATER})
    ended = {"finished_at": NOW} if status in FINISHED else {}
    began = None if status in ("PENDING", "CANCELLED", "EXPIRED") else NOW
    set_to(app, [task_id], status=status, started_at=began, **ended)
    answer = client.get(f"/dashboard/tasks/{task_id}")
    assert answer.status_code == 200
    acts = set(re.findall(r'action="/dashboard/tasks/\d+/([\w-]+)"', answer.text))
    waits = {"run-now", "change", "cancel"}
    assert (
        acts
        == {
            "PENDING": waits | {"delete"},
            "RETRYING": waits,
            "STARTED": {"cancel", "stack"},
            "SUCCESS": set(),
            "ERROR": {"retry"},
            "CANCELLED": {"retry"},
            "EXPIRED": {"retry"},
        }[status]
    )


@pytest.mark.parametrize("status", list(Status))
def test_a_reader_sees_no_button_that_would_be_refused(app: Flask, status: Status) -> None:
    client = signed_in(app, new_key(app, "reader", Scope.READ))
    [task_id] = post(app, {"run_at": LATER})
    set_to(app, [task_id], status=status)
    for address in ("/dashboard/tasks", f"/dashboard/tasks/{task_id}"):
        text = client.get(address).text
        buttons = set(re.findall(r'method="post" action="([^"]+)"', text))
        asks = {f"{address}/stack"} if status == Status.STARTED and address.endswith(f"/{task_id}") else set()
        assert buttons == {"/dashboard/theme", "/dashboard/sign-out"} | asks
        assert not re.search(r"again|/many|checkbox", text)


def test_acting_on_a_task(app: Flask, client: FlaskClient) -> None:
    [task_id] = post(app, {"run_at": LATER})
    page = f"/dashboard/tasks/{task_id}"

    def act(name: str, **data: str) -> Any:
        return client.post(f"{page}/{name}", data=data, headers=OURS)

    def task() -> Any:
        return client.get(f"/tasks/{task_id}/").json

    assert act("change", priority="2", max_retries="").location == page
    assert "is changed" in client.get(page).text
    assert "is changed" not in client.get(page).text  # it is said once
    assert (task()["priority"], task()["max_retries"]) == (2, 5)
    answer = act("change", priority="12")
    assert (answer.status_code, "priority" in answer.text) == (422, True)
    assert act("run-now").status_code == 303
    assert task()["run_at"] < "2999"
    assert act("cancel").status_code == 303
    assert task()["status"] == "CANCELLED"
    assert act("cancel").status_code == 409
    assert act("retry").status_code == 303
    assert task()["status"] == "PENDING"
    assert act("delete").location == "/dashboard/tasks"
    assert client.get(page).status_code == 404


def test_running_a_task_again_with_changes(app: Flask, client: FlaskClient) -> None:
    [task_id] = post(app, {"priority": 3})
    [page] = re.findall(r'href="([^"]+)">Run again with changes', client.get(f"/dashboard/tasks/{task_id}").text)
    assert 'value="4+7"' in client.get(page).text
    answer = client.post(page, data={"params.expression": "4+", "priority": "30"}, headers=OURS)
    assert answer.status_code == 422
    assert answer.text.count('class="wrong"') == 2
    answer = client.post(page, data={"params.expression": "5+5", "priority": "1"}, headers=OURS)
    new = client.get(f"/tasks/{task_id + 1}/").json
    assert answer.location == f"/dashboard/tasks/{task_id + 1}"
    assert (new["params"], new["priority"]) == ({"expression": "5+5"}, 1)


def test_acting_on_many_tasks_says_first_how_many_and_which(app: Flask, client: FlaskClient) -> None:
    ids = post(app, *({"priority": number % 2} for number in range(30)))
    text = client.get("/dashboard/many?action=cancel&q=priority:0").text
    assert "Cancel 15 tasks?" in text
    assert "at priority <b>0</b>" in text
    assert len(re.findall(r'<td class="t-id', text)) == 10
    answer = client.post("/dashboard/many/cancel", data={"q": "priority:0"}, headers=OURS)
    assert answer.location == "/dashboard/tasks?q=priority:0"
    assert "15 tasks cancelled or asked to stop." in client.get(answer.location).text
    assert client.get(f"/tasks/{ids[1]}/").json["status"] == "PENDING"
    answer = client.post("/dashboard/many/retry", data={"id": [ids[0], ids[1]]}, headers=OURS)
    assert "1 task retried." in client.get(answer.location).text
    answer = client.post("/dashboard/many/delete", data={"q": "status:cancelled"}, headers=OURS)
    assert "14 tasks deleted." in client.get(answer.location).text


@pytest.mark.parametrize(
    "query", ["", "action=explode", "action=retry&q=words", "action=retry&q=status:x", "action=retry&id=x"]
)
def test_what_cannot_be_done_to_many_is_said(client: FlaskClient, query: str) -> None:
    assert client.get(f"/dashboard/many?{query}").status_code == 422


def test_a_status_that_an_act_does_not_reach_reaches_nothing(app: Flask, client: FlaskClient) -> None:
    ids = post(app, {})
    assert "No task to retry" in client.get("/dashboard/many?action=retry&q=status:success").text
    client.post("/dashboard/many/retry", data={"q": "status:pending"}, headers=OURS)
    assert client.get(f"/tasks/{ids[0]}/").json["status"] == "PENDING"


@browsers
def test_find_a_failed_task_read_its_traceback_and_retry_it(
    app: Flask, page: Page, site: str, watch: Watch, worker: Callable[..., Process]
) -> None:
    [task_id] = post(app, {"max_retries": 0})
    failed(app, task_id, RuntimeError("the paper is out"))
    sign_in(page, site, new_key(app, "ops", Scope.WRITE))
    page.get_by_role("link", name="Tasks", exact=True).first.click()
    page.keyboard.press("/")
    page.keyboard.type("paper status:error")
    page.keyboard.press("Enter")
    page.get_by_role("link", name=str(task_id), exact=True).click()
    expect(page.locator(".frames .last")).to_contain_text("RuntimeError: the paper is out")
    worker()
    page.get_by_role("button", name="Retry", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text("runs again")
    expect(page.locator("#live .verdict .st")).to_have_text("SUCCESS", timeout=15_000)  # by itself
    expect(page.locator("#acts").get_by_role("button", name="Retry", exact=True)).to_have_count(0)
    assert inaccessible(page) == ""


@browsers
def test_watch_a_batch_drain_live(
    app: Flask, page: Page, site: str, watch: Watch, worker: Callable[..., Process]
) -> None:
    page.goto(f"{site}/dashboard/tasks")
    expect(page.get_by_text("No tasks yet")).to_be_visible()
    post(app, *[{}] * 200)
    expect(page.get_by_role("link", name="PENDING 200")).to_be_visible(timeout=15_000)
    worker()
    expect(page.get_by_role("link", name="SUCCESS 200")).to_be_visible(timeout=20_000)


@browsers
def test_choose_rows_and_cancel_them(app: Flask, page: Page, site: str, watch: Watch) -> None:
    ids = post(app, {}, {}, {})
    page.goto(f"{site}/dashboard/tasks")
    for task_id in ids[:2]:
        page.get_by_label(f"Choose task {task_id}").check()
    expect(page.locator(".marker")).to_have_text("Held while rows are chosen")
    page.get_by_role("group", name="The chosen tasks").get_by_role("button", name="Cancel…").click()
    expect(page.get_by_role("heading", name="Cancel 2 tasks?")).to_be_visible()
    assert inaccessible(page) == ""
    page.get_by_role("button", name="Cancel 2 tasks").click()
    expect(page.get_by_role("status")).to_have_text("2 tasks cancelled or asked to stop.")
    expect(page.get_by_role("link", name="CANCELLED 2")).to_be_visible()


@browsers
def test_see_why_a_task_of_a_paused_priority_waits(app: Flask, page: Page, site: str, watch: Watch) -> None:
    with app.app_context():
        pauses.pause(5, note="the partner is down", now=datetime.now(UTC))
    [task_id] = post(app, {})
    page.goto(f"{site}/dashboard/tasks/{task_id}")
    expect(page.get_by_text("the partner is down")).to_be_visible()
    assert inaccessible(page) == ""
    page.get_by_text("Change…").click()
    expect(page.locator(".marker")).to_have_text("Held while a form is open")
    assert inaccessible(page) == ""
