"""Dramatiq's own tools, here dramatiq-dashboard, find on a busy system what is there."""

import re
from collections.abc import Callable

import pytest
import urllib3
from flask.testing import FlaskClient

from tests.support.processes import Process, eventually, free_port
from tests.support.tasks import get, submit

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # one kind is enough here


@pytest.fixture
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | {"BACKBEAT_OPERATIONS": "actors,tests.support.trial_operations"}


@pytest.fixture
def shown(start: Callable[..., Process]) -> Callable[[str], str]:
    """What one of its pages says."""
    port = free_port()
    start("-m", "examples.stock_dashboard", str(port), ready=f"127.0.0.1:{port}")

    def shown(path: str) -> str:
        answer = urllib3.request("GET", f"http://127.0.0.1:{port}{path}", timeout=20, retries=False)
        assert answer.status == 200, answer.data
        return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", answer.data.decode()))

    return shown


def test_it_finds_queues_messages_and_workers(
    client: FlaskClient, worker: Callable[..., Process], shown: Callable[[str], str]
) -> None:
    worker("-Q", "tasks.p0", threads=2)
    running = submit(client, *[{"operation": "trial.wait", "params": {"seconds": 60}, "priority": 0}] * 2)
    eventually(lambda: all(get(client, task_id)["status"] == "STARTED" for task_id in running))
    waiting = submit(client, *[{"operation": "4+7", "priority": priority} for priority in range(1, 10) for _ in "abc"])
    front = shown("/")
    for priority in range(1, 10):
        assert f"tasks.p{priority} 3 0 0" in front
    assert "tasks.p0 2 0 0" in front
    assert re.search(r"[0-9a-f-]{36} 2 ", front), "the worker has two of them"
    page = shown("/queues/tasks.p5/standard")
    for task_id in waiting[12:15]:
        assert f"calculate({task_id}, 0)" in page
