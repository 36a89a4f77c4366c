"""Tasks run by real workers under the stock dramatiq command."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.support.processes import Process, eventually
from tests.support.tasks import finished, get, submit

Start = Callable[..., Process]


@pytest.fixture
def trial(worker: Start) -> Start:
    """A worker that has the operations of these tests as well."""
    return lambda *options, **extra: worker(
        *options, BACKBEAT_OPERATIONS="actors,tests.support.trial_operations", **extra
    )


@pytest.fixture
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | {"BACKBEAT_OPERATIONS": "actors,tests.support.trial_operations"}


def test_a_task_runs_and_its_result_stands_in_its_row(client: FlaskClient, trial: Start) -> None:
    trial()
    [task] = finished(client, submit(client, {"operation": "4+7"}))
    assert (task["status"], task["result"], task["attempts"], task["error"]) == ("SUCCESS", 11, 1, None)
    assert task["created_at"] <= task["started_at"] <= task["finished_at"]


def test_every_kind_of_json_survives_as_result(client: FlaskClient, trial: Start) -> None:
    trial()
    values = [None, 0, 10**30, 0.1, "", "ü\0\\", [1, [2, {}]], {"a": None}, True]
    tasks = finished(client, submit(client, *({"operation": "trial.echo", "params": {"value": v}} for v in values)))
    assert [task["result"] for task in tasks] == values
    assert [task["params"]["value"] for task in tasks] == values


def test_a_failure_is_retried_after_a_backoff_and_may_then_succeed(
    client: FlaskClient, trial: Start, scheduler: Start
) -> None:
    trial()
    [task_id] = submit(client, {"operation": "trial.fail_once"})
    retrying = eventually(lambda: (task := get(client, task_id))["status"] == "RETRYING" and task)
    assert retrying["run_at"] > retrying["started_at"]
    assert retrying["error"] == {"type": "RuntimeError", "message": "not yet"}
    scheduler()
    [task] = finished(client, [task_id])
    assert (task["status"], task["result"], task["attempts"]) == ("SUCCESS", 2, 2)
    assert task["started_at"] >= retrying["run_at"]


def test_after_the_last_attempt_it_is_an_error_with_every_failure_kept(
    client: FlaskClient, trial: Start, scheduler: Start
) -> None:
    process = trial()
    scheduler()
    [task] = finished(client, submit(client, {"operation": "trial.fail", "max_retries": 1}))
    assert (task["status"], task["attempts"], task["result"]) == ("ERROR", 2, None)
    retried = rf" INFO worker .*: task {task['task_id']}: attempt 1 failed, tried again at "
    eventually(
        lambda: re.search(rf" WARNING worker .*: task {task['task_id']}: gave up after 2 attempts", process.output)
    )
    assert re.search(retried, process.output)
    messages = [f"attempt {attempt} of task {task['task_id']}" for attempt in (1, 2)]
    assert [failure["message"] for failure in task["failures"]] == messages
    assert task["error"] == {"type": "RuntimeError", "message": messages[-1]}
    assert "trial_operations.py" in task["failures"][0]["traceback"]


@pytest.mark.parametrize(
    ("name", "kind", "part"),
    [
        ("trial.give_up", "PermanentError", "no use"),
        ("trial.object", "PermanentError", "not JSON"),
        ("trial.spin", "TimeLimitExceeded", "0.5 s"),
        ("trial.exit", "SystemExit", "3"),
        ("trial.unprintable", "RuntimeError", "a\N{REPLACEMENT CHARACTER}b?xxx"),
    ],
)
def test_what_cannot_succeed_is_an_error_after_one_attempt(
    client: FlaskClient, trial: Start, name: str, kind: str, part: str
) -> None:
    process = trial()
    [task, after] = finished(client, submit(client, {"operation": name}, {"operation": "1+1"}))
    assert (task["status"], task["attempts"], task["error"]["type"]) == ("ERROR", 1, kind)
    assert part in task["error"]["message"]
    assert after["status"] == "SUCCESS"
    assert process.popen.poll() is None


def test_division_by_zero_is_an_error_that_says_so(client: FlaskClient, worker: Start) -> None:
    worker()
    [task] = finished(client, submit(client, {"operation": "9/0"}))
    assert (task["status"], task["attempts"], task["error"]["type"]) == ("ERROR", 1, "PermanentError")
    assert "zero" in task["error"]["message"]


def test_progress_is_seen_while_it_runs_and_its_last_word_stays(client: FlaskClient, worker: Start) -> None:
    worker()
    [task_id] = submit(client, {"operation": "trial.report", "params": {"seconds": 1.5}})
    eventually(lambda: (get(client, task_id)["progress"] or {}).get("message") == "half")
    assert get(client, task_id)["status"] == "STARTED"
    [task] = finished(client, [task_id])
    assert task["progress"] == {"percent": 100.0, "message": "all"}


def test_a_task_whose_operation_no_worker_knows_yet_waits_and_spends_no_attempt(
    client: FlaskClient, worker: Start, trial: Start, scheduler: Start
) -> None:
    old = worker(BACKBEAT_OPERATIONS="actors")
    [task_id] = submit(client, {"operation": "trial.echo", "params": {"value": 1}, "max_retries": 0})
    task = eventually(
        lambda: ((task := get(client, task_id))["waiting_for"] or {}).get("reason") == "operation" and task
    )
    assert (task["status"], task["attempts"], task["failures"]) == ("PENDING", 0, [])
    assert task["waiting_for"]["operation"] == "trial.echo"
    old.stop()
    trial()
    scheduler()
    [task] = finished(client, [task_id])
    assert (task["status"], task["result"], task["attempts"]) == ("SUCCESS", 1, 1)


def test_a_deleted_task_does_not_run(client: FlaskClient, trial: Start) -> None:
    deleted, kept = submit(client, {"operation": "1+1"}, {"operation": "2+2"})
    client.delete(f"/tasks/{deleted}/")
    trial()
    finished(client, [kept])
    assert client.get(f"/tasks/{deleted}/").status_code == 404


def test_a_task_runs_when_its_time_has_come(client: FlaskClient, worker: Start, scheduler: Start) -> None:
    worker()
    scheduler()
    [now_id] = submit(client, {"operation": "1+1"})
    [now] = finished(client, [now_id])
    run_at = now["finished_at"].replace("Z", "+00:00")
    [later] = finished(client, submit(client, {"operation": "2+2", "run_at": run_at}))
    assert later["started_at"] >= later["run_at"]


def test_the_urgent_ones_of_the_example_batch_finish_before_the_bulk(client: FlaskClient, worker: Start) -> None:
    bulk = [{"operation": "4+7", "priority": 9}] * 38
    urgent = [{"operation": "4+9", "priority": 1}] * 14
    ids = submit(client, *bulk, *urgent)
    worker(threads=1)
    tasks = sorted(finished(client, ids), key=lambda task: task["finished_at"])
    assert [task["result"] for task in tasks].count(11) == 38
    order = "".join(str(task["priority"]) for task in tasks)
    assert order[:15].count("1") >= 13, order


def test_a_most_urgent_task_starts_at_once_beside_a_full_worker(client: FlaskClient, trial: Start) -> None:
    trial(threads=2)
    long = submit(client, *[{"operation": "trial.wait", "params": {"seconds": 20}, "priority": 9}] * 4)
    eventually(lambda: [get(client, task_id)["status"] for task_id in long].count("STARTED") == 2)
    trial(threads=3)
    eventually(lambda: [get(client, task_id)["status"] for task_id in long].count("STARTED") == 4)
    [task] = finished(client, submit(client, {"operation": "4+7", "priority": 0}), within=5)
    assert task["status"] == "SUCCESS"


def test_a_stopped_worker_finishes_what_runs_and_gives_back_the_rest(
    client: FlaskClient, trial: Start, valkey: Any
) -> None:
    first = trial(threads=2)
    ids = submit(client, *[{"operation": "trial.wait", "params": {"seconds": 2}}] * 12)
    eventually(lambda: client.get("/tasks/?status=STARTED").json)
    assert first.stop() == 0
    statuses = [get(client, task_id)["status"] for task_id in ids]
    assert set(statuses) == {"SUCCESS", "PENDING"}
    assert len(valkey.client.hkeys("dramatiq:tasks.p5.msgs")) == statuses.count("PENDING")
    assert valkey.client.llen("dramatiq:tasks.p5") == statuses.count("PENDING")
    trial(threads=8)
    assert {task["attempts"] for task in finished(client, ids)} == {1}


def test_a_worker_that_is_stopped_amid_short_tasks_leaves_none_begun(client: FlaskClient, trial: Start) -> None:
    ids = [task_id for _ in range(100) for task_id in submit(client, *[{"operation": "1+1"}] * 200)]

    def any_is(status: str) -> bool:
        return bool(client.get(f"/tasks/?status={status}&limit=1").json)

    worker = trial()
    eventually(lambda: get(client, ids[100])["status"] == "SUCCESS")
    assert worker.stop() == 0
    assert any_is("PENDING")
    assert not any_is("STARTED")
    assert not any_is("RETRYING")


def test_a_schedule_has_its_first_task_finished_within_seconds(
    client: FlaskClient, worker: Start, scheduler: Start
) -> None:
    worker()
    scheduler()
    body = {"operation": "5+10", "every_x_hours": 1, "schedule_x_times": 2}
    path = f"/task-schedules/{client.post('/task-schedules/', json=body).json['task_schedule_id']}/"

    def first() -> dict[str, Any] | None:
        tasks = client.get(path).json["tasks"]
        return tasks[0] if tasks and tasks[0]["status"] == "SUCCESS" else None

    task = eventually(first, within=10)
    schedule = client.get(path).json
    assert task["result"] == 15
    assert (schedule["times_scheduled"], len(schedule["tasks"])) == (1, 1)
    assert schedule["next_run_at"][11:] != task["scheduled_for"][11:]
    assert schedule["last_run_at"] == task["scheduled_for"]


def test_what_was_posted_while_redis_was_down_runs_once_it_is_back(
    client: FlaskClient, worker: Start, scheduler: Start, own_valkey: Any
) -> None:
    own_valkey.kill()
    ids = submit(client, *[{"operation": "4+7"}] * 20)
    own_valkey.start()
    worker()
    scheduler()
    assert {(task["status"], task["attempts"]) for task in finished(client, ids)} == {("SUCCESS", 1)}
