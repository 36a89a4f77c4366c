"""`make run`: everything in one terminal, with the real processes."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scheduler_app import standalone
from scheduler_app.config import Settings
from tests.support.api import Api
from tests.support.process_table import alive, descendants, processes
from tests.support.processes import ROOT, Process, eventually, free_port
from tests.test_private_files import open_to_others

# An operation that leaves a trace of each run.
LEDGER = """
import time
from pathlib import Path
from marshmallow import Schema, fields
from scheduler_app.operations import operation

LEDGER, SLOW = (Path(__file__).with_name(name) for name in ("ledger.txt", "slow"))

class Line(Schema):
    number = fields.Integer(required=True)

@operation("ledger", params=Line)
def write(number: int) -> int:
    "Writes a line."
    time.sleep(0.5 if SLOW.exists() else 0)
    with LEDGER.open("a") as file:
        file.write(f"{number}\\n")
    return number
"""


class Backbeat(Api):
    """Everything, as `make run` starts it, on data of its own."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        super().__init__(f"http://127.0.0.1:{self.port}")
        (folder / "ledger.py").write_text(LEDGER)
        self.data = folder / "data"
        self.ledger = folder / "ledger.txt"
        self.ledger.touch()
        self.slow = folder / "slow"  # while it exists, a run takes half a second
        self.process: Process | None = None
        self.environ = {
            "BACKBEAT_DATA_DIR": str(self.data),
            "BACKBEAT_OPERATIONS": "actors,ledger",
            "BACKBEAT_API_KEY": "",
            "DATABASE_URL": "",
            "HOST": "",
            "PORT": str(self.port),
            "PYTHONPATH": str(folder),
            "REDIS_URL": "",
        }

    def start(self) -> None:
        self.process = Process(["-m", "scheduler_app.standalone"], self.environ, "Ctrl-C stops it")
        self.process.wait_until_ready()

    def calculates(self) -> bool:
        task = self.call("POST", "/tasks/", {"operation": "4+7"})
        return bool(self.finished(task["task_id"])["result"] == 11)

    def runs(self) -> list[int]:
        return [int(line) for line in self.ledger.read_text().split()]


@pytest.fixture(scope="module")
def backbeat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backbeat]:
    system = Backbeat(tmp_path_factory.mktemp("a folder"))
    yield system
    family = descendants(system.process.popen.pid)
    system.process.kill()
    eventually(lambda: not alive(family))


@pytest.fixture
def running(backbeat: Backbeat) -> Backbeat:
    if backbeat.process is None or backbeat.process.ended:
        backbeat.start()
    return backbeat


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
    return True


def youngest(supervisor: Process, command: str) -> int:
    """Of the processes with this command: a worker rather than its master. The watchers name the commands, too."""
    family = descendants(supervisor.popen.pid)
    rows = [row for row in processes() if row.pid in family and "guard.py" not in row.command]
    return max(row.pid for row in rows if command in row.command)


def test_without_a_key_tasks_may_call_this_machine(running: Backbeat) -> None:
    params = {"url": f"http://127.0.0.1:{running.port}/livez"}
    task = running.call("POST", "/tasks/", {"operation": "http_request", "params": params, "max_retries": 0})
    path = f"/tasks/{task['task_id']}/"
    assert eventually(lambda: (seen := running.call("GET", path))["finished_at"] and seen)["status"] == "SUCCESS"


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        ({}, "local"),
        ({"BACKBEAT_API_KEY": "0123456789abcdef"}, None),
        ({"BACKBEAT_HTTP_ALLOW": "10.0.0.5"}, "10.0.0.5"),
        ({"BACKBEAT_HTTP_ALLOW": "10.0.0.5", "BACKBEAT_API_KEY": "0123456789abcdef"}, "10.0.0.5"),
    ],
)
def test_children_may_call_this_machine_only_where_no_key_and_nothing_else_is_set(
    settings: dict[str, str], allowed: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("BACKBEAT_API_KEY", "BACKBEAT_HTTP_ALLOW"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in settings.items():
        monkeypatch.setenv(variable, value)
    children = standalone.environment_of_children(Settings.from_env(settings))
    assert children.get("BACKBEAT_HTTP_ALLOW") == allowed


def test_starting_prints_ten_lines(running: Backbeat) -> None:
    assert running.process
    shown = [line for line in running.process.output.splitlines() if line.startswith("backbeat")]
    ready = ["valkey is ready", "migrate is done", "web is ready", "worker-1 is ready", "scheduler is ready"]
    assert [line.partition("| ")[2] for line in shown[:5]] == ready
    assert shown[5].endswith(f"Dashboard   http://127.0.0.1:{running.port}/")
    assert shown[8].endswith(standalone.WITHOUT_KEY)
    assert shown[9].endswith("Ctrl-C stops it and loses nothing")
    assert running.process.output.splitlines()[:10] == shown[:10]


@pytest.mark.parametrize("command", ["dramatiq", "valkey-server", "wsgi.py"])
def test_a_killed_process_comes_back(running: Backbeat, command: str) -> None:
    killed = youngest(running.process, command)
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: not alive({killed}))
    assert eventually(running.calculates)


def test_200_tasks_run_once_each_though_ctrl_c_comes_between(running: Backbeat) -> None:
    running.slow.touch()
    batch = [{"operation": "ledger", "params": {"number": number}} for number in range(200)]
    running.call("POST", "/tasks/batch-request/", batch)
    eventually(lambda: len(running.runs()) > 10)
    family = descendants(running.process.popen.pid)
    running.process.popen.send_signal(signal.SIGINT)
    assert running.process.popen.wait(30) == 0
    assert not alive(family)
    assert is_free(running.port)
    assert len(running.runs()) < 200
    running.slow.unlink()
    running.start()
    done = "/tasks/?status=SUCCESS&operation=ledger&limit=200"
    tasks = eventually(lambda: len(found := running.get(done)) == 200 and found)
    assert {task["attempts"] for task in tasks} == {1}
    assert sorted(running.runs()) == list(range(200))


def test_a_killed_supervisor_leaves_nothing_and_running_tasks_finish(running: Backbeat) -> None:
    running.slow.touch()
    task = running.call("POST", "/tasks/", {"operation": "ledger", "params": {"number": 1000}})
    eventually(lambda: running.get(f"/tasks/{task['task_id']}/")["status"] == "STARTED")
    family = descendants(running.process.popen.pid)
    running.process.popen.kill()
    eventually(lambda: not alive(family))
    assert is_free(running.port)
    assert running.runs()[-1] == 1000


def test_the_files_are_their_owners_alone(running: Backbeat) -> None:
    assert running.calculates()
    assert {"appendonlydir", "backbeat.db", "backbeat.db-wal"} <= {path.name for path in running.data.iterdir()}
    assert open_to_others(running.data) == []


def test_data_in_use_is_refused(tmp_path: Path) -> None:
    lock = standalone.hold(tmp_path)
    with pytest.raises(standalone.Refused, match="another Backbeat runs on"):
        standalone.hold(tmp_path)
    os.close(lock)
    os.close(standalone.hold(tmp_path))


def test_a_port_in_use_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        settings = Settings.from_env({"PORT": str(port)})
        with pytest.raises(standalone.Refused, match=f"HOST=127.0.0.1 PORT={port}: cannot listen there: Address"):
            standalone.listen(settings)
    standalone.listen(settings).close()


def test_a_wrong_setting_is_named_in_one_line() -> None:
    command = [sys.executable, "-m", "scheduler_app.standalone"]
    environ = os.environ | {"PORT": "80x"}
    done = subprocess.run(command, env=environ, check=False, capture_output=True, text=True, timeout=20)
    message = "PORT: '80x' is not allowed; allowed is a whole number from 1 to 65535\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", message)


def test_a_long_path_of_data_gets_a_socket_elsewhere(tmp_path: Path) -> None:
    with standalone.socket_folder(tmp_path / ("x" * 100)) as folder:
        assert len(str(folder)) < standalone.LONGEST_SOCKET_PATH
        assert folder.stat().st_mode & 0o077 == 0
    assert not folder.exists()


@pytest.mark.parametrize(
    ("python", "message"),
    [
        ("exit 1", "Python 3.11 or newer is needed"),
        ("case $2 in *ensurepip*) exit 1;; esac", "Python's venv module is missing"),
    ],
)
def test_make_names_what_python_lacks(tmp_path: Path, python: str, message: str) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    for name in ("Makefile", "requirements.lock"):
        shutil.copy(ROOT / name, folder)
    (folder / "python").write_text(f"#!/bin/sh\n{python}\n")
    (folder / "python").chmod(0o755)
    command = ["make", "run", f"PYTHON={folder}/python"]
    done = subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True, timeout=20)
    assert done.returncode == 2
    assert done.stderr.splitlines()[0].startswith(message)
