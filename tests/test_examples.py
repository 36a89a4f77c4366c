"""The examples run against a real server, and do what they show."""

import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.system import System

EXAMPLES = Path(__file__).parent.parent / "examples"
KEY = "a-key-of-the-examples"
SERVE = ("-m", "tests.support.serving_openly")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("examples")


@pytest.fixture(scope="module")
def backbeat(shop: Callable[..., System], folder: Path) -> Iterator[System]:
    with shop(folder, serve=SERVE, BACKBEAT_API_KEY=KEY) as system:
        yield system


@pytest.fixture(scope="module")
def runs(backbeat: System) -> dict[str, subprocess.CompletedProcess[str]]:
    """Every script, run in turn."""
    environ = os.environ | {"BACKBEAT_URL": backbeat.url, "BACKBEAT_API_KEY": KEY}

    def run(script: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["sh", script], check=False, env=environ, capture_output=True, text=True, timeout=300)

    return {script.name: run(script) for script in sorted(EXAMPLES.glob("*.sh"))}


@pytest.fixture
def answers(runs: dict[str, subprocess.CompletedProcess[str]]) -> Callable[[str], list[Any]]:
    """The JSON answers that a script shows, each below a line with a comment."""

    def answers(name: str) -> list[Any]:
        assert runs[name].returncode == 0, runs[name].stdout + runs[name].stderr
        parts = re.split(r"^# .*\n", runs[name].stdout, flags=re.MULTILINE)
        found = (re.search(r"^[{\[].*", part, re.MULTILINE | re.DOTALL) for part in parts)
        return [json.loads(answer[0]) for answer in found if answer]

    return answers


def test_the_tasks_of_tasks_sh_are_run_and_deleted(backbeat: System, answers: Callable[..., list[Any]]) -> None:
    posted, request, later, read, waited, logged, stack, listed, changed = answers("tasks.sh")
    assert (read["task_id"], read["status"], read["result"]) == (posted["task_id"], "SUCCESS", 11)
    assert (waited["status"], waited["result"]) == ("SUCCESS", 42)
    assert waited["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert logged == {"attempts": [], "attempt": None, "lines": [], "complete": True}
    assert stack["message"] == f"Task {posted['task_id']} is SUCCESS; only a task that runs has a stack."
    assert backbeat.finished(request["task_id"])["result"]["body"] == '{"status":"ok"}\n'
    assert [task["task_id"] for task in listed] == [later["task_id"]]
    assert (changed["task_id"], changed["priority"]) == (later["task_id"], 1)
    assert later["task_id"] not in [task["task_id"] for task in backbeat.get("/tasks/")]


def test_the_batch_of_batch_sh_ends_in_52_successes(backbeat: System, answers: Callable[..., list[Any]]) -> None:
    batch, partial, refused = answers("batch.sh")
    tasks = [backbeat.finished(task["task_id"]) for task in batch["tasks"]]
    assert Counter((task["status"], task["priority"], task["result"]) for task in tasks) == {
        ("SUCCESS", 9, 11): 38,
        ("SUCCESS", 1, 13): 14,
    }
    assert ([error["index"] for error in partial["errors"]], len(partial["tasks"])) == ([1], 1)
    assert (refused["code"], refused["message"]) == (422, "Nothing was created.")


def test_the_schedules_of_schedules_sh_fire_and_are_deleted(
    backbeat: System, answers: Callable[..., list[Any]]
) -> None:
    hourly, daily, read, listed, changed = answers("schedules.sh")
    assert [task["result"] for task in read["tasks"]] == [15]
    assert [schedule["task_schedule_id"] for schedule in listed] == [
        daily["task_schedule_id"],
        hourly["task_schedule_id"],
    ]
    assert (daily["overlap"], daily["catch_up"], daily["pause_on_failure"]) == ("cancel_previous", "none", True)
    assert changed["every_x_hours"] == 2
    assert backbeat.get("/task-schedules/") == []
    assert backbeat.get(f"/tasks/{read['tasks'][0]['task_id']}/")["task_schedule"] is None


def test_the_tasks_of_control_sh_are_cancelled_and_run_after_all(
    backbeat: System, answers: Callable[..., list[Any]]
) -> None:
    cancelled, retried, batch, dry_run, many_cancelled, many_retried, later, deleted = answers("control.sh")
    assert (cancelled["status"], cancelled["task_id"]) == ("CANCELLED", retried["task_id"])
    assert backbeat.finished(retried["task_id"])["result"] == 42
    ids = [task["task_id"] for task in batch["tasks"]]
    assert (dry_run["task_ids"], dry_run["remaining"]) == ([], 3)
    assert [task["task_id"] for task in dry_run["tasks"]] == ids
    assert many_cancelled["task_ids"] == many_retried["task_ids"] == ids
    assert (many_cancelled["remaining"], many_cancelled["next_cursor"]) == (0, None)
    assert deleted["task_ids"] == [later["task_id"]]
    assert {backbeat.finished(task_id)["status"] for task_id in ids} == {"SUCCESS"}


def test_idempotency_sh_creates_one_task(
    answers: Callable[..., list[Any]], runs: dict[str, subprocess.CompletedProcess[str]]
) -> None:
    first, repetition, other = answers("idempotency.sh")
    assert first == repetition
    assert "Idempotent-Replayed: true" in runs["idempotency.sh"].stdout
    assert (other["code"], list(other["errors"]["headers"])) == (422, ["Idempotency-Key"])


def test_unique_sh_has_one_task_which_runs_as_it_was_posted_last(
    backbeat: System, answers: Callable[..., list[Any]], runs: dict[str, subprocess.CompletedProcess[str]]
) -> None:
    first, kept, replaced = answers("unique.sh")
    assert kept == first
    assert "HTTP/1.1 200" in runs["unique.sh"].stdout
    assert replaced["task_id"] == first["task_id"]
    assert backbeat.finished(first["task_id"])["result"] == 85


def test_rules_sh_shows_the_times_of_each_kind_of_rule(answers: Callable[..., list[Any]]) -> None:
    shown = [[moment["local"] for moment in times] for times in answers("rules.sh")]
    interval, working_days, gap, last_friday, second_monday = shown
    assert interval == ["2040-01-01T06:00:00+00:00", "2040-01-02T18:00:00+00:00", "2040-01-04T06:00:00+00:00"]
    assert working_days == ["2040-03-23T07:30:00+02:00", "2040-03-26T07:30:00+03:00", "2040-03-27T07:30:00+03:00"]
    assert gap == ["2040-03-11T03:00:00-04:00", "2040-03-12T02:30:00-04:00", "2040-03-13T02:30:00-04:00"]
    assert last_friday == ["2040-01-27T17:00:00+00:00", "2040-02-24T17:00:00+00:00", "2040-03-30T17:00:00+01:00"]
    assert second_monday == ["2040-01-02T08:00:00+01:00", "2040-01-16T08:00:00+01:00"]


def test_the_priority_of_queues_sh_is_paused_purged_and_resumed(answers: Callable[..., list[Any]]) -> None:
    paused, purged, resumed = answers("queues.sh")
    assert (paused["priority"], paused["paused"], paused["pause_note"]) == (9, True, "The printer is on fire.")
    assert purged == {"cancelled": 0, "remaining": 0}
    assert (resumed["priority"], resumed["paused"]) == (9, False)


def test_the_limit_of_limits_sh_is_made_used_changed_and_gone(
    backbeat: System, answers: Callable[..., list[Any]]
) -> None:
    made, batch, read, listed, changed = answers("limits.sh")
    assert (made["per"], made["max_running"], made["rate"]["count"], made["code"]) == ("group", 4, 10, None)
    assert [task["group"] for task in batch["tasks"]] == ["first", "first", "second"]
    assert {backbeat.finished(task["task_id"])["status"] for task in batch["tasks"]} == {"SUCCESS"}
    assert read["name"] == "hosts"
    assert [limit["name"] for limit in listed] == ["hosts"]
    assert (changed["max_running"], changed["rate"], changed["per"]) == (8, None, "group")
    assert backbeat.get("/limits/") == []


def test_the_schedule_of_schedule_control_sh_is_paused_triggered_and_backfilled(
    backbeat: System, answers: Callable[..., list[Any]]
) -> None:
    created, upcoming, paused, triggered, resumed, left_out, backfilled, repeated = answers("schedule_control.sh")
    assert left_out == []
    assert len(upcoming) == 3
    assert (paused["paused"], paused["next_run_at"]) == (True, None)
    assert backbeat.finished(triggered["task_id"])["status"] == "SUCCESS"
    assert resumed["next_run_at"] == created["next_run_at"] == upcoming[0]["utc"]
    assert [task["scheduled_for"] for task in backfilled] == [f"2026-01-{day:02}T05:30:00Z" for day in range(5, 10)]
    assert repeated == []


def test_monitoring_sh_shows_workers_queues_and_figures(
    answers: Callable[..., list[Any]], runs: dict[str, subprocess.CompletedProcess[str]]
) -> None:
    workers, queues, attention, failures = answers("monitoring.sh")
    assert [worker["threads"] for worker in workers] == [8]
    assert [queue["priority"] for queue in queues] == list(range(10))
    assert attention["verdict"]["state"] in ("keeping_up", "idle")
    assert failures == []
    assert "\nbackbeat_workers 1.0\n" in runs["monitoring.sh"].stdout


def test_operations_sh_shows_operations_and_specification(answers: Callable[..., list[Any]]) -> None:
    operations, specification = answers("operations.sh")
    names = [operation["name"] for operation in operations]
    assert names == ["calculate", "callback", "http_request", "shop.invoices"]
    assert specification["openapi"] == "3.1.0"


def test_callback_sh_is_told_of_the_end(answers: Callable[..., list[Any]], backbeat: System) -> None:
    posted, told, [delivery] = answers("callback.sh")
    assert (told["task_id"], told["status"], told["result"]) == (posted["task_id"], "SUCCESS", posted["result"])
    assert delivery["labels"] == {"task": str(posted["task_id"])}
    assert backbeat.finished(delivery["task_id"])["status"] == "SUCCESS"


def test_keys_sh_makes_a_key_rotates_and_revokes_it(answers: Callable[..., list[Any]]) -> None:
    created, rotated, listed, audit = answers("keys.sh")
    assert created["key"] != rotated["key"]
    assert created["name"] in [key["name"] for key in listed]
    actions = [(entry["action"], entry["target"]) for entry in audit[:3]]
    assert actions == [(action, created["name"]) for action in ("key.revoke", "key.rotate", "key.create")]


def test_health_sh_shows_that_all_is_well(answers: Callable[..., list[Any]]) -> None:
    liveness, readiness = answers("health.sh")
    assert liveness == {"status": "ok"}
    assert set(readiness["checks"].values()) == {"ok"}


def test_every_example_succeeds_and_has_a_test(runs: dict[str, subprocess.CompletedProcess[str]]) -> None:
    assert {name: run.stderr for name, run in runs.items() if run.returncode} == {}
    tests = " ".join(name for name in globals() if name.startswith("test_"))
    assert [name for name in runs if name.replace(".", "_") not in tests] == []


@pytest.mark.parametrize(
    "script", [path for path in EXAMPLES.glob("*.sh") if path.name != "health.sh"], ids=lambda path: path.name
)
def test_an_example_without_its_key_says_what_is_missing(backbeat: System, script: Path) -> None:
    environ = os.environ | {"BACKBEAT_URL": backbeat.url, "BACKBEAT_API_KEY": ""}
    done = subprocess.run(["sh", script], check=False, env=environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "set BACKBEAT_API_KEY" in done.stderr


def test_the_examples_make_every_call_of_the_api(
    backbeat: System, runs: dict[str, subprocess.CompletedProcess[str]]
) -> None:
    made = re.findall(r"^called: ([A-Z]+) (\S+)$", backbeat.web.output, re.MULTILINE)
    for path, methods in backbeat.get("/openapi.json")["paths"].items():
        pattern = re.sub(r"\{\w+\}", r"[^/]+", path)
        shown = {method.lower() for method, called in made if re.fullmatch(pattern, called)}
        assert methods.keys() - {"parameters"} <= shown, path


def test_the_shop_s_operation_writes_invoices_and_tells_how_far_it_is(backbeat: System, folder: Path) -> None:
    task = backbeat.finished(invoices(backbeat, {"17": "0.30", "18": "9.99"}))
    assert (task["status"], task["result"]) == ("SUCCESS", {"written": 2})
    assert task["progress"] == {"percent": 100, "message": "2 of 2"}
    files = (folder / "invoices").iterdir()
    written = {file.name: file.read_text() for file in files}
    assert written == {"17.txt": "Order 17: 0.30\n", "18.txt": "Order 18: 9.99\n"}


def test_the_shop_s_operation_refuses_no_orders_for_good(backbeat: System) -> None:
    task = backbeat.finished(invoices(backbeat, {}))
    assert (task["status"], task["attempts"]) == ("ERROR", 1)
    assert task["error"] == {"type": "PermanentError", "message": "There are no orders."}


def invoices(backbeat: System, totals: dict[str, str]) -> int:
    body = {"operation": "shop.invoices", "params": {"totals": totals}}
    task_id: int = backbeat.call("POST", "/tasks/", body)["task_id"]
    return task_id
