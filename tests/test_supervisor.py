"""The supervisor with small children."""

import os
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.process_table import alive, descendants, processes
from tests.support.processes import Process, eventually

# Each argument is a service: its name, seconds of grace and a shell command.
SUPERVISOR = """
import asyncio, os, sys
from scheduler_app.supervisor import Service, StartError, Supervisor

async def start():
    for argument in sys.argv[1:]:
        name, grace, command = argument.split(" ", 2)
        await supervisor.start(Service(name, ("/bin/sh", "-c", command), ready="up", grace=float(grace)))
    supervisor.log.write("backbeat", "all started")

supervisor = Supervisor(os.environ, verbose=True)
try:
    asyncio.run(supervisor.supervise(start()))
except StartError as error:
    sys.exit(str(error))
"""
STAYS = "echo up; sleep 60 & wait"
IGNORES_SIGTERM = "trap '' TERM; echo up; while :; do sleep 60; done"


@pytest.fixture
def supervise() -> Iterator[Callable[..., Process]]:
    """Starts a supervisor of small shell commands."""
    started: list[Process] = []

    def supervise(*services: str, ready: str = "all started") -> Process:
        started.append(Process(["-c", SUPERVISOR, *services], {}, ready))
        return started[-1].wait_until_ready()

    yield supervise
    for process in started:
        process.kill()


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
    facts = [f"{name} was ended by SIGTERM" for name in ("third", "second", "first")]
    assert in_order(supervisor.output, ["stopping", *facts])
    assert not alive(family)


def test_a_child_that_does_not_stop_is_killed_after_its_grace(supervise: Callable[..., Process]) -> None:
    supervisor = supervise(f"deaf 0.5 {IGNORES_SIGTERM}")
    family = descendants(supervisor.popen.pid)
    assert supervisor.stop() == 0
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
