"""A client generated from the specification: its functions have the calls' names, and it understands the answers."""

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import pytest
from flask import Flask
from flask.testing import FlaskClient

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # one kind is enough here

FUNCTIONS = {
    "tasks": "submit_task submit_tasks list_tasks get_task change_task delete_task cancel_task retry_task",
    "logs": "read_log",
    "stacks": "read_stack",
    "keys": "create_key list_keys rotate_key revoke_key list_audit_entries",
    "bulk": "cancel_tasks retry_tasks delete_tasks",
    "task_schedules": "create_schedule list_schedules get_schedule change_schedule delete_schedule pause_schedule"
    " resume_schedule trigger_schedule backfill_schedule list_upcoming_times preview_rule list_times_left_out",
    "operations": "list_operations",
    "failures": "list_causes",
    "attention": "read_attention",
    "workers": "list_workers",
    "limits": "list_limits get_limit put_limit reset_limit",
    "queues": "list_queues pause_queue resume_queue purge_queue",
    "health": "check_liveness check_readiness",
    "metrics": "read_metrics",
}


@pytest.fixture
def generated(client: FlaskClient, tmp_path: Path) -> Path:
    """The folder of the generated package."""
    specification, config = tmp_path / "openapi.json", tmp_path / "config.json"
    specification.write_text(client.get("/openapi.json").text)
    config.write_text(json.dumps({"post_hooks": []}))  # the generator's own formatting
    options = ["--path", specification, "--config", config, "--output-path", tmp_path / "client", "--fail-on-warning"]
    command = [Path(sys.executable).parent / "openapi-python-client", "generate", *options]
    made = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert made.returncode == 0, made.stdout + made.stderr
    return tmp_path / "client" / "backbeat_client"


@pytest.fixture
def package(generated: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.syspath_prepend(generated.parent)
    yield generated.name
    for name in [name for name in sys.modules if name.partition(".")[0] == generated.name]:
        del sys.modules[name]


def test_its_functions_have_the_names_of_the_calls(generated: Path) -> None:
    modules = [path for path in (generated / "api").glob("*/*.py") if path.stem != "__init__"]
    named: dict[str, set[str]] = {}
    for path in modules:
        named.setdefault(path.parent.name, set()).add(path.stem)
    assert named == {group: set(names.split()) for group, names in FUNCTIONS.items()}


def test_it_posts_a_task_and_finds_every_field_of_the_answers(app: Flask, package: str) -> None:
    def call(name: str, *arguments: Any, **fields: Any) -> Any:
        function: Any = importlib.import_module(f"{package}.api.tasks.{name}")
        return function.sync_detailed(*arguments, client=caller, **fields)

    models: Any = importlib.import_module(f"{package}.models")
    client_class = importlib.import_module(package).Client
    transport = httpx.WSGITransport(app=app)
    caller = client_class("http://127.0.0.1", httpx_args={"transport": transport}, raise_on_unexpected_status=True)
    posted = call("submit_task", body=models.TaskRequest(operation="4+7"))
    assert (posted.status_code, posted.parsed.status) == (HTTPStatus.ACCEPTED, "PENDING")
    assert type(posted.parsed.task_id) is int
    read = call("get_task", posted.parsed.task_id).parsed
    assert (read.operation, read.result, read.failures, read.waiting_for.reason) == ("calculate", None, [], "worker")
    changed = call("change_task", read.task_id, body=models.TaskChange(priority=0)).parsed
    assert changed.priority == 0
    refused = call("submit_task", body=models.TaskRequest(operation="4+")).parsed
    assert refused.errors.to_dict()["json"].keys() == {"operation"}
