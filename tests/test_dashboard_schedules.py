"""The dashboard's pages about schedules: the list, one schedule, its form; as a person uses them."""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import Browser, Page, expect

from scheduler_app.access_models import Scope
from scheduler_app.services import task_schedules
from scheduler_app.services.firing import fire_due
from tests.support import schedules as made
from tests.support.browser import Watch, inaccessible
from tests.support.pages import OURS, new_key, sign_in, signed_in
from tests.support.schedules import HOUR, NOON

SCHEDULES = "/dashboard/schedules"
browsers = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # one kind is enough there
FIELDS = {
    "kind": "interval", "every": "2", "unit": "hours", "timezone": "UTC", "operation": "calculate", "priority": "5",
    "overlap": "allow", "catch_up": "latest", "window": "1", "window_unit": "days", "params.expression": "4+7",
}  # fmt: skip


@pytest.fixture
def create(app: Flask) -> Callable[..., int]:
    def create(**fields: Any) -> int:
        with app.app_context():
            return made.create(**fields)

    return create


@pytest.fixture
def within(app: Flask) -> Callable[..., Any]:
    """Calls a service."""

    def within(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        with app.app_context():
            return call(*args, **options)

    return within


def send(client: FlaskClient, path: str = "new", do: str = "save", **fields: str) -> Any:
    return client.post(f"{SCHEDULES}/{path}", data=FIELDS | {"do": do} | fields, headers=OURS)


def only(client: FlaskClient) -> dict[str, Any]:
    [schedule] = client.get("/task-schedules/").json
    return dict(schedule)


def test_an_empty_list_tells_none_yet_from_none_match(client: FlaskClient) -> None:
    assert "No schedules yet" in client.get(SCHEDULES).text
    for query in ("q=report", "state=paused", "after=~9"):
        assert "None match" in client.get(f"{SCHEDULES}?{query}").text


def test_the_list_is_searched_filtered_and_comes_in_pages(
    client: FlaskClient, create: Callable[..., int], within: Callable[..., Any]
) -> None:
    ids = [create(every_x_hours=1, name=f"report {number}") for number in range(51)]
    within(task_schedules.pause, ids[0], note="a holiday", now=NOON)
    first = client.get(SCHEDULES).text
    assert first.count("<tr id=") == 50
    [further] = re.findall(r'href="([^"]+after=[^"]+)"', first)
    assert re.findall(r'<tr id="s-(\d+)"', client.get(further.replace("&amp;", "&")).text) == [str(ids[0])]
    assert client.get(f"{SCHEDULES}?q=report+7").text.count("<tr id=") == 1
    paused = client.get(f"{SCHEDULES}?state=paused").text
    assert (paused.count("<tr id="), "a holiday" in paused) == (1, True)


@pytest.mark.parametrize("query", ["state=gone", "after=x", "after=2030-01-01~1", "after=~" + "9" * 99, "after=x~1"])
def test_what_cannot_be_read_is_refused(client: FlaskClient, query: str) -> None:
    assert client.get(f"{SCHEDULES}?{query}").status_code == 400


def test_a_form_makes_a_schedule(client: FlaskClient) -> None:
    answer = send(client, name="nightly", at_most="3", start_at="2040-06-01T12:00", timezone="Europe/Bucharest")
    assert (answer.status_code, answer.location) == (303, f"{SCHEDULES}/1")
    shown = only(client)
    assert (shown["every_x_hours"], shown["name"], shown["schedule_x_times"]) == (2, "nightly", 3)
    assert (shown["start_at"], shown["params"]) == ("2040-06-01T09:00:00Z", {"expression": "4+7"})
    assert "The schedule is made." in client.get(answer.location).text


WRONG = [
    ({"every": "x"}, "every", "Must be a whole number from 1 to 87840."),
    ({"every": ""}, "every", "Must be a whole number from 1 to 87840."),
    ({"every": "9" * 5_000}, "every", "Must be a whole number"),
    ({"kind": "cron", "cron": "* * *"}, "cron", "five fields"),
    ({"kind": "rrule", "rrule": "FREQ=NEVER"}, "rrule", "FREQ is one of"),
    ({"kind": "rrule", "rrule": "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30"}, "rrule", "It never fires from now on"),
    ({"kind": "calendar", "cal.unit": "years", "cal.at": "09:00"}, "cal.months", "Needed is at least one month."),
    ({"kind": "calendar", "cal.unit": "days", "cal.at": "noon"}, "cal.at", "A time of day, such as 09:30."),
    ({"kind": "calendar", "cal.unit": "months", "cal.at": "25:00", "cal.days": "1"}, "rrule", "BYHOUR is 0 to 23."),
    ({"kind": "nonsense"}, "rrule", "Length must be between"),
    ({"timezone": "Mars/Base"}, "timezone", "A name of the IANA time zone database"),
    ({"start_at": "soon"}, "start_at", "Not a time in ISO 8601"),
    ({"end_at": "2020-01-01T00:00"}, "end_at", "Not before the rule&#39;s next time"),
    ({"at_most": "-1"}, "at_most", "Must be a whole number from 1"),
    ({"window": "9999999999"}, "window", "Must be a whole number from 60"),
    ({"operation": "nonsense"}, "operation", "Unknown;"),
    ({"params.expression": "4+"}, "params.expression", "found the end"),
    ({"max_retries": "many"}, "max_retries", "Must be a whole number from 0 to 100."),
]


@pytest.mark.parametrize(("fields", "name", "says"), WRONG)
def test_what_is_wrong_is_said_at_its_field(client: FlaskClient, fields: dict[str, str], name: str, says: str) -> None:
    answer = send(client, **fields)
    assert answer.status_code == 422
    after = answer.text[answer.text.index(f'name="{name}"') :]
    assert re.search(r'class="wrong".*?</svg>(?:<span>)?' + r"[^<]*" + re.escape(says), after, re.DOTALL), after[:900]
    assert client.get("/task-schedules/").json == []


def test_a_preview_of_a_hostile_rule_takes_little_time(client: FlaskClient) -> None:
    rules = [
        {"kind": "cron", "cron": "0 0 29 2 1"},
        {"kind": "cron", "cron": ",".join(map(str, range(60))) + " 0,1,2,3,4,5 * 2 *"},
        {"kind": "rrule", "rrule": "FREQ=YEARLY;INTERVAL=4;BYMONTH=2;BYMONTHDAY=29;BYDAY=SU"},
        {"kind": "rrule", "rrule": "FREQ=MINUTELY;INTERVAL=999;BYMONTHDAY=31;BYDAY=FR;BYHOUR=3"},
    ]
    for rule in rules:
        began = time.perf_counter()
        assert send(client, "preview", timezone="Europe/Bucharest", **rule).status_code == 200
        assert time.perf_counter() - began < 3, rule


def test_markup_in_a_schedule_is_shown_as_text(client: FlaskClient, create: Callable[..., int]) -> None:
    name = "<script>alert(1)</script>\u202egnp.exe"
    number = create(every_x_hours=1, name=name, params={"expression": "<b>1</b>"})
    for path in ("", f"/{number}", f"/{number}/edit", f"/{number}/delete", f"/{number}/backfill"):
        text = client.get(SCHEDULES + path).text
        assert "&lt;script&gt;" in text, path
        assert "<script>alert" not in text


def test_a_schedule_whose_operation_is_not_known_here_keeps_it_when_it_is_changed(
    client: FlaskClient, create: Callable[..., int]
) -> None:
    number = create(every_x_hours=1, operation="shop.gone", params={"a": [1]})
    assert "Its parameters stay as they are." in client.get(f"{SCHEDULES}/{number}/edit").text
    assert send(client, f"{number}/edit", operation="shop.gone").status_code == 303
    shown = only(client)
    assert (shown["operation"], shown["params"], shown["every_x_hours"]) == ("shop.gone", {"a": [1]}, 2)


def test_acts_reach_what_is_chosen_and_say_how_many(client: FlaskClient, create: Callable[..., int]) -> None:
    ids = [create(every_x_hours=1) for _ in range(3)]
    answer = client.post(f"{SCHEDULES}/pause", data={"id": ids[:2], "note": "why"}, headers=OURS)
    assert "2 schedules are paused." in client.get(answer.location).text
    assert [one["pause_note"] for one in client.get("/task-schedules/").json] == [None, "why", "why"]
    answer = client.post(f"{SCHEDULES}/resume", data={"id": [ids[0], 99, "x"]}, headers=OURS)
    said = client.get(answer.location).text
    assert "1 schedule is resumed, from now on. There is no task schedule 99" in said
    answer = client.post(f"{SCHEDULES}/trigger", data={"id": ids[2], "to": "one"}, headers=OURS)
    assert answer.location == f"{SCHEDULES}/{ids[2]}"
    answer = client.post(f"{SCHEDULES}/trigger", headers=OURS)
    assert "Choose schedules first." in client.get(answer.location).text


def test_a_backfill_is_counted_before_it_is_done(client: FlaskClient, create: Callable[..., int]) -> None:
    number = create(cron="0 */6 * * *", timezone="Europe/Bucharest", now=datetime(2026, 1, 1, tzinfo=UTC))
    stretch = {"start": "2026-01-05T00:00", "end": "2026-01-06T00:00"}
    path = f"{SCHEDULES}/{number}/backfill"
    assert "4 times have no task" in client.get(path, query_string=stretch).text
    answer = client.post(path, data=stretch, headers=OURS)
    assert "4 tasks are created." in client.get(answer.location).text
    assert "All 4 times in this stretch have a task." in client.get(path, query_string=stretch).text
    wrong = client.get(path, query_string={"start": "2026-01-05T00:00", "end": "2026-01-04T00:00"})
    assert (wrong.status_code, "After start, not in the future." in wrong.text) == (422, True)
    assert client.post(path, data={"start": "x"}, headers=OURS).status_code == 422
    assert "More than 1,000 times" in client.get(path, query_string=stretch | {"start": "2020-01-01T00:00"}).text


def test_a_reader_sees_no_button_and_a_bound_key_what_it_reaches(app: Flask, create: Callable[..., int]) -> None:
    number, hidden = create(every_x_hours=1, name="mine"), create(every_x_hours=1, operation="shop.x", params={})
    reader = signed_in(app, new_key(app, "reader", Scope.READ))
    for path in ("", f"/{number}"):
        text = reader.get(SCHEDULES + path).text
        assert not re.search("New schedule|Trigger|Pause</|Backfill|Delete|type=.checkbox", text), path
    for path in ("new", f"{number}/edit", f"{number}/backfill", f"{number}/delete"):
        assert reader.get(f"{SCHEDULES}/{path}").status_code == 403
    bound = signed_in(app, new_key(app, "bound", Scope.WRITE, "calculate"))
    assert re.findall(r'<tr id="s-(\d+)"', bound.get(SCHEDULES).text) == [str(number)]
    for path in (f"{hidden}", f"{hidden}/edit", f"{hidden}/backfill", f"{hidden}/delete"):
        assert bound.get(f"{SCHEDULES}/{path}").status_code == 404


@browsers
def test_a_person_makes_a_schedule_and_sees_what_the_clocks_do(page: Page, site: str, watch: Watch) -> None:
    page.goto(f"{site}{SCHEDULES}")
    page.get_by_role("link", name="Make the first one").click()
    preview = page.get_by_role("region", name="Preview")
    expect(preview.get_by_role("heading")).to_have_text("Every hour")
    page.get_by_text("Calendar", exact=True).click()
    page.get_by_label("Unit").nth(1).select_option("years")
    page.get_by_label("Time of day").fill("03:30")
    for month in ("Mar", "Oct"):
        page.get_by_text(month, exact=True).click()
    page.get_by_label("on the", exact=True).check()
    page.locator("[name='cal.weekday']").select_option("Sunday")
    page.get_by_label("Time zone").fill("Europe/Bucharest")
    expect(preview.get_by_role("heading")).to_have_text("At 03:30 on the last Sunday of March and October")
    expect(preview).to_contain_text("in Europe/Bucharest: now UTC+")
    expect(preview).to_contain_text("Gap: clocks go from 03:00 to 04:00, so 03:30 does not exist. It fires at")
    expect(preview).to_contain_text("so 03:30 comes twice. It fires once, the first time (UTC+3).")
    assert preview.locator("tbody tr:not(.note)").count() == 10
    page.get_by_label("Name", exact=True).fill("clock watcher")
    page.get_by_role("textbox", name="expression").fill("4+7")
    assert inaccessible(page) == ""
    page.get_by_role("button", name="Make the schedule").click()
    expect(page.get_by_role("status")).to_have_text("The schedule is made.")
    expect(page.locator(".verdict h2")).to_have_text("At 03:30 on the last Sunday of March and October")
    expect(page.get_by_role("region", name="The next times")).to_contain_text("Gap:")


@browsers
def test_a_person_changes_a_schedule_and_sees_which_times_go_and_come(
    page: Page, site: str, watch: Watch, create: Callable[..., int], client: FlaskClient
) -> None:
    number = create(cron="0 */6 * * *", name="report", now=datetime.now(UTC))
    page.goto(f"{site}{SCHEDULES}/{number}")
    page.get_by_role("link", name="Change").click()
    preview = page.get_by_role("region", name="Preview")
    expect(preview.locator(".goes, .comes")).to_have_count(0)
    page.locator("[name=cron]").fill("0 */4 * * *")
    expect(preview.get_by_role("heading")).to_contain_text("At 00:00, 04:00, 08:00")
    expect(preview).to_contain_text("With this change")
    expect(preview.locator(".goes").first).to_contain_text(re.compile("06:00|18:00"))
    page.locator("[name=cron]").fill("0 */4")
    expect(preview.get_by_role("heading")).to_have_text("Not a rule yet")
    page.locator("[name=cron]").fill("0 */4 * * *")
    page.get_by_role("button", name="Save the change").click()
    expect(page.get_by_role("status")).to_have_text("The schedule is changed.")
    assert only(client)["cron"] == "0 */4 * * *"


@browsers
def test_a_person_pauses_with_a_note_triggers_resumes_and_deletes(
    page: Page, site: str, watch: Watch, create: Callable[..., int], client: FlaskClient
) -> None:
    number = create(every_x_hours=1, name="report", now=datetime.now(UTC))
    page.goto(f"{site}{SCHEDULES}/{number}")
    page.locator("summary", has_text="Pause").click()
    page.get_by_label("Why, for people").fill("the warehouse is being moved")
    page.get_by_role("button", name="Pause it").click()
    expect(page.locator(".banner")).to_contain_text("Paused. the warehouse is being moved.")
    page.get_by_role("button", name="Trigger now").click()
    expect(page.get_by_role("region", name="Runs").get_by_text("PENDING")).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("status")).to_have_text("The schedule is resumed, from now on.")
    expect(page.locator(".banner")).to_have_count(0)
    page.get_by_role("link", name="Delete").click()
    page.get_by_role("button", name="Delete it").click()
    expect(page.get_by_role("heading", name="No schedules yet")).to_be_visible()
    assert client.get("/task-schedules/").json == []


@browsers
def test_a_person_sees_why_a_time_got_no_task(
    page: Page, site: str, watch: Watch, create: Callable[..., int], within: Callable[..., Any]
) -> None:
    number = create(every_x_hours=1, name="report", overlap="skip")
    for hour in (0, 1):
        within(fire_due, now=NOON + hour * HOUR)
    within(task_schedules.pause, number, now=NOON + 1.5 * HOUR)
    within(task_schedules.resume, number, now=NOON + 30 * HOUR)
    page.goto(f"{site}{SCHEDULES}")
    expect(page.get_by_role("img", name="The latest runs")).to_have_attribute("aria-label", re.compile("PENDING"))
    page.get_by_role("link", name="1", exact=True).click()
    rows = page.get_by_role("region", name="Times left out").locator("tbody tr")
    expect(rows).to_have_count(12)
    expect(rows.nth(0)).to_contain_text("The schedule was paused.")
    expect(rows.nth(10)).to_contain_text("19")
    expect(rows.nth(11)).to_contain_text("A task of the schedule had not finished.")


@browsers
def test_several_are_chosen_and_paused_at_once(
    page: Page, site: str, watch: Watch, create: Callable[..., int], client: FlaskClient
) -> None:
    for name in ("a", "b", "c"):
        create(every_x_hours=1, name=name)
    page.goto(f"{site}{SCHEDULES}")
    for name in ("a", "c"):
        page.get_by_role("checkbox", name=f"Choose {name}").check()
    expect(page.locator(".marker")).to_contain_text("Held while rows are chosen")
    page.get_by_label("Why they are paused").fill("stocktaking")
    page.get_by_label("Why they are paused").press("Enter")
    expect(page.get_by_role("status")).to_have_text("2 schedules are paused.")
    page.get_by_role("link", name="Paused").click()
    expect(page.locator("tbody tr")).to_have_count(2)


KINDS = [
    {"every_x_minutes": 90},
    {"every_x_days": 2, "schedule_x_times": 9, "end_at": NOON + timedelta(days=99)},
    {"cron": "30 7 * * MON-FRI", "timezone": "Europe/Bucharest", "start_at": NOON + timedelta(seconds=7)},
    {"rrule": "FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,WE", "overlap": "skip", "catch_up": "none", "catch_up_window": 5_400},
    {"rrule": "FREQ=MONTHLY;BYMONTHDAY=1,15,-1;BYHOUR=5;BYMINUTE=0", "pause_on_failure": True, "catch_up_window": 61},
    {"rrule": "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1;BYHOUR=17;BYMINUTE=0", "name": "last working day"},
    {"rrule": "FREQ=YEARLY;BYMONTH=3,10;BYDAY=-1SU;BYHOUR=3;BYMINUTE=30", "timezone": "Europe/Bucharest"},
    {"rrule": "FREQ=DAILY;COUNT=10", "max_retries": 0, "priority": 0},
    {"rrule": "FREQ=HOURLY;INTERVAL=5;BYMINUTE=7"},
    {"operation": "http_request", "params": {"url": "http://127.0.0.1/", "headers": {"a": "b"}, "json": [1, None]}},
]


@browsers
def test_saving_without_a_change_changes_nothing(
    page: Page, site: str, watch: Watch, create: Callable[..., int], client: FlaskClient
) -> None:
    for kind in KINDS:
        number = create(
            **({} if kind.keys() & {"every_x_minutes", "every_x_days", "cron", "rrule"} else {"every_x_hours": 3})
            | kind
        )
        before = client.get(f"/task-schedules/{number}/").json
        page.goto(f"{site}{SCHEDULES}/{number}/edit")
        expect(page.locator("#preview .goes, #preview .comes")).to_have_count(0)
        page.get_by_role("button", name="Save the change").click()
        expect(page.get_by_role("status")).to_have_text("The schedule is changed.")
        assert client.get(f"/task-schedules/{number}/").json == before, kind


@browsers
def test_the_form_works_without_a_script(browser: Browser, site: str, client: FlaskClient) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site}{SCHEDULES}/new")
    page.get_by_text("Cron", exact=True).click()
    page.locator("[name=cron]").fill("30 7 * * 1-5")
    page.get_by_label("Operation").select_option("http_request")
    page.get_by_role("button", name="Show the parameters").click()
    page.get_by_role("textbox", name="url", exact=True).fill("http://127.0.0.1/")
    page.get_by_role("button", name="Preview", exact=True).last.click()
    expect(page.locator("#preview h2")).to_have_text("At 07:30 on Monday to Friday")
    page.get_by_role("button", name="Make the schedule").click()
    shown = only(client)
    assert (shown["cron"], shown["operation"], shown["params"]["url"]) == (
        "30 7 * * 1-5", "http_request", "http://127.0.0.1/",
    )  # fmt: skip
    context.close()


@browsers
def test_with_a_key_a_writer_works_and_a_reader_looks(
    app: Flask, page: Page, site: str, watch: Watch, create: Callable[..., int]
) -> None:
    number = create(every_x_hours=1, name="report")
    sign_in(page, site, new_key(app, "writer", Scope.WRITE))
    page.goto(f"{site}{SCHEDULES}/{number}")
    page.get_by_role("button", name="Trigger now").click()
    expect(page.get_by_role("status")).to_have_text("The schedule is triggered: a task was created.")
    page.locator(".side").get_by_role("button", name="Sign out").click()
    sign_in(page, site, new_key(app, "reader", Scope.READ))
    page.goto(f"{site}{SCHEDULES}/{number}")
    expect(page.get_by_text("PENDING")).to_be_visible()
    expect(page.locator(".toolbar")).to_have_count(0)


@browsers
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing(
    page: Page, site: str, watch: Watch, create: Callable[..., int], within: Callable[..., Any], theme: str, width: int
) -> None:
    number = create(
        cron="30 3 * * *", timezone="Europe/Bucharest", overlap="skip", now=datetime(2026, 1, 1, tzinfo=UTC)
    )
    within(fire_due, now=datetime(2026, 1, 9, tzinfo=UTC))
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size({"width": width, "height": 900})
    stretch = "start=2026-01-05T00:00&end=2026-01-06T00:00"
    for path in ("", f"/{number}", f"/{number}/edit", "/new", f"/{number}/delete", f"/{number}/backfill?{stretch}"):
        page.goto(site + SCHEDULES + path)
        assert inaccessible(page) == "", path
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, path
    page.goto(f"{site}{SCHEDULES}/new?operation=http_request")
    for kind in ("Cron", "Calendar", "RFC 5545"):
        page.get_by_text(kind, exact=True).click()
        assert inaccessible(page) == "", kind
