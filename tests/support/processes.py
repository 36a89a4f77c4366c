"""Processes of the system under test, and how to wait for what they do."""

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Self, TypeVar

from tests.support.template import ROOT, Forked, Template, loads

T = TypeVar("T")
# Below those that a system gives to outgoing connections: one of these could take the port before the server does.
PORTS = range(20_000, 32_000)


def eventually(look: Callable[[], T], *, within: float = 60) -> T:
    """Returns the first true value of `look()`. After `within` seconds it fails and shows the last value."""
    looked = time.monotonic()
    deadline = looked + within
    while not (seen := look()):
        if (now := time.monotonic()) > deadline:
            raise AssertionError(f"not so within {within} s; last seen: {seen!r}")
        time.sleep(max(0.02, now - looked))  # half of the time is left to what is looked at
        looked = time.monotonic()
    return seen


def free_port() -> int:
    """A port of loopback on which nothing listens."""
    while True:
        port = random.choice(PORTS)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class Process:
    """A Python process in its own group. Its output goes to a file, so that reading it costs the process nothing.

    environ is what differs from this process's own environment. Without a log, the output goes to a nameless file. It
    runs the code of the tree in the folder.
    """

    template: ClassVar[Template | None] = None  # if there is one, what it has loaded is forked from it

    def __init__(
        self,
        command: Sequence[str],
        environ: Mapping[str, str],
        ready: str,
        *,
        python: str | Path = sys.executable,
        log: Path | None = None,
        folder: Path = ROOT,
    ) -> None:
        self.command = [python, *command]
        self.folder = folder
        self.environ = os.environ | environ
        self.ready = ready
        with log.open("a+b") if log else tempfile.TemporaryFile() as file:
            self._log = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._log)
        self.start()

    def start(self) -> None:
        """Again, once it has ended."""
        self.popen: subprocess.Popen[bytes] | Forked
        if self.template and self.folder == ROOT and loads(self.command, self.environ):
            self.popen = self.template.fork(self.command, self.environ, self._log)
            return
        self.popen = subprocess.Popen(
            self.command,
            cwd=self.folder,
            env=self.environ,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def output(self) -> str:
        """All that it has written, in all its lives."""
        # Not by seek and read: the process shares the position in the file.
        return os.pread(self._log, os.fstat(self._log).st_size, 0).decode(errors="replace")

    @property
    def ended(self) -> bool:
        return self.popen.poll() is not None

    def wait_until_ready(self) -> Self:
        eventually(lambda: self.ready in self.output or self.ended, within=60)
        assert self.ready in self.output, f"{self.command} did not start:\n{self.output}"
        return self

    def signal(self, number: int) -> None:
        """To all of its group that is left."""
        with suppress(ProcessLookupError):
            os.killpg(self.popen.pid, number)

    def stop(self, within: float = 30) -> int:
        """SIGTERM to its first process, as a supervisor would; returns the exit code."""
        self.popen.terminate()
        return self.popen.wait(within)

    def kill(self) -> None:
        """Ends all of it, at once and for good."""
        popen = self.popen  # somebody may start it again meanwhile
        with suppress(ProcessLookupError):
            os.killpg(popen.pid, signal.SIGKILL)
        popen.wait(10)
