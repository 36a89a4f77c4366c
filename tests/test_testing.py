"""What helps to test one's own operations: one operation alone, or everything."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
import urllib3
from marshmallow import ValidationError

from examples import shop_operations
from scheduler_app import testing
from scheduler_app.operations import Cancelled, PermanentError, current_task
from scheduler_app.worker.interrupts import TimeLimitExceeded
from tests.support import trial_operations  # noqa: F401 (registers them)
from tests.support.process_table import alive, descendants
from tests.support.processes import ROOT, eventually

STAYS = """
import time
from scheduler_app import testing
with testing.everything():
    print(1, flush=True)
    time.sleep(99)
"""


@pytest.fixture
def invoices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(shop_operations, "FOLDER", tmp_path)
    return tmp_path


def test_an_operation_runs_as_in_a_worker(invoices: Path) -> None:
    done = testing.run("shop.invoices", {"totals": {"17": "0.30", "18": "9.99"}})
    assert done.result == {"written": 2}
    assert done.progress == {"percent": 100, "message": "2 of 2"}
    assert {path.name: path.read_text() for path in invoices.iterdir()} == {
        "17.txt": "Order 17: 0.30\n",
        "18.txt": "Order 18: 9.99\n",
    }


def test_an_operation_may_be_named_by_its_function(invoices: Path) -> None:
    assert testing.run(shop_operations.write_invoices, {"totals": {17: "0.30"}}).result == {"written": 1}
    with pytest.raises(LookupError, match="has its module been imported"):
        testing.run(lambda: None)
    with pytest.raises(LookupError, match=r"shop\.unknown"):
        testing.run("shop.unknown")


def test_what_a_post_would_refuse_is_refused_by_field(invoices: Path) -> None:
    with pytest.raises(ValidationError) as caught:
        testing.run("shop.invoices", {"totals": {"17": "much"}})
    assert caught.value.messages == {"totals": {"17": {"value": ["Not a valid number."]}}}
    with pytest.raises(TypeError, match="not JSON serializable"):
        testing.run("shop.invoices", {"totals": {"17": Decimal(1)}})


def test_what_an_operation_raises_is_raised(invoices: Path) -> None:
    with pytest.raises(PermanentError, match="There are no orders"):
        testing.run("shop.invoices", {"totals": {}})


def test_a_result_is_what_is_read_from_its_json() -> None:
    assert testing.run("trial.echo", {"value": ["x", None]}).result == ["x", None]
    with pytest.raises(PermanentError, match="not JSON"):
        testing.run("trial.object")


def test_an_operation_is_stopped_after_its_time_or_the_one_given() -> None:
    with pytest.raises(TimeLimitExceeded):
        testing.run("trial.spin")
    with pytest.raises(TimeLimitExceeded, match=r"0\.05 s"):
        testing.run("trial.spin", time_limit=0.05)


def test_a_task_that_is_to_stop_is_told(invoices: Path) -> None:
    with pytest.raises(Cancelled):
        testing.run("shop.invoices", {"totals": {"17": "0.30"}}, cancelled=True)
    assert list(invoices.iterdir()) == []


def test_the_task_is_there_while_it_runs_and_gone_afterwards() -> None:
    assert testing.run("trial.who", task_id=5, attempt=2).result == [5, 2]
    with pytest.raises(RuntimeError, match="no task is running here"):
        current_task.check_cancelled()


@pytest.fixture(scope="module")
def backbeat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[testing.Backbeat]:
    folder = str(tmp_path_factory.mktemp("invoices"))
    with testing.everything("examples.shop_operations", SHOP_INVOICES=folder) as backbeat:
        yield backbeat


def test_everything_runs_a_task_and_a_schedule(backbeat: testing.Backbeat) -> None:
    task = backbeat.run("shop.invoices", {"totals": {"17": "0.30"}}, priority=0)
    assert (task["status"], task["result"], task["priority"]) == ("SUCCESS", {"written": 1}, 0)
    assert backbeat.run("4+7")["result"] == 11
    body = {"operation": "5+10", "every_x_hours": 1, "schedule_x_times": 1}
    status, schedule = backbeat.call("POST", "/task-schedules/", body)
    assert status == 201
    path = f"/task-schedules/{schedule['task_schedule_id']}/"
    eventually(lambda: [task["result"] for task in backbeat.call("GET", path)[1]["tasks"]] == [15])


def test_everything_has_a_failed_task_that_says_why(backbeat: testing.Backbeat) -> None:
    task = backbeat.run("shop.invoices", {"totals": {}})
    assert (task["status"], task["error"]["message"]) == ("ERROR", "There are no orders.")


def test_everything_ends_with_the_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = descendants(os.getpid())
    with testing.everything() as backbeat:
        began = alive(descendants(os.getpid())) - before
        assert len(began) >= 5
        assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(urllib3.exceptions.NewConnectionError):
        urllib3.request("GET", backbeat.url, retries=False)
    eventually(lambda: not alive(began))
    assert list(tmp_path.iterdir()) == []


def test_everything_ends_with_a_test_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", STAYS], cwd=ROOT, stdout=subprocess.PIPE) as test:
        assert test.stdout
        assert test.stdout.readline() == b"1\n"
        began = alive(descendants(test.pid))
        test.send_signal(signal.SIGKILL)
    eventually(lambda: not alive(began))


def test_what_does_not_start_says_why() -> None:
    message = r"BACKBEAT_OPERATIONS: there is no module 'no\.such'"
    with pytest.raises(testing.StartFailed, match=message), testing.everything("no.such"):
        pass


OPERATIONS = """
from marshmallow import Schema, fields
from scheduler_app.operations import operation

class Text(Schema):
    text = fields.String(required=True)

@operation("mine.shout", params=Text)
def shout(text):
    "In capitals."
    return text.upper()
"""
CONFTEST = """
import pytest
pytest_plugins = ["scheduler_app.testing.plugin"]

@pytest.fixture(scope="session")
def backbeat_operations():
    return ("my_operations",)
"""
TEST = """
def test_it(backbeat):
    assert backbeat.run("mine.shout", {"text": "a"})["result"] == "A"
"""


def test_the_fixture_starts_everything_with_operations_of_one_s_own(tmp_path: Path) -> None:
    for name, text in (("my_operations", OPERATIONS), ("conftest", CONFTEST), ("test_it", TEST)):
        (tmp_path / f"{name}.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(tmp_path)]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, check=False, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=180)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
