"""`make run`: the supervisor with small children, then everything with the real processes."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from scheduler_app import standalone
from scheduler_app.config import Settings
from tests.support.processes import Process, eventually

pytestmark = pytest.mark.xdist_group("standalone")

PROJECT = Path(__file__).parents[1]
# Each argument is a service: its name, seconds of grace and a shell command.
SUPERVISOR = """
import asyncio, os, sys
from scheduler_app.supervisor import Service, StartError, Supervisor

async def start():
    for argument in sys.argv[1:]:
        name, grace, command = argument.split(" ", 2)
        await supervisor.start(Service(name, ("/bin/sh", "-c", command), ready="up", grace=float(grace)))
    supervisor.log.write("backbeat", "all started")

supervisor = Supervisor(os.environ)
try:
    asyncio.run(supervisor.supervise(start()))
except StartError as error:
    sys.exit(str(error))
"""
STAYS = "echo up; sleep 60 & wait"
IGNORES_SIGTERM = "trap '' TERM; echo up; while :; do sleep 60; done"
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


@pytest.fixture
def supervise() -> Iterator[Callable[..., Process]]:
    """Starts a supervisor of small shell commands."""
    processes: list[Process] = []

    def supervise(*services: str, ready: str = "all started") -> Process:
        processes.append(Process(["-c", SUPERVISOR, *services], os.environ, ready))
        return processes[-1].wait_until_ready()

    yield supervise
    for process in processes:
        process.kill()


class Backbeat:
    """Everything, as `make run` starts it, on data of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        (folder / "ledger.py").write_text(LEDGER)
        self.ledger = folder / "ledger.txt"
        self.ledger.touch()
        self.slow = folder / "slow"  # while it exists, a run takes half a second
        self.process: Process | None = None
        self.environ = os.environ | {
            "BACKBEAT_DATA_DIR": str(folder / "data"),
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

    def call(self, method: str, path: str, body: object = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        headers = {"Content-Type": "application/json"} if body else {}
        connection.request(method, path, json.dumps(body) if body else None, headers)
        answer = connection.getresponse().read()
        connection.close()
        return json.loads(answer)

    def calculates(self) -> bool:
        task = self.call("POST", "/tasks/", {"operation": "4+7"})
        path = f"/tasks/{task['task_id']}/"
        return bool(eventually(lambda: self.call("GET", path)["result"] == 11))

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
    if backbeat.process is None or backbeat.process.popen.poll() is not None:
        backbeat.start()
    return backbeat


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Row(NamedTuple):
    pid: int
    parent: int
    state: str
    command: str


def processes() -> list[Row]:
    command = ["ps", "-A", "-ww", "-o", "pid=,ppid=,stat=,args="]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=3) for line in listing.splitlines()]
    return [Row(int(pid), int(parent), state, "".join(command)) for pid, parent, state, *command in rows]


def descendants(pid: int) -> set[int]:
    rows = processes()
    family = {pid}
    while more := {row.pid for row in rows if row.parent in family} - family:
        family |= more
    return family


def alive(pids: set[int]) -> set[int]:
    return {row.pid for row in processes() if row.pid in pids and not row.state.startswith("Z")}


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


def in_order(output: str, facts: Sequence[str]) -> bool:
    return re.search(".*".join(map(re.escape, facts)), output, re.DOTALL) is not None


def test_a_child_that_ends_is_started_again_after_a_growing_delay(supervise: Callable[..., Process]) -> None:
    supervisor = supervise("short 1 echo up; sleep 0.3; exit 3")
    facts = [f"short ended with exit code 3; it is started again in {delay} s" for delay in ("0.5", "1")]
    eventually(lambda: in_order(supervisor.output, facts))


def test_what_a_child_leaves_behind_is_ended_before_it_is_started_again(supervise: Callable[..., Process]) -> None:
    supervisor = supervise("child 1 sleep 61 & echo up $!; wait")
    leftover = int(re.findall(r"up (\d+)", supervisor.output)[0])
    (child,) = (row.parent for row in processes() if row.pid == leftover)
    os.kill(child, signal.SIGKILL)
    eventually(lambda: "child was ended by SIGKILL; it is started again in 0.5 s" in supervisor.output)
    assert not alive({leftover})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_children_stop_in_reverse_order(supervise: Callable[..., Process], number: int) -> None:
    supervisor = supervise(f"first 1 {STAYS}", f"second 1 {STAYS}", f"third 1 {STAYS}")
    family = descendants(supervisor.popen.pid)
    supervisor.popen.send_signal(number)
    assert supervisor.popen.wait(10) == 0
    supervisor.reader.join(10)
    facts = [f"{name} was ended by SIGTERM" for name in ("third", "second", "first")]
    assert in_order(supervisor.output, ["stopping", *facts])
    assert not alive(family)


def test_a_child_that_does_not_stop_is_killed_after_its_grace(supervise: Callable[..., Process]) -> None:
    supervisor = supervise(f"deaf 0.5 {IGNORES_SIGTERM}")
    family = descendants(supervisor.popen.pid)
    assert supervisor.stop() == 0
    supervisor.reader.join(10)
    assert in_order(supervisor.output, ["deaf did not stop within 0.5 s", "deaf was ended by SIGKILL"])
    assert not alive(family)


def test_a_second_ctrl_c_kills_what_still_runs(supervise: Callable[..., Process]) -> None:
    supervisor = supervise(f"deaf 60 {IGNORES_SIGTERM}")
    family = descendants(supervisor.popen.pid)
    supervisor.popen.send_signal(signal.SIGINT)
    eventually(lambda: "stopping" in supervisor.output)
    supervisor.popen.send_signal(signal.SIGINT)
    assert supervisor.popen.wait(10) == 0
    assert not alive(family)


def test_children_of_a_killed_supervisor_stop_in_reverse_order(
    supervise: Callable[..., Process], tmp_path: Path
) -> None:
    stopped = tmp_path / "stopped"
    names = ("first", "second", "third")
    notes = [f"{name} 5 trap 'echo {name} >> {stopped}; exit' TERM; {STAYS}" for name in names]
    supervisor = supervise(*notes, f"deaf 0.5 {IGNORES_SIGTERM}")
    family = descendants(supervisor.popen.pid)
    supervisor.popen.kill()
    eventually(lambda: not alive(family))
    assert stopped.read_text().split() == ["third", "second", "first"]


def test_a_child_that_ends_before_it_is_ready_stops_everything(supervise: Callable[..., Process]) -> None:
    supervisor = supervise(
        f"first 1 {STAYS}", "second 1 exit 4", ready="second ended with exit code 4 before it was ready"
    )
    assert supervisor.popen.wait(10) == 1
    assert "first was ended by SIGTERM" in supervisor.output


@pytest.mark.parametrize("command", ["dramatiq", "valkey-server", "gunicorn"])
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
    tasks = eventually(lambda: len(found := running.call("GET", done)) == 200 and found)
    assert {task["attempts"] for task in tasks} == {1}
    assert sorted(running.runs()) == list(range(200))


def test_a_killed_supervisor_leaves_nothing_and_running_tasks_finish(running: Backbeat) -> None:
    running.slow.touch()
    task = running.call("POST", "/tasks/", {"operation": "ledger", "params": {"number": 1000}})
    eventually(lambda: running.call("GET", f"/tasks/{task['task_id']}/")["status"] == "STARTED")
    family = descendants(running.process.popen.pid)
    running.process.popen.kill()
    eventually(lambda: not alive(family))
    assert is_free(running.port)
    assert running.runs()[-1] == 1000


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
            standalone.check_port(settings)
    standalone.check_port(settings)


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
    for name in ("Makefile", "requirements.txt"):
        shutil.copy(PROJECT / name, folder)
    (folder / "python").write_text(f"#!/bin/sh\n{python}\n")
    (folder / "python").chmod(0o755)
    command = ["make", "run", f"PYTHON={folder}/python"]
    done = subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True, timeout=20)
    assert done.returncode == 2
    assert done.stderr.splitlines()[0].startswith(message)
