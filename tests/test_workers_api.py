"""The list of workers."""

from collections.abc import Callable

import pytest
from flask.testing import FlaskClient

from tests.support.processes import Process
from tests.support.tasks import started, submit

Start = Callable[..., Process]


@pytest.fixture
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | {"BACKBEAT_OPERATIONS": "actors,tests.support.trial_operations"}


def test_the_list_of_workers_shows_what_each_runs(client: FlaskClient, worker: Start) -> None:
    process = worker("-Q", "tasks.p0", "tasks.p5", threads=3)
    [task_id] = submit(client, {"operation": "trial.wait", "params": {"seconds": 30}})
    started(client, task_id)
    [seen] = client.get("/workers/").json
    assert (seen["threads"], seen["queues"]) == (3, ["tasks.p0", "tasks.p5"])
    assert [(task["task_id"], task["operation"]) for task in seen["running"]] == [(task_id, "trial.wait")]
    process.kill()
    assert len(client.get("/workers/").json) == 1


def test_a_stopped_worker_leaves_the_list(client: FlaskClient, worker: Start) -> None:
    process = worker()
    assert len(client.get("/workers/").json) == 1
    process.stop()
    assert client.get("/workers/").json == []
