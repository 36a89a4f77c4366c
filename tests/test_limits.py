"""Limits, from the API to the workers: they hold whatever happens, and no slot is lost."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from scheduler_app.access_models import Scope
from scheduler_app.database import clock
from scheduler_app.errors import Forbidden, LimitNotFound
from scheduler_app.services import callers, limits
from tests.support import limit_operations
from tests.support.limit_operations import Span, most_at_once, spans
from tests.support.pages import new_key
from tests.support.processes import Process, eventually
from tests.support.servers import Valkey
from tests.support.tasks import submit

RESCUE = 30  # seconds
WORK = limit_operations.__name__


class Trial:
    """Workers that run limited tasks, and the lines that these leave."""

    def __init__(
        self, client: FlaskClient, lines: Path, start: Callable[[], Process], scheduler: Callable[..., Process]
    ) -> None:
        self.client = client
        self.lines = lines
        self._start = start
        self.scheduler = scheduler()
        self.workers = [start(), start()]
        self.killed: dict[int, float] = {}

    def limit(self, name: str = "limited.work", **values: Any) -> Any:
        answer = self.client.put(f"/limits/{name}/", json=values)
        assert answer.status_code == 200, answer.json
        return answer.json

    def post(self, count: int, *, seconds: float = 0.05, operation: str = "limited.work", **task: Any) -> list[int]:
        task = {"operation": operation, "params": {"seconds": seconds}, "max_retries": 20} | task
        return submit(self.client, *[task] * count)

    def spans(self) -> list[Span]:
        return spans(self.lines, self.killed)

    def kill(self, worker: Process) -> None:
        pids = {int(line.split()[2]) for line in self.lines.read_text().splitlines()}
        its_own = [pid for pid in pids if os.getpgid(pid) == worker.popen.pid]
        worker.kill()
        self.killed |= dict.fromkeys(its_own, time.monotonic())

    def replace(self, worker: Process) -> None:
        self.workers[self.workers.index(worker)] = self._start()

    def wait(self, task_ids: list[int], *, within: float = RESCUE) -> None:
        unfinished = [*task_ids]

        def all_succeeded() -> bool:
            while unfinished and self.client.get(f"/tasks/{unfinished[-1]}/").json["status"] == "SUCCESS":
                unfinished.pop()
            return not unfinished

        eventually(all_succeeded, within=within)


@pytest.fixture
def trial(
    client: FlaskClient,
    start: Callable[..., Process],
    worker: Callable[..., Process],
    scheduler: Callable[..., Process],
    tmp_path: Path,
) -> Trial:
    lines = tmp_path / "lines"
    extra = {"BACKBEAT_OPERATIONS": f"actors,{WORK}", "LIMIT_LINES": str(lines)}
    return Trial(client, lines, lambda: worker(**extra), lambda: scheduler(**extra))


def test_a_limit_of_the_code_holds_over_all_workers(trial: Trial) -> None:
    trial.wait(trial.post(60))
    assert most_at_once(trial.spans()) == 3


def test_a_limit_changes_at_runtime_for_what_waits_already(trial: Trial) -> None:
    first = trial.post(40, seconds=0.2)
    eventually(lambda: most_at_once(trial.spans()) == 3)
    changed = trial.limit(max_running=6)
    assert (changed["max_running"], changed["code"]) == (6, {"max_running": 3, "rate": None})
    eventually(lambda: most_at_once(trial.spans()) == 6, within=5)
    trial.wait(first)
    assert most_at_once(trial.spans()) == 6
    assert trial.client.delete("/limits/limited.work/").status_code == 204
    since = len(trial.spans())
    trial.wait(trial.post(20))
    assert most_at_once(trial.spans()[since:]) == 3
    eventually(lambda: trial.client.get("/limits/limited.work/").json["used"] == 0)


def test_a_new_limit_counts_what_runs(trial: Trial) -> None:
    trial.post(600, seconds=0.2, operation="limited.free")
    eventually(lambda: most_at_once(trial.spans()) > 4)
    trial.limit("calm", operation="limited.free", max_running=4)
    since = time.monotonic() + 1

    def later() -> list[Span]:
        return [Span(max(span.begin, since), span.end) for span in trial.spans() if span.end > since]

    eventually(lambda: len(later()) > 20)
    assert most_at_once(later()) == 4
    trial.client.post("/tasks/cancel/", json={"operation": "limited.free", "limit": 500})


def test_a_rate_holds_over_all_workers(trial: Trial) -> None:
    trial.limit(max_running=16, rate={"count": 20, "seconds": 1, "burst": 2})
    began = time.monotonic()
    trial.wait(trial.post(40, seconds=0))
    assert max(trial.spans()).begin - began > 38 / 20 - 0.05


def test_groups_share_a_limit_by_turns_and_each_has_its_own(trial: Trial) -> None:
    trial.limit(max_running=8)
    trial.limit("each", operation="limited.work", per="group", max_running=2)
    trial.post(400, group="big")
    small = trial.post(4, group="small")
    trial.wait(small)
    assert trial.client.get("/tasks/?group=big&status=PENDING").json
    assert most_at_once(trial.spans()) <= 4
    trial.client.post("/tasks/cancel/", json={"group": "big", "limit": 500})


@pytest.mark.parametrize("harm", ["killed", "stopped", "frozen"])
def test_a_limit_holds_while_a_worker_is(harm: str, trial: Trial) -> None:
    tasks = trial.post(150, seconds=0.1)
    eventually(lambda: len(trial.spans()) > 20)
    worker = trial.workers[0]
    if harm == "killed":
        trial.kill(worker)
        trial.replace(worker)
    elif harm == "stopped":
        worker.stop()
        trial.replace(worker)
    else:
        worker.signal(signal.SIGSTOP)
        begun = len(trial.spans())
        eventually(lambda: len(trial.spans()) >= begun + 1 or most_at_once(trial.spans()) == 3)
        worker.signal(signal.SIGCONT)
    trial.wait(tasks, within=60)
    assert most_at_once(trial.spans()) == 3
    full(trial)


@pytest.mark.parametrize("loss", ["flushed", "restarted"])
def test_a_limit_holds_while_redis_is(loss: str, trial: Trial, valkey: Valkey) -> None:
    tasks = trial.post(150, seconds=0.1)
    eventually(lambda: len(trial.spans()) > 20)
    if loss == "flushed":
        valkey.client.flushall()
    else:
        valkey.kill()  # without its data: it keeps no file
        valkey.start()
    trial.wait(tasks, within=60)
    assert most_at_once(trial.spans()) == 3
    full(trial)


def full(trial: Trial) -> None:
    """No slot is lost: the limit is used to the full again."""
    since = len(trial.spans())
    tasks = trial.post(12, seconds=0.3)
    eventually(lambda: most_at_once(trial.spans()[since:]) == 3, within=RESCUE)
    trial.wait(tasks)


def test_a_task_says_which_limit_it_waits_for(trial: Trial) -> None:
    trial.post(3, seconds=60)
    eventually(lambda: len(trial.spans()) == 3)
    [waiting] = trial.post(1)
    eventually(lambda: trial.client.get(f"/tasks/{waiting}/").json["waiting_for"]["reason"] == "limit")
    found = trial.client.get(f"/tasks/{waiting}/").json["waiting_for"]
    assert found == {"reason": "limit", "limit": "limited.work", "seconds": None, "ahead": 0}
    [shown] = [one for one in trial.client.get("/limits/").json if one["name"] == "limited.work"]
    assert (shown["used"], shown["waiting"]) == (3, 1)
    assert shown["groups"] == [{"group": None, "used": 3}]


# The API


def test_a_new_limit_names_its_operation(client: FlaskClient) -> None:
    answer = client.put("/limits/hosts/", json={"max_running": 4})
    assert answer.status_code == 404
    assert answer.json["errors"] == {"operation": ["Needed: there is no limit 'hosts' yet."]}


def test_a_limit_is_made_changed_and_gone(client: FlaskClient) -> None:
    made = client.put("/limits/hosts/", json={"operation": "http_request", "per": "group", "max_running": 4}).json
    assert (made["max_running"], made["rate"], made["code"], made["used"]) == (4, None, None, 0)
    changed = client.put("/limits/hosts/", json={"rate": {"count": 10}}).json
    assert (changed["max_running"], changed["rate"]) == (None, {"count": 10, "seconds": 1, "burst": 1})
    assert (changed["per"], changed["operation"]) == ("group", "http_request")
    assert client.get("/limits/hosts/").json == changed
    assert changed in client.get("/limits/").json
    assert client.delete("/limits/hosts/").status_code == 204
    for gone in (client.get("/limits/hosts/"), client.delete("/limits/hosts/")):
        assert (gone.status_code, gone.json["message"]) == (404, "There is no limit 'hosts'.")


def test_a_limit_of_the_code_keeps_its_operation_and_may_be_lifted(client: FlaskClient) -> None:
    answer = client.put("/limits/limited.work/", json={"per": "group", "max_running": 4})
    assert answer.json["errors"] == {"per": ["Is 'operation' in the code, and stays so."]}
    lifted = client.put("/limits/limited.work/", json={}).json
    assert (lifted["max_running"], lifted["code"]) == (None, {"max_running": 3, "rate": None})
    client.delete("/limits/limited.work/")
    assert client.get("/limits/limited.work/").json["max_running"] == 3


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"operation": "http_request", "max_running": 0}, "max_running"),
        ({"operation": "http_request", "max_running": 10_001}, "max_running"),
        ({"operation": "http_request", "rate": {"count": 0}}, "rate"),
        ({"operation": "http_request", "rate": {"count": 1, "seconds": 0}}, "rate"),
        ({"operation": "http_request", "max_running": 1, "per": "host"}, "per"),
        ({"operation": "No!", "max_running": 1}, "operation"),
    ],
)
def test_what_is_wrong_is_named(client: FlaskClient, body: dict[str, Any], field: str) -> None:
    answer = client.put("/limits/hosts/", json=body)
    assert answer.status_code == 422
    assert field in (answer.json["errors"].get("json") or answer.json["errors"])


def test_a_limit_without_a_number_is_none(client: FlaskClient) -> None:
    answer = client.put("/limits/hosts/", json={"operation": "http_request"})
    assert answer.status_code == 409
    assert answer.json["errors"] == {"max_running": ["Give max_running, rate, or both."]}


def test_there_is_an_end_to_limits(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST", 2)
    for name in ("a", "b"):
        assert client.put(f"/limits/{name}/", json={"operation": "http_request", "max_running": 1}).status_code == 200
    answer = client.put("/limits/c/", json={"operation": "http_request", "max_running": 1})
    assert answer.json["errors"] == {"name": ["At most 2 limits are set at runtime."]}
    assert client.put("/limits/b/", json={"max_running": 2}).status_code == 200


def test_a_change_while_redis_is_away_counts_once_it_is_back(
    app: Flask, client: FlaskClient, own_valkey: Valkey, another: Callable[..., Flask]
) -> None:
    away = another(REDIS_URL=own_valkey.url)
    own_valkey.kill()
    assert (
        away.test_client().put("/limits/hosts/", json={"operation": "http_request", "max_running": 4}).status_code
        == 200
    )
    own_valkey.start()
    with away.app_context():
        limits.renew(now=None)  # type: ignore[arg-type]
        assert away.extensions["backbeat.broker"].limits.state() is not None
        assert {b"http_request", b"limited.work"} <= set(own_valkey.client.hkeys("dramatiq:__limits__"))


def test_only_admins_change_limits_and_a_bound_key_sees_its_own(app: Flask, client: FlaskClient) -> None:
    hosts = {"operation": "http_request", "max_running": 4}
    with app.app_context():
        limits.put("hosts", hosts, now=clock())
        everything = {one["name"] for one in limits.find()}
    assert {"hosts", "limited.work"} <= everything
    bounds: dict[str, tuple[str, ...]] = {"reader": (), "writer": (), "bound": ("http_request",), "other": ("shop.*",)}
    for who, operations in bounds.items():
        key = new_key(app, who, Scope.READ if who == "reader" else Scope.WRITE, *operations)
        headers = {"Authorization": f"Bearer {key}"}
        seen = {"bound": {"hosts"}, "other": set()}.get(who, everything)
        assert {one["name"] for one in client.get("/limits/", headers=headers).json} == seen
        assert client.get("/limits/hosts/", headers=headers).status_code == (200 if "hosts" in seen else 404)
        assert client.put("/limits/hosts/", json=hosts, headers=headers).status_code == 403
        assert client.delete("/limits/hosts/", headers=headers).status_code == 403


def test_nobody_takes_a_limit_of_an_operation_that_he_does_not_reach(app: Flask, client: FlaskClient) -> None:
    hosts = {"operation": "http_request", "max_running": 4}
    client.put("/limits/hosts/", json=hosts)
    with app.app_context():
        callers.current.set(callers.Caller("shop", operations=("calculate",)))
        for values in ({"max_running": 1}, hosts, hosts | {"operation": "calculate"}):
            with pytest.raises(Forbidden):
                limits.put("hosts", values, now=clock())
        with pytest.raises(LimitNotFound):
            limits.reset("hosts", now=clock())
        callers.current.set(None)
    assert client.get("/limits/hosts/").json["max_running"] == 4


def test_what_was_cancelled_takes_nothing_from_a_rate(trial: Trial) -> None:
    trial.limit(rate={"count": 1, "seconds": 5})
    trial.post(20, seconds=0)
    eventually(trial.spans, within=10)
    trial.client.post("/tasks/cancel/", json={"operation": "limited.work", "limit": 500})
    begun = len(trial.spans())
    [last] = trial.post(1, seconds=0)
    trial.wait([last], within=15)
    assert len(trial.spans()) == begun + 1
