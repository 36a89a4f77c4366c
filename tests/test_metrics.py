"""/metrics counts what has ended in every process, once; and the examples for Prometheus and Grafana fit it."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import delete

from scheduler_app.extensions import db
from scheduler_app.models import Status, Task
from scheduler_app.services import control, history, retention, totals
from tests.support.claims import claim
from tests.support.processes import Process, eventually
from tests.support.tasks import submit
from tests.test_history import NOW, SECOND, end, roll_up

ROOT = Path(__file__).parent.parent
ALERTS = ROOT / "examples/prometheus/alerts.yml"
DASHBOARD = ROOT / "examples/grafana/backbeat.json"
LABELS = {"operation": "calculate", "priority": "5"}


@pytest.fixture
def figures(client: FlaskClient) -> Callable[..., dict[Any, float]]:
    """The samples of one name, by the values of their labels in the order given."""

    def figures(name: str, *labels: str) -> dict[Any, float]:
        families = text_string_to_metric_families(client.get("/metrics").text)
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        return {tuple(sample.labels[label] for label in labels): sample.value for sample in samples}

    return figures


Figures = Callable[..., dict[Any, float]]
FINISHED = ("backbeat_tasks_finished_total", "operation", "priority", "status")


@pytest.mark.usefixtures("context")
def test_what_ended_is_counted_by_operation_priority_and_status(figures: Figures) -> None:
    end(3)
    end(2, status=Status.ERROR, priority=0)
    end(1, status=Status.EXPIRED, operation="http_request", started_at=None)
    roll_up()
    assert figures(*FINISHED) == {
        ("calculate", "0", "ERROR"): 2,
        ("calculate", "5", "SUCCESS"): 3,
        ("http_request", "5", "EXPIRED"): 1,
    }
    assert figures("backbeat_tasks_created_total", "operation", "priority") == {
        ("calculate", "0"): 2,
        ("calculate", "5"): 3,
        ("http_request", "5"): 1,
    }


@pytest.mark.usefixtures("context")
def test_a_count_never_falls_whatever_becomes_of_the_tasks(figures: Figures) -> None:
    ids = end(3, status=Status.ERROR)
    roll_up()
    control.start_again(ids[:1], Task.task_id, now=NOW + 20 * SECOND)
    db.session.commit()
    retention.prune(now=NOW + timedelta(days=1_000))
    history.roll_up(now=NOW + timedelta(days=1_000))
    db.session.execute(delete(Task))
    db.session.commit()
    end(1, at=NOW + timedelta(days=1_000), status=Status.ERROR)
    roll_up(NOW + timedelta(days=1_001))
    assert figures(*FINISHED) == {("calculate", "5", "ERROR"): 4}


@pytest.mark.usefixtures("context")
def test_how_long_tasks_waited_and_ran_is_a_histogram(figures: Figures) -> None:
    end(2, waited=timedelta(milliseconds=5), ran=timedelta(seconds=2))
    end(1, waited=timedelta(seconds=50), ran=timedelta(hours=9))
    end(1, operation="http_request", priority=9)
    roll_up()
    waited = figures("backbeat_task_waiting_seconds_bucket", "priority", "le")
    of_5 = [(float(le), count) for (priority, le), count in waited.items() if priority == "5"]
    assert of_5 == sorted(of_5)
    assert [count for (_, count), (_, following) in pairwise(of_5) if count != following] == [0, 2]
    assert {count for end, count in of_5 if 0.0076 > end > 0.005} == {2}
    assert of_5[-1] == (float("inf"), 3)
    ran = figures("backbeat_task_running_seconds_count", "operation")
    assert ran == {("calculate",): 3, ("http_request",): 1}
    total = figures("backbeat_task_running_seconds_sum", "operation")["http_request",]
    assert 0.8 < total < 1.25


@pytest.mark.usefixtures("context")
def test_operations_beyond_a_hundred_are_counted_together(figures: Figures) -> None:
    for number in range(totals.MOST_OPERATIONS + 20):
        end(operation=f"operation.{number}")
    roll_up()
    end(2, operation="operation.0", at=NOW + 60 * SECOND)
    end(2, operation="operation.new", at=NOW + 60 * SECOND)
    roll_up(NOW + 90 * SECOND)
    found = {operation: count for (operation, _, _), count in figures(*FINISHED).items()}
    assert len(found) == totals.MOST_OPERATIONS + 1
    assert sum(found.values()) == totals.MOST_OPERATIONS + 20 + 4
    assert found["other"] >= 22


def test_what_waits_for_its_time_and_what_is_paused_is_counted(client: FlaskClient, figures: Figures) -> None:
    submit(client, {"operation": "4+7"}, *[{"operation": "4+7", "run_at": "2999-01-01T00:00:00Z"}] * 2)
    client.post("/queues/9/pause/")
    assert figures("backbeat_tasks_scheduled") == {(): 2}
    assert figures("backbeat_priorities_paused") == {(): 1}


@pytest.mark.usefixtures("context")
def test_the_age_of_the_history_is_known_once_it_counts(app: Flask, figures: Figures) -> None:
    assert figures("backbeat_history_age_seconds") == {}
    history.roll_up(now=app.extensions["backbeat.clock"].now() - timedelta(minutes=5))
    assert 300 <= figures("backbeat_history_age_seconds")[()] < 400


def test_refused_keys_are_counted_by_reason(
    client: FlaskClient, another: Callable[..., Flask], figures: Figures
) -> None:
    closed = another(BACKBEAT_API_KEY="an-admin-key-for-tests").test_client()
    admin = {"Authorization": "Bearer an-admin-key-for-tests"}
    made = {
        name: closed.post("/keys/", json={"name": name, **options}, headers=admin).json["key"]
        for name, options in (("reader", {"scope": "read"}), ("slow", {"scope": "read", "rate": "1/h"}))
    }

    def call(key: str, method: str = "GET") -> int:
        body = {"operation": "1"} if method == "POST" else None
        return closed.open("/tasks/", method=method, json=body, headers={"Authorization": f"Bearer {key}"}).status_code

    statuses = [call("a-wrong-key-of-nobody"), call(made["reader"], "POST"), call(made["slow"]), call(made["slow"])]
    assert statuses == [401, 403, 200, 429]
    families = text_string_to_metric_families(closed.get("/metrics", headers=admin).text)
    [family] = [family for family in families if family.name == "backbeat_keys_refused"]
    assert {sample.labels["reason"]: sample.value for sample in family.samples} == {
        "wrong_key": 1,
        "scope": 1,
        "rate": 1,
    }


def test_limits_show_what_is_used_of_them(app: Flask, client: FlaskClient, figures: Figures) -> None:
    ids = submit(client, *[{"operation": "4+7", "group": group} for group in "aab"])
    with app.app_context():
        assert all(claim(task_id, 0, worker_id="w", now=NOW) for task_id in ids)
    client.put("/limits/sums/", json={"operation": "calculate", "per": "group", "max_running": 4})
    client.put("/limits/rate/", json={"operation": "calculate", "rate": {"count": 4}})
    assert figures("backbeat_limit_used", "limit", "per")["sums", "group"] == 3
    most = figures("backbeat_limit_max_running", "limit", "per")
    assert (most["sums", "group"], ("rate", "operation") in most) == (4, False)


def test_the_counts_are_right_with_two_schedulers_and_after_one_was_killed(
    client: FlaskClient, worker: Callable[..., Process], scheduler: Callable[..., Process], figures: Figures
) -> None:
    worker()
    first, _ = scheduler(), scheduler()
    submit(client, *[{"operation": "4+7"}] * 30)
    eventually(lambda: figures(*FINISHED).get(("calculate", "5", "SUCCESS")), within=60)
    first.kill()
    submit(client, *[{"operation": "4+7"}] * 20)
    eventually(lambda: figures(*FINISHED)["calculate", "5", "SUCCESS"] >= 50, within=60)
    assert figures(*FINISHED) == {("calculate", "5", "SUCCESS"): 50}


NAME = re.compile(r"\bbackbeat_\w+")


def expressions() -> dict[str, str]:
    """Of the alerts and of the panels, by name."""
    rules = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
    found = {rule["alert"]: rule["expr"] for rule in rules}
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    return found


@pytest.mark.usefixtures("context")
def test_every_name_in_the_examples_is_one_of_the_metrics(client: FlaskClient, scheduler: Any) -> None:
    scheduler()
    end(1)
    roll_up()
    families = list(text_string_to_metric_families(client.get("/metrics").text))
    kinds = {family.name: family.type for family in families}
    known = {sample.name for family in families for sample in family.samples}
    known |= {name for name in kinds if kinds[name] == "gauge"}  # some have no sample here
    known |= {f"{name}_total" for name in kinds if kinds[name] == "counter"}
    shown = expressions()
    assert len(shown) > 25
    for name, expression in shown.items():
        assert set(NAME.findall(expression)) <= known, name
    used = {name.removesuffix("_total") for name in NAME.findall(" ".join(shown.values()))}
    assert {name for name in kinds if name.startswith("backbeat_tasks")} <= used


def test_the_panels_lie_side_by_side() -> None:
    places = [panel["gridPos"] for panel in json.loads(DASHBOARD.read_text())["panels"]]
    cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_finds_the_alerts_well_made_and_they_fire_when_they_should(tmp_path: Path) -> None:
    checked = subprocess.run(["promtool", "check", "rules", ALERTS], check=False, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    test = tmp_path / "test.yml"
    test.write_text((ROOT / "tests/support/alerts_test.yml").read_text().replace("RULES", str(ALERTS)))
    tested = subprocess.run(["promtool", "test", "rules", test], check=False, capture_output=True, text=True)
    assert tested.returncode == 0, tested.stdout + tested.stderr
