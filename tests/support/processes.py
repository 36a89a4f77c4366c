"""Processes of the system under test, and how to wait for what they do."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Self, TypeVar

T = TypeVar("T")


def eventually(look: Callable[[], T], *, within: float = 20) -> T:
    """The first true value that look gives; fails with the last one after so many seconds."""
    deadline = time.monotonic() + within
    while not (seen := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {within} s; last seen: {seen!r}")
        time.sleep(0.02)
    return seen


class Process:
    """A Python process in its own group, with its output."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], ready: str) -> None:
        self.ready = ready
        self.lines: list[str] = []
        self.popen = subprocess.Popen(
            [sys.executable, *command],
            env=dict(environ),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def wait_until_ready(self) -> Self:
        eventually(lambda: self.ready in self.output or self.popen.poll() is not None, within=30)
        assert self.ready in self.output, self.output
        return self

    def signal(self, number: int) -> None:
        os.killpg(self.popen.pid, number)

    def stop(self, within: float = 30) -> int:
        """SIGTERM to its first process, as a supervisor would; returns the exit code."""
        self.popen.terminate()
        return self.popen.wait(within)

    def kill(self) -> None:
        """Ends all of it, at once and for good."""
        with suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)
        self.popen.wait(10)
        self.reader.join(10)

    def _read(self) -> None:
        assert self.popen.stdout
        for line in self.popen.stdout:
            self.lines.append(line)
        self.popen.stdout.close()
