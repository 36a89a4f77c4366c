"""/task-schedules/: what is accepted, what comes back."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient

from scheduler_app.services.firing import fire_due

NOON = datetime(2040, 6, 1, 12, tzinfo=UTC)


def fire(client: FlaskClient, *moments: datetime) -> None:
    with client.application.app_context():
        for moment in moments:
            fire_due(now=moment)


def post(client: FlaskClient, **fields: Any) -> dict[str, Any]:
    answer = client.post("/task-schedules/", json={"operation": "5+10", "every_x_hours": 1} | fields)
    assert answer.status_code == 201, answer.json
    assert client.get(answer.headers["Location"]).json == answer.json | {"tasks": [], "left_out": []}
    return answer.json


def test_a_posted_schedule_comes_back_whole(client: FlaskClient) -> None:
    schedule = post(client, name="nightly", schedule_x_times=2, start_at="2040-01-01T02:00:00+02:00")
    assert schedule["params"] == {"expression": "5+10"}
    assert schedule["start_at"] == schedule["next_run_at"] == "2040-01-01T00:00:00Z"
    assert (schedule["name"], schedule["schedule_x_times"], schedule["times_scheduled"]) == ("nightly", 2, 0)


def test_a_schedule_shows_its_latest_ten_tasks(client: FlaskClient) -> None:
    schedule = post(client, start_at="2040-06-01T12:00:00Z")
    fire(client, *(NOON + timedelta(hours=hour) for hour in range(12)))
    tasks = client.get(f"/task-schedules/{schedule['task_schedule_id']}/").json["tasks"]
    assert [task["scheduled_for"] for task in tasks] == [f"2040-06-01T{hour}:00:00Z" for hour in range(23, 13, -1)]
    assert {task["task_schedule"] for task in tasks} == {schedule["task_schedule_id"]}


def test_a_schedule_without_rule_is_refused(client: FlaskClient) -> None:
    answer = client.post("/task-schedules/", json={"operation": "5+10"})
    assert answer.status_code == 422
    assert "every_x_hours" in answer.json["errors"]["json"]


def test_a_schedule_cannot_lose_its_rule(client: FlaskClient) -> None:
    path = f"/task-schedules/{post(client)['task_schedule_id']}/"
    assert client.patch(path, json={"every_x_hours": None}).status_code == 422
    assert client.get(path).json["every_x_hours"] == 1
    assert client.patch(path, json={"every_x_hours": None, "every_x_days": 1}).status_code == 200


def test_a_schedule_that_ends_before_it_starts_is_refused(client: FlaskClient) -> None:
    body = {
        "operation": "1+1",
        "every_x_hours": 1,
        "start_at": "2040-01-02T00:00:00Z",
        "end_at": "2040-01-01T00:00:00Z",
    }
    answer = client.post("/task-schedules/", json=body)
    assert answer.status_code == 422
    assert list(answer.json["errors"]["json"]) == ["end_at"]


def test_a_patch_changes_only_what_it_names(client: FlaskClient) -> None:
    schedule = post(client, name="old", priority=3, max_retries=1)
    changed = client.patch(f"/task-schedules/{schedule['task_schedule_id']}/", json={"operation": "6+6", "name": None})
    assert changed.status_code == 200
    assert changed.json == schedule | {"params": {"expression": "6+6"}, "name": None}


def test_parameters_change_only_together_with_their_operation(client: FlaskClient) -> None:
    path = f"/task-schedules/{post(client)['task_schedule_id']}/"
    assert client.patch(path, json={"params": {"expression": "1"}}).status_code == 422
    answer = client.patch(path, json={"operation": "calculate", "params": {"expression": "1"}})
    assert answer.json["params"] == {"expression": "1"}


@pytest.mark.parametrize(
    "body", [{"every_x_hours": 0}, {"priority": None}, {"operation": "nonsense"}, {"paused": 7}, []]
)
def test_a_wrong_patch_changes_nothing(client: FlaskClient, body: Any) -> None:
    path = f"/task-schedules/{post(client)['task_schedule_id']}/"
    before = client.get(path).json
    assert client.patch(path, json=body).status_code == 422
    assert client.get(path).json == before


def test_the_tasks_of_a_deleted_schedule_stay(client: FlaskClient) -> None:
    schedule = post(client, start_at="2040-06-01T12:00:00Z")
    fire(client, NOON)
    assert client.delete(f"/task-schedules/{schedule['task_schedule_id']}/").status_code == 204
    [task] = client.get("/tasks/").json
    assert (task["task_schedule"], task["scheduled_for"]) == (None, "2040-06-01T12:00:00Z")
    assert client.delete(f"/task-schedules/{schedule['task_schedule_id']}/").status_code == 404


def test_the_list_of_schedules_comes_in_pages(client: FlaskClient) -> None:
    posted = [post(client)["task_schedule_id"] for _ in range(3)]
    first = client.get("/task-schedules/?limit=2")
    assert [schedule["task_schedule_id"] for schedule in first.json] == posted[:0:-1]
    link = first.headers["Link"]
    second = client.get(link[1 : link.index(">")])
    assert [schedule["task_schedule_id"] for schedule in second.json] == posted[:1]
    assert "Link" not in second.headers


def test_a_schedule_shows_the_latest_times_that_got_no_task(client: FlaskClient) -> None:
    schedule = post(client, start_at="2040-06-01T12:00:00Z")
    fire(client, NOON + timedelta(hours=2))
    shown = client.get(f"/task-schedules/{schedule['task_schedule_id']}/").json
    assert (shown["missed"], shown["skipped"]) == (2, 0)
    assert shown["left_out"] == [
        {
            "scheduled_for": f"2040-06-01T{hour}:00:00Z",
            "last_for": f"2040-06-01T{hour}:00:00Z",
            "times": 1,
            "reason": "superseded",
            "recorded_at": "2040-06-01T14:00:00Z",
        }
        for hour in (13, 12)
    ]
    assert client.get(f"/task-schedules/{schedule['task_schedule_id']}/left-out/").json == shown["left_out"]


def test_a_schedule_is_paused_with_a_note_and_resumed(client: FlaskClient) -> None:
    path = f"/task-schedules/{post(client, start_at='2040-06-01T12:00:00Z')['task_schedule_id']}/"
    paused = client.post(f"{path}pause/", json={"note": "a holiday"}).json
    assert (paused["paused"], paused["pause_note"], paused["next_run_at"]) == (True, "a holiday", None)
    assert client.post(f"{path}pause/").json["pause_note"] is None
    resumed = client.post(f"{path}resume/").json
    assert (resumed["paused"], resumed["next_run_at"]) == (False, "2040-06-01T12:00:00Z")


def test_a_trigger_answers_with_the_task(client: FlaskClient) -> None:
    schedule = post(client, start_at="2040-06-01T12:00:00Z")
    answer = client.post(f"/task-schedules/{schedule['task_schedule_id']}/trigger/")
    assert (answer.status_code, answer.json["task_schedule"]) == (202, schedule["task_schedule_id"])
    assert client.get(answer.headers["Location"]).json["params"] == schedule["params"]


def test_what_is_repeated_with_the_same_key_happens_once(client: FlaskClient) -> None:
    body, headers = {"operation": "1+1", "every_x_hours": 1}, {"Idempotency-Key": "a"}
    first, again = (client.post("/task-schedules/", json=body, headers=headers) for _ in range(2))
    assert (again.status_code, again.json, again.headers["Idempotent-Replayed"]) == (201, first.json, "true")
    assert again.headers["Location"] == first.headers["Location"]
    path = f"/task-schedules/{first.json['task_schedule_id']}/trigger/"
    first, again = (client.post(path, headers={"Idempotency-Key": "b"}) for _ in range(2))
    assert (again.status_code, again.json) == (202, first.json)
    assert len(client.get("/task-schedules/").json) == len(client.get("/tasks/").json) == 1


def test_upcoming_times_come_in_both_clocks(client: FlaskClient) -> None:
    rule = {"every_x_hours": None, "cron": "30 7 1 6 *", "timezone": "Europe/Bucharest"}
    schedule = post(client, start_at="2040-06-01T00:00:00Z", **rule)
    answer = client.get(f"/task-schedules/{schedule['task_schedule_id']}/upcoming/?limit=2")
    assert answer.json == [
        {"utc": time, "local": local, "clock_change": None, "run_at": time}
        for time, local in (
            ("2040-06-01T04:30:00Z", "2040-06-01T07:30:00+03:00"),
            ("2041-06-01T04:30:00Z", "2041-06-01T07:30:00+03:00"),
        )
    ]


def test_a_preview_marks_the_times_that_a_change_of_the_clocks_moves(client: FlaskClient) -> None:
    rule = {"cron": "30 3 * * *", "timezone": "Europe/Bucharest", "start_at": "2030-03-30T12:00:00Z"}
    [moved, usual] = client.post("/task-schedules/preview/?limit=2", json=rule).json
    assert moved["clock_change"] == {
        "kind": "gap",
        "named": "2030-03-31T03:30:00",
        "clock_from": "2030-03-31T03:00:00",
        "clock_to": "2030-03-31T04:00:00",
    }
    assert usual["clock_change"] is None


def test_a_preview_keeps_nothing(client: FlaskClient) -> None:
    rule = {"cron": "0 0 * * *", "start_at": "2040-01-01T00:00:00Z", "schedule_x_times": 2}
    answer = client.post("/task-schedules/preview/?limit=5", json=rule)
    assert [time["utc"] for time in answer.json] == ["2040-01-01T00:00:00Z", "2040-01-02T00:00:00Z"]
    assert client.get("/task-schedules/").json == []


def test_minutes_go_together_with_other_intervals_and_the_longest_counts(client: FlaskClient) -> None:
    start = {"start_at": "2040-06-01T00:00:00Z"}
    schedule = post(client, every_x_hours=None, every_x_minutes=10, **start)
    assert (schedule["every_x_minutes"], schedule["every_x_hours"]) == (10, None)
    fire(client, NOON)
    path = f"/task-schedules/{schedule['task_schedule_id']}/"
    assert client.get(path).json["next_run_at"] == "2040-06-01T12:10:00Z"
    for minutes, second in ((59, "01:00"), (61, "01:01")):
        times = client.post("/task-schedules/preview/", json={"every_x_hours": 1, "every_x_minutes": minutes} | start)
        assert times.json[1]["utc"] == f"2040-06-01T{second}:00Z"
    both = client.patch(path, json={"cron": "@hourly"})
    assert both.json["errors"]["json"].keys() == {"every_x_minutes", "cron"}


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
    ],
)
def test_a_name_stands_for_five_fields_of_cron(client: FlaskClient, name: str, fields: str) -> None:
    named, spelt = (
        client.post("/task-schedules/preview/", json={"cron": text, "timezone": "Asia/Tokyo"}).json
        for text in (name, fields)
    )
    assert len(named) == 10
    assert named == spelt
    assert post(client, every_x_hours=None, cron=name)["cron"] == name


def test_upcoming_times_can_begin_later_and_be_up_to_200(client: FlaskClient) -> None:
    start = "2040-01-01T00:00:00Z"
    query = "?after=2040-02-01T00:00:00Z&limit=200"
    preview = client.post(f"/task-schedules/preview/{query}", json={"cron": "0 0 * * *", "start_at": start})
    assert (len(preview.json), preview.json[0]["utc"]) == (200, "2040-02-02T00:00:00Z")
    path = f"/task-schedules/{post(client, every_x_hours=24, start_at=start)['task_schedule_id']}/upcoming/"
    assert client.get(path + query).json == preview.json
    assert client.get(f"{path}?after=2001-01-01T00:00:00Z&limit=1").json[0]["utc"] == start
    assert client.get(f"{path}?limit=201").status_code == 422


def test_upcoming_times_that_begin_later_still_count_off_what_lies_before_them(client: FlaskClient) -> None:
    start = "2040-01-01T00:00:00Z"
    rule = {"every_x_hours": 1, "start_at": start}

    def preview(times: int) -> Any:
        return client.post(
            "/task-schedules/preview/?after=2040-01-01T02:00:00Z", json=rule | {"schedule_x_times": times}
        )

    assert [time["utc"] for time in preview(5).json] == ["2040-01-01T03:00:00Z", "2040-01-01T04:00:00Z"]
    assert preview(2).json == []
    far = client.post(
        "/task-schedules/preview/?after=2950-01-01T00:00:00Z", json=rule | {"schedule_x_times": 1_000_000}
    )
    assert (far.status_code, list(far.json["errors"]["query"])) == (422, ["after"])


def test_a_backfill_answers_with_its_tasks(client: FlaskClient) -> None:
    path = f"/task-schedules/{post(client, every_x_hours=None, cron='0 * * * *')['task_schedule_id']}/backfill/"
    stretch = {"start": "2024-01-01T00:00:00Z", "end": "2024-01-01T03:00:00Z"}
    answer = client.post(path, json=stretch)
    assert answer.status_code == 202
    assert [task["scheduled_for"] for task in answer.json] == [f"2024-01-01T0{hour}:00:00Z" for hour in range(3)]
    assert client.post(path, json=stretch).json == []
    refused = client.post(path, json=stretch | {"end": "2025-01-01T00:00:00Z"})
    assert (refused.status_code, list(refused.json["errors"]["json"])) == (422, ["end"])


@pytest.mark.parametrize("call", ["pause", "resume", "trigger", "upcoming", "backfill"])
def test_what_is_asked_of_a_schedule_that_is_not_there_is_not_found(client: FlaskClient, call: str) -> None:
    body = {"start": "2024-01-01T00:00:00Z", "end": "2024-01-01T03:00:00Z"} if call == "backfill" else None
    method = "GET" if call == "upcoming" else "POST"
    assert client.open(f"/task-schedules/7/{call}/", method=method, json=body).status_code == 404


BAD_RULES: list[tuple[dict[str, Any], str]] = [
    ({"cron": "* * * *"}, "cron"),
    ({"cron": "61 * * * *"}, "cron"),
    ({"cron": "0 0 31 2 *"}, "cron"),
    ({"cron": "@reboot"}, "cron"),
    ({"cron": "@daily 5"}, "cron"),
    ({"every_x_minutes": 0}, "every_x_minutes"),
    ({"every_x_minutes": 10**9}, "every_x_minutes"),
    ({"cron": "* * * * * *"}, "cron"),
    ({"cron": "1," * 99 + "1 * * * *"}, "cron"),
    ({"cron": ""}, "cron"),
    ({"cron": 7}, "cron"),
    ({"rrule": "FREQ=SECONDLY"}, "rrule"),
    ({"rrule": "FREQ=DAILY;INTERVAL=0"}, "rrule"),
    ({"rrule": "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30"}, "rrule"),
    ({"rrule": "FREQ=MINUTELY;BYMONTH=2;BYMONTHDAY=30"}, "rrule"),
    ({"rrule": "FREQ=DAILY;COUNT=1000000000"}, "rrule"),
    ({"rrule": "FREQ=DAILY;UNTIL=20200101T000000Z"}, "rrule"),
    ({"rrule": "a\0b"}, "rrule"),
    ({"cron": "0 0 * * *", "timezone": "Mars/Olympus"}, "timezone"),
    ({"cron": "0 0 * * *", "timezone": "../../etc/passwd"}, "timezone"),
    ({"cron": "0 0 * * *", "timezone": None}, "timezone"),
    ({"cron": "0 0 1 1 *", "start_at": "2040-01-02T00:00:00Z", "end_at": "2040-02-01T00:00:00Z"}, "end_at"),
    ({"every_x_hours": 1, "overlap": "maybe"}, "overlap"),
    ({"every_x_hours": 1, "catch_up": True}, "catch_up"),
    ({"every_x_hours": 1, "catch_up_window": 59}, "catch_up_window"),
    ({"every_x_hours": 1, "catch_up_window": 10**9}, "catch_up_window"),
    ({"every_x_hours": 1, "pause_on_failure": "yes"}, "pause_on_failure"),
]


@pytest.mark.parametrize(("rule", "named"), BAD_RULES, ids=str)
def test_a_rule_that_cannot_be_is_refused_at_once(client: FlaskClient, rule: dict[str, Any], named: str) -> None:
    began = time.process_time()
    answer = client.post("/task-schedules/", json={"operation": "1+1"} | rule)
    assert time.process_time() - began < 1  # of a search without end
    assert (answer.status_code, list(answer.json["errors"]["json"])) == (422, [named])
    assert client.get("/task-schedules/").json == []


def test_two_kinds_of_rule_are_refused(client: FlaskClient) -> None:
    answer = client.post("/task-schedules/", json={"operation": "1+1", "every_x_days": 1, "cron": "* * * * *"})
    assert (answer.status_code, set(answer.json["errors"]["json"])) == (422, {"every_x_days", "cron"})
    path = f"/task-schedules/{post(client)['task_schedule_id']}/"
    assert client.patch(path, json={"rrule": "FREQ=DAILY"}).status_code == 422
    assert client.patch(path, json={"rrule": "FREQ=DAILY", "every_x_hours": None}).status_code == 200


def test_each_example_in_the_specification_can_be_tried(client: FlaskClient) -> None:
    paths = client.get("/openapi.json").json["paths"]
    for path, status in (("/task-schedules/", 201), ("/task-schedules/preview/", 200)):
        examples = paths[path]["post"]["requestBody"]["content"]["application/json"]["examples"]
        kinds = {kind for example in examples.values() for kind in example["value"]}
        assert {"every_x_hours", "every_x_days", "cron", "rrule"} <= kinds
        for example in examples.values():
            answer = client.post(path, json=example["value"])
            assert answer.status_code == status, answer.json
