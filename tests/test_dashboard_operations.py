"""What operations can do, and the form that runs one, as a person uses both."""

import json
import os
import re
import subprocess
from collections.abc import Callable
from html import unescape
from typing import Any
from urllib.parse import unquote

import pytest
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import Page, expect

from scheduler_app.access_models import Scope
from scheduler_app.dashboard import operations as page_of_operations
from scheduler_app.models import Status
from scheduler_app.services import workers
from scheduler_app.services.shared import Shared
from tests.support.browser import Watch, inaccessible
from tests.support.claims import claim
from tests.support.pages import OURS, new_key, sign_in, signed_in
from tests.test_history import LATER, end, roll_up

LATE = "2999-12-31T23:00:00Z"
CALCULATE = "/dashboard/operations/calculate"
HTTP_REQUEST = "/dashboard/operations/http_request"
browsers = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # one kind is enough here


@pytest.fixture
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | {"BACKBEAT_OPERATIONS": "actors,tests.support.trial_operations"}


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test before has computed is of another database."""
    monkeypatch.setattr(page_of_operations, "shared", Shared())


def post(client: FlaskClient, address: str = CALCULATE, **fields: str) -> Any:
    return client.post(address, data={name.replace("__", "."): value for name, value in fields.items()}, headers=OURS)


def row(text: str, name: str) -> str:
    """What the list says of an operation, without markup."""
    return " ".join(re.sub("<[^>]+>", " ", text.partition(f'id="o-{name}"')[2].partition("</tr>")[0]).split())


@pytest.mark.usefixtures("context")
def test_the_list_says_how_each_operation_does(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_of_operations, "clock", lambda: LATER)
    end(6000)
    end(2000, status=Status.ERROR)
    roll_up()
    worker = {"worker_id": "a", "host": "h", "pid": 1, "threads": 8, "queues": [], "started_at": LATER}
    known = {"operations": ["calculate", "http_request"]}
    assert "No worker is there to run any of them." in client.get("/dashboard/operations").text
    workers.beat(worker | known, clock_offset=0.0, secrets=["SHOP_TOKEN"], now=LATER)
    monkeypatch.setattr(page_of_operations, "shared", Shared())
    text = client.get("/dashboard/operations").text
    assert "No worker knows " in text
    assert "133 2,000 25 %" in row(text, "calculate")
    assert "10 min 5 1 none takes none" in row(text, "calculate")
    assert "0 0 10 min 5 1 none SHOP_TOKEN" in row(text, "http_request")
    assert "500 ms 0 none none takes none" in row(text, "trial.spin")
    assert "5.6" in row(client.get("/dashboard/operations?period=day").text, "calculate")
    assert "2,000" in client.get(CALCULATE).text


def test_a_bound_key_sees_and_runs_only_its_operations(app: Flask) -> None:
    client = signed_in(app, new_key(app, "shop", Scope.WRITE, "trial.*"))
    text = client.get("/dashboard/operations").text
    assert ("trial.echo" in text, "http_request" in text) == (True, False)
    assert client.get(CALCULATE).status_code == 404
    assert post(client, params__expression="4+7").status_code == 404
    assert client.get(f"{CALCULATE}/nothing").status_code == 404


def test_a_reader_sees_what_it_takes_and_no_button(app: Flask) -> None:
    client = signed_in(app, new_key(app, "reader", Scope.READ))
    text = client.get(CALCULATE).text
    assert "expression" in text
    assert "To run it needs a key of scope write" in text
    assert not re.search(r"<button[^>]*>\s*(Run|Show)", text)
    assert "Run…" not in client.get("/dashboard/operations").text


def test_the_form_posts_the_task(client: FlaskClient) -> None:
    answer = post(client, params__expression="4+7", priority="2", run_at=LATE, max_retries="0")
    assert answer.status_code == 303
    assert "Task 1 is posted." in unescape(answer.headers["Set-Cookie"].replace("%20", " "))
    task = client.get("/tasks/1/").json
    assert {name: task[name] for name in ("params", "priority", "run_at", "max_retries")} == {
        "params": {"expression": "4+7"},
        "priority": 2,
        "run_at": LATE,
        "max_retries": 0,
    }
    post(client, params__expression="4+7")
    task = client.get("/tasks/2/").json
    assert (task["priority"], task["max_retries"]) == (5, 5)


def test_the_form_posts_a_task_of_a_group_that_there_is_once(app: Flask, client: FlaskClient) -> None:
    def told(**fields: str) -> str:
        answer = post(client, **fields)
        assert answer.status_code == 303, answer.text
        return unquote(answer.headers["Set-Cookie"])

    once = {"params__expression": "4+7", "group": "customer 17", "unique__key": "report", "run_at": LATE}
    assert "Task 1 is posted." in told(**once)
    task = client.get("/tasks/1/").json
    assert (task["group"], task["unique"]) == ("customer 17", {"key": "report", "until": "finished"})
    assert "Task 1 has this key, and stays as it is." in told(**once)
    assert "Task 1 has this key, and was given" in told(
        **once | {"params__expression": "5+8", "unique__then": "replace"}
    )
    assert client.get("/tasks/1/").json["params"] == {"expression": "5+8"}
    assert "Task 2 is posted." in told(**once | {"unique__key": "hourly", "unique__until": "3600"})
    assert client.get("/tasks/2/").json["unique"]["until"] == 3_600
    with app.app_context():
        assert claim(1, 1, worker_id="w", now=LATER)
    begun = post(client, **once | {"unique__then": "replace"})
    assert (begun.status_code, "and has begun: it cannot be replaced." in unescape(begun.text)) == (422, True)
    shown = client.get(f"{CALCULATE}?from=2").text
    assert 'name="group" value="customer 17"' in shown
    assert "hourly" not in shown, "a new task is posted, not that one met"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "Missing data for required field."),
        ({"params__expression": "4+7", "unique__until": "begun"}, "Missing data for required field."),
        (
            {"params__expression": "4+7", "unique__key": "a", "unique__until": "done"},
            "Must be 'begun', 'finished' or a",
        ),
        ({"params__expression": "4+7", "group": 'a"b'}, "1 to 64 characters: no control character"),
        ({"params__expression": "4+"}, "Expected a number or"),
        ({"params__expression": "4+7", "priority": "10"}, "Must be a whole number from 0 to 9."),
        ({"params__expression": "4+7", "priority": "1.5"}, "Must be a whole number from 0 to 9."),
        ({"params__expression": "4+7", "run_at": "soon"}, "Not a time in ISO 8601"),
        ({"params__expression": "4+7", "max_retries": "x"}, "Not a number."),
        ({"params__*:json": '{"base": 2}', "params__expression": "1"}, "base: Unknown"),
    ],
)
def test_what_is_wrong_is_told_at_the_field(client: FlaskClient, fields: dict[str, str], said: str) -> None:
    answer = post(client, **fields)
    assert answer.status_code == 422
    assert said in unescape(answer.text)
    assert client.get("/tasks/").json == []


@pytest.mark.parametrize(
    "text", ["{", "NaN", "1e999", '"\\ud800"', "[" * 40 + "]" * 40, "[" * 60_000, f'"{"x" * 65_530}"', "9" * 5_000]
)
def test_json_that_nothing_could_handle_is_refused_at_its_field(client: FlaskClient, text: str) -> None:
    answer = post(client, "/dashboard/operations/trial.echo", **{"params__value:json": text})
    assert answer.status_code == 422
    assert client.get("/tasks/").json == []
    assert post(client, "/dashboard/operations/trial.echo/curl", **{"params__value:json": text}).status_code == 200


def test_a_task_fills_the_form_but_for_its_secrets(app: Flask) -> None:
    key = new_key(app, "ops", Scope.WRITE)
    bound = signed_in(app, new_key(app, "shop", Scope.WRITE, "calculate"))
    client = signed_in(app, key)
    headers = {"Authorization": "Bearer hunter22", "X-Api-Key": "Bearer ${secret:SHOP}", "Author": "me"}
    params = {"url": "http://127.0.0.1/x", "headers": headers, "json": {"order": [{"token": "hunter33"}], "max": 4}}
    client.post(
        "/tasks/",
        json={"operation": "http_request", "params": params, "priority": 7, "max_retries": 1, "run_at": LATE},
        headers={"Authorization": f"Bearer {key}"},
    )
    text = unescape(client.get(f"{HTTP_REQUEST}?from=1").text)
    assert "hunter" not in text
    assert "headers.Authorization, json.order.0.token" in text
    assert '"X-Api-Key": "Bearer ${secret:SHOP}"' in text
    assert '"Author": "me"' in text
    assert 'name="priority" value="7"' in text
    assert '"max": 4' in text
    for address, status in {
        f"{CALCULATE}?from=1": 400,
        f"{HTTP_REQUEST}?from=2": 404,
        f"{HTTP_REQUEST}?from=x": 400,
        f"{HTTP_REQUEST}?from={2**63}": 400,
    }.items():
        assert client.get(address).status_code == status, address
    assert bound.get(f"{CALCULATE}?from=1").status_code == 404


def test_the_shell_line_has_this_host_and_the_path_before_it(client: FlaskClient) -> None:
    text = client.get(CALCULATE, base_url="http://localhost:8080/backbeat").text
    assert "curl http://localhost:8080/backbeat/tasks/" in text
    assert "Authorization" not in text  # no key is needed


@browsers
def test_the_shell_line_posts_exactly_what_the_form_says(app: Flask, site: str) -> None:
    key = new_key(app, "ops", Scope.WRITE)
    client = signed_in(app, key)
    value = {"'; exit 3; '": ['$(exit 4) `exit 5` \\ "!', "\u202e左\u2028\t\n", "@/etc/passwd", 10**30, None, "日本"]}
    form = {"params.value:json": json.dumps(value), "run_at": LATE, "priority": "0"}
    text = client.post(
        "/dashboard/operations/trial.echo/curl",
        data=form,
        headers=OURS,
        base_url=site.replace("127.0.0.1", "localhost"),
    ).text
    line = unescape(re.findall("<pre[^>]*>(.*?)</pre>", text, re.DOTALL)[0])
    assert key not in line
    assert "\u202e" not in line
    shell = subprocess.run(
        ["bash", "-c", f"{line} -fsS"],
        env=os.environ | {"BACKBEAT_API_KEY": key},
        capture_output=True,
        text=True,
        check=False,
    )
    assert shell.returncode == 0, shell.stderr
    task = json.loads(shell.stdout)
    assert (task["params"], task["run_at"], task["priority"]) == ({"value": value}, LATE, 0)


@browsers
def test_a_person_runs_an_operation_and_sees_its_result(
    app: Flask, page: Page, site: str, watch: Watch, worker: Callable[..., Any], client: FlaskClient
) -> None:
    worker()
    page.goto(f"{site}/dashboard/operations")
    page.get_by_role("link", name="Run calculate").click()
    expect(page.get_by_text("1 worker knows it.")).to_be_visible()
    assert inaccessible(page) == ""
    page.get_by_role("textbox", name="expression").fill("4+")
    expect(page.locator("#curl")).to_contain_text('{"expression": "4+"}')
    page.get_by_role("button", name="Run calculate").click()
    expect(page.locator(".wrong")).to_contain_text("found the end, at position 3.")
    assert inaccessible(page) == ""
    watch.errors.clear()  # the browser itself tells of the 422
    field = page.get_by_role("textbox", name="expression")
    expect(field).to_have_attribute("aria-invalid", "true")
    field.fill("4+7")
    page.get_by_role("button", name="Run calculate").click()
    expect(page.get_by_role("status")).to_contain_text("Task 1 is posted.")
    expect(page.locator("#result-json")).to_have_text("11", timeout=20_000)


@browsers
def test_a_page_that_waits_for_its_worker_sees_it_come(
    app: Flask, page: Page, site: str, watch: Watch, worker: Callable[..., Any]
) -> None:
    sign_in(page, site, new_key(app, "ops", Scope.WRITE))
    page.goto(f"{site}{HTTP_REQUEST}")
    expect(page.get_by_text("No living worker knows it")).to_be_visible()
    page.locator("[name='params.url']").fill("http://127.0.0.1/half")
    page.set_viewport_size({"width": 390, "height": 900})
    assert inaccessible(page) == ""
    worker()
    expect(page.get_by_text("1 worker knows it.")).to_be_visible(timeout=20_000)
    expect(page.locator("[name='params.url']")).to_have_value("http://127.0.0.1/half")
