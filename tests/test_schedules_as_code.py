"""`flask schedules apply` makes the schedules of an owner agree with a file, and leaves all others alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from flask_migrate import downgrade, upgrade
from sqlalchemy import text

from scheduler_app.extensions import db
from tests.support import trial_operations  # noqa: F401 (registers them)

Run = Callable[..., str]
NIGHTLY = {"name": "nightly", "operation": "5+10", "cron": "30 7 * * MON-FRI", "timezone": "Europe/Bucharest"}
HOURLY = {
    "name": "hourly",
    "operation": "calculate",
    "params": {"expression": "1+1"},
    "every_x_hours": 1,
    "overlap": {"max": 3},
    "jitter": 30,
    "labels": {"team": "a"},
    "group": "nightly",
    "retry": {"max_retries": 1, "min_seconds": 10},
    "expires_in": 600,
}


@pytest.fixture
def run(app: Flask, tmp_path: Path) -> Run:
    """Applies a file, or runs another command; returns what is printed."""

    def run(*schedules: dict[str, Any], options: tuple[str, ...] = (), owner: str = "shop", fails: bool = False) -> str:
        path = tmp_path / "schedules.json"
        path.write_text(json.dumps({"owner": owner, "schedules": schedules}))
        done = app.test_cli_runner().invoke(args=["schedules", "apply", str(path), *options])
        assert (done.exit_code != 0) == fails, done.output
        return done.output

    return run


def export(app: Flask, *options: str) -> Any:
    done = app.test_cli_runner().invoke(args=["schedules", "export", *options])
    assert done.exit_code == 0, done.output
    return done


def shown(client: FlaskClient) -> dict[str, Any]:
    return {one["name"]: one for one in client.get("/task-schedules/").json}


def test_a_file_makes_its_schedules_and_a_second_time_nothing(client: FlaskClient, run: Run) -> None:
    output = run(NIGHTLY, HOURLY)
    assert output.splitlines()[-1] == "2 changed, 2 in the file"
    assert "+ make nightly" in output
    made = shown(client)
    assert made["nightly"]["owner"] == made["hourly"]["owner"] == "shop"
    assert (made["nightly"]["params"], made["nightly"]["cron"]) == ({"expression": "5+10"}, "30 7 * * MON-FRI")
    assert (made["hourly"]["overlap"], made["hourly"]["jitter"]) == ({"max": 3}, 30)
    assert made["hourly"]["retry"] == {"max_retries": 1, "min_seconds": 10, "max_seconds": 600, "factor": 2}
    assert run(NIGHTLY, HOURLY) == "0 changed, 2 in the file\n"
    assert shown(client) == made


def test_what_differs_is_changed_and_all_else_stays(client: FlaskClient, run: Run) -> None:
    run(NIGHTLY, HOURLY)
    before = shown(client)
    output = run(NIGHTLY | {"priority": 1, "pause_on_failure": True}, HOURLY)
    assert output.splitlines() == [
        "~ change nightly",
        "    pause_on_failure: false → true",
        "    priority: 5 → 1",
        "1 changed, 2 in the file",
    ]
    after = shown(client)
    assert after["nightly"] == before["nightly"] | {"priority": 1, "pause_on_failure": True}
    assert after["hourly"] == before["hourly"]
    own = ("overlap", "labels", "group", "retry", "jitter")
    run(NIGHTLY, {name: value for name, value in HOURLY.items() if name not in own})
    back = shown(client)
    assert back["nightly"] == before["nightly"], "what the file leaves out is as usual again"
    assert (back["hourly"]["overlap"], back["hourly"]["labels"], back["hourly"]["jitter"]) == ("allow", {}, 0)
    assert (before["hourly"]["group"], back["hourly"]["group"]) == ("nightly", None)
    assert back["hourly"]["retry"] == {"max_retries": 5, "min_seconds": 1, "max_seconds": 600, "factor": 2}


def test_a_changed_rule_counts_from_now_and_one_that_stays_goes_on(client: FlaskClient, run: Run) -> None:
    run(HOURLY)
    next_run_at = shown(client)["hourly"]["next_run_at"]
    run(HOURLY | {"priority": 0})
    assert shown(client)["hourly"]["next_run_at"] == next_run_at
    run({**HOURLY, "every_x_hours": None, "cron": "0 0 1 1 *"})
    assert shown(client)["hourly"]["next_run_at"].endswith("-01-01T00:00:00Z")


def test_what_the_file_names_no_longer_is_paused_and_goes_on_when_it_is_back(client: FlaskClient, run: Run) -> None:
    run(NIGHTLY, HOURLY)
    assert "- pause hourly" in run(NIGHTLY)
    hourly = shown(client)["hourly"]
    assert (hourly["paused"], hourly["pause_note"]) == (True, "No longer in the file of shop.")
    assert run(NIGHTLY) == "0 changed, 1 in the file\n"
    assert "~ resume hourly" in run(NIGHTLY, HOURLY)
    assert shown(client)["hourly"]["paused"] is False


def test_with_delete_it_is_deleted(client: FlaskClient, run: Run) -> None:
    run(NIGHTLY, HOURLY)
    run(NIGHTLY)
    assert "- delete hourly" in run(NIGHTLY, options=("--delete",))
    assert shown(client).keys() == {"nightly"}


def test_a_pause_by_hand_stays(client: FlaskClient, run: Run) -> None:
    run(NIGHTLY)
    client.post("/task-schedules/1/pause/", json={"note": "a holiday"})
    assert run(NIGHTLY) == "0 changed, 1 in the file\n"
    assert run() == "0 changed, 0 in the file\n"
    assert shown(client)["nightly"]["pause_note"] == "a holiday"


def test_schedules_of_others_are_left_alone(client: FlaskClient, run: Run) -> None:
    run(HOURLY | {"name": "theirs"}, owner="bank")
    client.post("/task-schedules/", json={"operation": "1+1", "every_x_hours": 1, "name": "by hand"})
    client.post("/task-schedules/", json={"operation": "1+1", "every_x_hours": 1})
    others = shown(client)
    run(NIGHTLY)
    run()
    run(options=("--delete",))
    assert shown(client) == others


def test_one_of_nobody_is_taken_over_and_one_of_another_owner_is_refused(client: FlaskClient, run: Run) -> None:
    client.post("/task-schedules/", json={"operation": "5+10", "every_x_hours": 2, "name": "nightly"})
    output = run({"name": "nightly", "operation": "5+10", "every_x_hours": 2})
    assert output.splitlines()[:2] == ["~ change nightly", '    owner: null → "shop"']
    refused = run(HOURLY, NIGHTLY, owner="bank", fails=True)
    assert "Schedule 1 of this name belongs to shop." in refused
    assert shown(client).keys() == {"nightly"}, "nothing was changed"


def test_a_dry_run_shows_the_difference_and_changes_nothing(client: FlaskClient, run: Run) -> None:
    run(NIGHTLY)
    before = shown(client)
    output = run(NIGHTLY | {"cron": "0 8 * * *"}, HOURLY, options=("--dry-run",))
    assert '    cron: "30 7 * * MON-FRI" → "0 8 * * *"' in output
    assert "+ make hourly" in output
    assert output.splitlines()[-1] == "2 would change, 2 in the file"
    assert shown(client) == before


@pytest.mark.parametrize(
    ("schedules", "says"),
    [
        ([{"operation": "1+1", "every_x_hours": 1}], "Missing data for required field."),
        ([NIGHTLY, NIGHTLY], "Named more than once: 'nightly'."),
        ([NIGHTLY, {**HOURLY, "cron": "* * * * *"}], "exactly one kind of rule"),
        (
            [NIGHTLY, {**NIGHTLY, "name": "b", "cron": "0 0 1 1 *", "end_at": "2001-01-01T00:00:00Z"}],
            "Not before the rule's next time",
        ),
        ([NIGHTLY, {**HOURLY, "operation": "no.such"}], "Unknown"),
        ([NIGHTLY, {**HOURLY, "jiter": 3}], "did you mean jitter?"),
    ],
)
def test_a_file_with_one_that_cannot_be_changes_nothing(
    client: FlaskClient, run: Run, schedules: list[dict[str, Any]], says: str
) -> None:
    assert says in run(*schedules, fails=True)
    assert shown(client) == {}


def test_a_file_that_cannot_be_read_says_so_in_a_line(app: Flask, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for content, says in (("{", "is not JSON"), ("[]", "Must be a JSON object."), ('{"owner": "a b"}', "1 to 64 of")):
        path.write_text(content)
        done = app.test_cli_runner().invoke(args=["schedules", "apply", str(path)])
        assert (done.exit_code, says in done.output, "Traceback" in done.output) == (1, True, False)


def test_what_is_exported_and_applied_is_the_same(app: Flask, client: FlaskClient, run: Run, tmp_path: Path) -> None:
    later, own = {"start_at": "2040-01-01T02:00:00+02:00"}, {"name": "own", "operation": "trial.retry"}
    run(NIGHTLY | later, HOURLY, NIGHTLY | own)
    client.post("/task-schedules/", json={"operation": "1+1", "every_x_hours": 1, "name": "by hand"})
    client.post("/task-schedules/", json={"operation": "1+1", "every_x_hours": 1})
    usual = {"max_retries": 3, "min_seconds": 1, "max_seconds": 600, "factor": 2}
    client.patch("/task-schedules/3/", json={"retry": usual})
    before = shown(client)
    exported = export(app, "--owner", "shop")
    file = json.loads(exported.stdout)
    assert exported.stderr == "1 left out, which have no name: a file knows them by it\n"
    assert file["owner"] == "shop"
    assert [one["name"] for one in file["schedules"]] == ["by hand", "hourly", "nightly", "own"]
    assert run(*file["schedules"]).splitlines()[-1] == "1 changed, 4 in the file", "the one by hand is taken over"
    assert shown(client) == before | {"by hand": before["by hand"] | {"owner": "shop"}}
    for name in before:
        if name:
            client.delete(f"/task-schedules/{before[name]['task_schedule_id']}/")
    run(*file["schedules"])
    changing = ("task_schedule_id", "next_run_at", "created_at", "created_by", "owner")
    again = shown(client)
    for name in filter(None, before):
        for field in changing:
            before[name].pop(field), again[name].pop(field)
        assert again[name] == before[name]


def test_the_example_is_applied_as_shown(app: Flask, client: FlaskClient) -> None:
    path = Path(__file__).parent.parent / "examples/schedules.json"
    done = app.test_cli_runner().invoke(args=["schedules", "apply", str(path)])
    assert done.output.splitlines()[-1] == "2 changed, 2 in the file"
    assert shown(client)["price check"]["overlap"] == {"max": 3}


def test_names_are_unique(client: FlaskClient) -> None:
    body = {"operation": "1+1", "every_x_hours": 1}
    assert client.post("/task-schedules/", json=body | {"name": "a"}).status_code == 201
    second = client.post("/task-schedules/", json=body | {"name": "b"}).json["task_schedule_id"]
    for answer in (
        client.post("/task-schedules/", json=body | {"name": "a"}),
        client.patch(f"/task-schedules/{second}/", json={"name": "a"}),
    ):
        errors = {"json": {"name": ["Another schedule is called 'a'."]}}
        assert (answer.status_code, answer.json["errors"]) == (422, errors)
    for _ in range(2):
        assert client.post("/task-schedules/", json=body).status_code == 201
    assert client.patch(f"/task-schedules/{second}/", json={"name": "b", "priority": 1}).status_code == 200


def test_the_dashboard_says_whose_file_a_schedule_is_kept_in(client: FlaskClient, run: Run) -> None:
    run(HOURLY)
    page = client.get("/dashboard/schedules/1").text
    assert "Kept in the file of <b>shop</b>" in page
    assert "up to 30 s later" in page
    assert "A time is left out while 3 tasks have not finished" in page


@pytest.mark.old("0020")
@pytest.mark.usefixtures("old")
def test_schedules_that_had_one_name_get_names_of_their_own() -> None:
    columns = "operation, params, priority, max_retries, anchor_at, times_scheduled, created_at, name"
    values = "'calculate', '{}', 5, 5, '2030-01-01', 0, '2030-01-01', :name"
    with db.engine.begin() as connection:
        for name in ("a", "a", "a (2)", None, None, "b", "a", "x" * 200, "x" * 200):
            connection.execute(text(f"INSERT INTO task_schedule ({columns}) VALUES ({values})"), {"name": name})  # noqa: S608
    upgrade()
    with db.engine.connect() as connection:
        names = connection.scalars(text("SELECT name FROM task_schedule ORDER BY task_schedule_id")).all()
    assert names == ["a", "a (2)", "a (2) (3)", None, None, "b", "a (7)", "x" * 200, "x" * 170 + " (9)"]
    downgrade(revision="0020")
