"""A process that has loaded the application and forks itself for each process that a test wants.

To load it takes over a second, which is more than what most tests do with a process. What is forked runs one of the
entry points from its first line: neither they nor operations are loaded before.
"""

import gc
import importlib
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path
from typing import Any

from jinja2 import FileSystemBytecodeCache

from scheduler_app.application import Application

ROOT = Path(__file__).parents[2]
LOADED = (  # whatever an entry point imports, if to import it reads no setting and starts no thread
    "apscheduler.schedulers.blocking",
    "dramatiq.cli",
    "scheduler_app.web",
    "scheduler_app.worker.attempt_log",
    "scheduler_app.worker.exchange",
    "scheduler_app.worker.pulse",
    "scheduler_app.worker.traced",
    "scheduler_app.worker.work_queue",
)
ENTRY_POINTS = (["wsgi.py"], ["scheduler.py"], ["-m", "dramatiq"])
AT_THE_START = ("LD_", "PYTHON")  # variables that count when a program begins


def loads(command: Sequence[str | Path], environ: Mapping[str, str]) -> bool:
    """Whether a template loads what this command does, in the way that it would."""
    python, *arguments = command
    differing = {name for name, _ in environ.items() ^ os.environ.items()}
    at_the_start = any(name.startswith(AT_THE_START) for name in differing)
    return python == sys.executable and not at_the_start and any(arguments[: len(e)] == e for e in ENTRY_POINTS)


def keep_pages(folder: Path) -> None:
    """Pages that an application of this process compiles are kept there for the next; a dozen cost a second."""
    Application.jinja_options = {"bytecode_cache": FileSystemBytecodeCache(str(folder))}


class Template:
    """It starts with the first process that is asked for. All ends when it is closed, or this process ends."""

    def __init__(self, pages: Path) -> None:
        self._pages = pages
        self._process: subprocess.Popen[bytes] | None = None
        self._turn = threading.Lock()

    def fork(self, command: Sequence[str | Path], environ: Mapping[str, str], log: int) -> "Forked":
        """A process in its own session that runs the command in the project's folder, and writes to the file log."""
        with self._turn:
            if not self._process:
                self._start()
            self._connection.send((command[1:], dict(environ)))
            send_handle(self._connection, log, self._process.pid)
            return Forked(self, command, self._connection.recv())

    def exit_code(self, pid: int) -> int | None:
        with self._turn:
            self._connection.send(pid)
            return self._connection.recv()

    def close(self) -> None:
        if self._process:
            self._connection.close()
            self._process.wait(10)

    def _start(self) -> None:
        self._connection, theirs = Pipe()
        with theirs:
            # A session of its own: Ctrl-C is for the tests, which then end what they have started.
            command, files = [sys.executable, "-m", __name__, str(theirs.fileno()), str(self._pages)], [theirs.fileno()]
            self._process = subprocess.Popen(command, cwd=ROOT, pass_fds=files, start_new_session=True)


class Forked:
    """As much of subprocess.Popen as tests use."""

    def __init__(self, template: Template, command: Sequence[str | Path], pid: int) -> None:
        self._template = template
        self.args = command
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._template.exit_code(self.pid)
        return self.returncode

    def wait(self, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(0.01)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def main(connection: Connection, pages: Path) -> None:
    for module in LOADED:
        importlib.import_module(module)
    keep_pages(pages)
    assert len([*Path("/proc/self/task").iterdir()]) == 1, "a thread would be missing in what is forked"
    gc.collect()
    gc.freeze()  # else each collection would copy the memory that all share
    exit_codes: dict[int, int | None] = {}  # of what was forked; two threads may ask for the same one
    while asked := received(connection):
        if isinstance(asked, int):
            if exit_codes[asked] is None:
                pid, status = os.waitpid(asked, os.WNOHANG)
                exit_codes[asked] = os.waitstatus_to_exitcode(status) if pid else None
            connection.send(exit_codes[asked])
            continue
        log = recv_handle(connection)
        if pid := os.fork():
            os.close(log)
            exit_codes[pid] = None
            continue
        os.setsid()
        connection.send(os.getpid())
        connection.close()
        run(*asked, log)
        return
    for pid, code in exit_codes.items():
        if code is None:
            os.killpg(pid, signal.SIGKILL)


def received(connection: Connection) -> Any:
    """What is asked for, or None when nobody is there any more who could ask."""
    with suppress(EOFError, ConnectionResetError):
        return connection.recv()


def run(command: Sequence[str], environ: Mapping[str, str], log: int) -> None:
    for number in (1, 2):
        os.dup2(log, number)
    os.close(log)
    os.environ.clear()
    os.environ.update(environ)
    sys.argv = [*command]
    if command[0] == "-m":
        del sys.argv[0]
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(Path(command[0]).resolve().parent)
        runpy.run_path(command[0], run_name="__main__")


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])), Path(sys.argv[2]))
