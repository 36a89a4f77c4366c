"""A request can be followed from its client through web and worker to what the task calls."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import urllib3
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import Page, expect

from scheduler_app import logs
from scheduler_app.extensions import db
from scheduler_app.services import tasks
from scheduler_app.tracing import contexts
from tests.support import trial_operations  # noqa: F401 (registers them)
from tests.support.browser import Watch
from tests.support.collector import Span, spans
from tests.support.http_server import Server
from tests.support.processes import ROOT, Process, eventually
from tests.support.system import System
from tests.support.tasks import finished

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
STATE = "shop=1,other=a:b"
HEADERS = {"traceparent": TRACEPARENT, "tracestate": STATE}
RETRY = {"max_retries": 1, "min_seconds": 1, "factor": 1}
OPERATIONS = "actors,tests.support.trial_operations"

Start = Callable[..., Process]


@pytest.fixture
def environ(environ: dict[str, str]) -> dict[str, str]:
    ours = {"BACKBEAT_HTTP_ALLOW": "local", "BACKBEAT_LOG_FORMAT": "json", "BACKBEAT_SCAN_INTERVAL": "0.2"}
    return environ | ours


@pytest.fixture
def traced(environ: dict[str, str], server: Server, app: object) -> Iterator[System]:
    """A system that sends its spans to the server when it stops: before, it would wait for longer than any test."""
    ours = {"OTEL_EXPORTER_OTLP_ENDPOINT": server.url, "OTEL_BSP_SCHEDULE_DELAY": "600000"}
    with System(environ | ours) as system:
        yield system


def post(system: System, body: Any, path: str = "/tasks/", **headers: str) -> Any:
    answer = urllib3.request("POST", system.url + path, json=body, headers=headers, timeout=20, retries=False)
    assert answer.status in (201, 202), answer.data
    return answer.json()


def stopped(system: System) -> None:
    for process in system.processes:
        assert process.stop() == 0, process.output


def lines(process: Process) -> list[dict[str, Any]]:
    return [json.loads(line) for line in process.output.splitlines() if line.startswith("{")]


def of_kind(found: list[Span], kind: str) -> list[Span]:
    return [span for span in found if span.kind == kind]


def test_one_request_is_followed_through_web_worker_and_called_server(traced: System, server: Server) -> None:
    params = {"url": f"{server.url}/status/503"}
    body = {"operation": "http_request", "params": params, "priority": 2, "retry": RETRY}
    task = post(traced, body, **HEADERS)
    assert task["trace_id"] == TRACE
    assert traced.finished(task["task_id"])["trace_id"] == TRACE
    called = [headers for _, path, headers, _ in server.requests if path == "/status/503"]
    assert spans(server) == []
    stopped(traced)

    [sent] = of_kind(spans(server), "PRODUCER")
    assert (sent.service, sent.name, sent.trace, sent.parent) == ("backbeat-web", "send tasks.p2", TRACE, PARENT)
    assert sent.attributes == {
        "messaging.system": "backbeat",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "tasks.p2",
        "messaging.message.id": str(task["task_id"]),
        "backbeat.operation": "http_request",
    }
    first, second = of_kind(spans(server), "CONSUMER")
    for attempt, span in enumerate((first, second), 1):
        assert (span.service, span.name) == ("backbeat-worker", "process tasks.p2")
        assert (span.trace, span.parent, span.state) == (TRACE, sent.span, STATE)
        assert span.links[0] == (TRACE, sent.span)
        assert (
            span.attributes.items()
            >= {
                "messaging.system": "backbeat",
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.destination.name": "tasks.p2",
                "messaging.message.id": str(task["task_id"]),
                "backbeat.operation": "http_request",
                "backbeat.attempt": attempt,
                "error.type": "UnexpectedStatus",
            }.items()
        )
        assert span.failed
        assert called[attempt - 1]["traceparent"] == span.parent_header
        assert called[attempt - 1]["tracestate"] == STATE
    assert (first.links[1:], second.links[1:]) == ([], [(TRACE, first.span)])
    told = [line for line in lines(traced.workers[0]) if line.get("task_id") == task["task_id"]]
    assert told
    assert {line["trace_id"] for line in told} == {TRACE}


def test_a_batch_has_one_span_and_a_firing_is_a_root_of_its_own(traced: System, server: Server) -> None:
    batch = post(traced, [{"operation": "4+7"}, {"operation": "4+9", "priority": 1}], "/tasks/batch-request/")
    schedule = {"operation": "1+1", "every_x_days": 1, "priority": 7}
    schedule_id = post(traced, schedule, "/task-schedules/")["task_schedule_id"]
    [fired] = eventually(lambda: traced.get(f"/task-schedules/{schedule_id}/")["tasks"])
    triggered = post(traced, None, f"/task-schedules/{schedule_id}/trigger/", **HEADERS)
    ids = [task["task_id"] for task in [*batch["tasks"], fired, triggered]]
    shown = [traced.finished(task_id)["trace_id"] for task_id in ids]
    stopped(traced)

    found = spans(server)
    sent = {span.trace: span for span in of_kind(found, "PRODUCER")}
    assert (len(sent), shown[0], shown[3]) == (3, shown[1], TRACE)
    assert [sent[trace].name for trace in shown[1:]] == ["send", "send tasks.p7", "send tasks.p7"]
    assert [sent[trace].parent for trace in shown[1:]] == ["", "", PARENT]
    assert sent[shown[0]].attributes["messaging.batch.message_count"] == 2
    assert "messaging.message.id" not in sent[shown[0]].attributes
    firing = sent[shown[2]]
    assert firing.service == "backbeat-scheduler"
    assert firing.attributes["messaging.message.id"] == str(ids[2])
    assert firing.attributes["backbeat.task_schedule_id"] == schedule_id
    consumed = {span.attributes["messaging.message.id"]: span for span in of_kind(found, "CONSUMER")}
    for task_id, trace in zip(ids, shown, strict=True):
        assert (consumed[str(task_id)].trace, consumed[str(task_id)].parent) == (trace, sent[trace].span)
        assert not consumed[str(task_id)].failed


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("answers", [True, False], ids=["slow", "away"])
def test_a_collector_that_is_slow_or_away_delays_nothing(environ: dict[str, str], app: object, answers: bool) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:  # takes connections, and says nothing
        url = f"http://127.0.0.1:{silent.getsockname()[1] if answers else 1}"
        with System(environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "10"}) as system:
            for _ in range(3):
                began = time.monotonic()
                assert post(system, {"operation": "4+7"}, "/tasks/")["trace_id"]
                task = system.call("POST", "/tasks/?wait=10", {"operation": "4+7"})
                assert (task["result"], time.monotonic() - began < 2) == (11, True)
            began = time.monotonic()
            stopped(system)
            assert time.monotonic() - began < 15  # three processes, at most 3 s each for their last spans


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_without_a_collector_the_context_is_kept_and_passed_on_as_it_came(
    client: FlaskClient, worker: Start, server: Server, environ: dict[str, str]
) -> None:
    process = worker(BACKBEAT_OPERATIONS=OPERATIONS)
    call = {"operation": "http_request", "params": {"url": f"{server.url}/hello"}}
    own = call | {"params": {"url": f"{server.url}/hello", "headers": {"Traceparent": "mine"}}}
    posted = [
        client.post("/tasks/", json=body, headers=headers).json
        for body, headers in ((call, HEADERS), (call, {}), (own, HEADERS), ({"operation": "trial.log"}, HEADERS))
    ]
    assert [task["trace_id"] for task in posted] == [TRACE, None, TRACE, TRACE]
    ids = [task["task_id"] for task in posted]
    finished(client, ids)
    sent = {headers["backbeat-task"]: headers for _, _, headers, _ in server.requests}
    heads = [sent[str(task_id)] for task_id in ids[:3]]
    assert [(head["traceparent"], head["tracestate"]) for head in heads] == [
        (TRACEPARENT, STATE),
        (None, None),
        ("mine", None),
    ]
    [told] = [line for line in lines(process) if line["logger"] == "trial"]
    assert told["trace_id"] == TRACE
    found = {task["task_id"]: task["trace_id"] for task in client.get("/tasks/").json}
    assert found == {task["task_id"]: task["trace_id"] for task in posted}


def test_a_line_of_a_request_names_its_trace(another: Callable[..., Flask], caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.setFormatter(logs.TextLine(process="web"))
    client = another(REDIS_URL="redis://127.0.0.1:1/0").test_client()
    client.post("/tasks/", json={"operation": "4+7"}, headers=HEADERS)
    [line] = [line for line in caplog.text.splitlines() if "wait for the relay" in line]
    assert line.endswith(f" (trace_id {TRACE})")


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "ä",
        TRACEPARENT.upper(),
        f"{TRACEPARENT}-more",
        f"{TRACEPARENT}, {TRACEPARENT}",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[1:]}-{PARENT}-01",
        f"01-{TRACE}-{PARENT}-01-{'x' * 1000}",
    ],
)
def test_a_malformed_context_is_ignored(client: FlaskClient, parent: str) -> None:
    answer = client.post("/tasks/", json={"operation": "4+7"}, environ_overrides={"HTTP_TRACEPARENT": parent})
    assert (answer.status_code, answer.json["trace_id"]) == (202, None)


def test_contexts_are_read_as_the_standard_says() -> None:
    assert contexts.read(TRACEPARENT) == {"traceparent": TRACEPARENT}
    later = contexts.read(f"cc-{TRACE}-{PARENT}-0b-what the future brings")
    assert later == {"traceparent": f"00-{TRACE}-{PARENT}-03"}
    for state, kept in [
        (" shop=1 , ,b@c=x ", "shop=1,b@c=x"),
        ("shop=1,shop=2", None),
        ("Shop=1", None),
        ("shop", None),
        ("a=\N{LATIN SMALL LETTER A WITH DIAERESIS}", None),
        (",".join(f"k{n}=v" for n in range(32)), ",".join(f"k{n}=v" for n in range(32))),
        (",".join(f"k{n}=v" for n in range(33)), None),
        ("a=" + "x" * 256 + ",b=" + "x" * 256, None),
    ]:
        assert (contexts.read(TRACEPARENT, state) or {}).get("tracestate") == kept, state


@pytest.mark.parametrize("command", ["wsgi", "scheduler.main()", "actors.worker", "scheduler_app.standalone.main()"])
def test_a_missing_library_is_named_at_start(command: str, tmp_path: Path) -> None:
    code = f"import sys; sys.modules['opentelemetry'] = None; import {command.removesuffix('.main()')}"
    code += f"; sys.exit({command})" if command.endswith("main()") else ""
    ended = start_code(code, tmp_path)
    assert ended.returncode != 0
    assert "OTEL_EXPORTER_OTLP_ENDPOINT: traces need OpenTelemetry, which is not installed" in ended.stderr
    assert "Traceback" not in ended.stderr


def start_code(code: str, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    ours = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "BACKBEAT_DATA_DIR": str(folder), "PATH": "/bin"}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, check=False, cwd=ROOT, env=ours | environ, capture_output=True, text=True, timeout=60
    )


def test_another_protocol_is_refused(tmp_path: Path) -> None:
    ended = start_code("import wsgi", tmp_path, OTEL_EXPORTER_OTLP_PROTOCOL="grpc")
    assert ended.stderr == "OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' is not allowed; allowed is http/protobuf\n"


def test_without_a_collector_no_exporter_is_loaded(tmp_path: Path) -> None:
    code = "import sys, wsgi, actors.worker; print('scheduler_app.tracing.spans' in sys.modules)"
    ended = start_code(code, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT="")
    assert ended.stdout == "False\n", ended.stderr


@pytest.mark.usefixtures("context")
def test_what_a_task_creates_can_be_given_the_trace_of_another(client: FlaskClient) -> None:
    """As the delivery of a callback, which is created wherever its task ends."""
    request = {"operation": "calculate", "params": {"expression": "4+7"}, "priority": 5, "max_retries": 0}
    traces = {"traceparent": TRACEPARENT}, None
    created = tasks.create([request | {"trace": trace} for trace in traces], now=datetime.now(UTC))
    db.session.commit()
    assert [client.get(f"/tasks/{task.task_id}/").json["trace_id"] for task in created] == [TRACE, None]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_page_of_a_task_shows_its_trace(client: FlaskClient, page: Page, site: str, watch: Watch) -> None:
    task = client.post("/tasks/", json={"operation": "4+7"}, headers=HEADERS).json
    page.goto(f"{site}/dashboard/tasks/{task['task_id']}")
    expect(page.get_by_role("definition").filter(has_text=TRACE)).to_be_visible()
