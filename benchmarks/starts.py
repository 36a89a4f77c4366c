"""Connects a task with the benchmark: the task reports its start, and the benchmark can hold it."""

import os
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

LAYOUT = struct.Struct("=qd")


def tell(number: int) -> None:
    started = time.monotonic()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(LAYOUT.pack(number, started), os.environ["STARTS"])


def wait_for_release() -> None:
    """Until the benchmark says so, or is gone."""
    while _gate(os.environ["STARTS"]).exists():
        time.sleep(0.05)


def _gate(path: str) -> Path:
    return Path(f"{path}.closed")


class Starts:
    """Hears which tasks have started, and when, by the clock that all processes of this machine share."""

    def __enter__(self) -> Self:
        self.folder = TemporaryDirectory()
        self.path = str(Path(self.folder.name) / "socket")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.heard: dict[int, float] = {}
        _gate(self.path).touch()
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        self.folder.cleanup()

    def release(self) -> None:
        _gate(self.path).unlink()

    def listen(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """For so long, or until then."""
        deadline = time.monotonic() + seconds
        while not until() and (left := deadline - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                number, started = LAYOUT.unpack(self.socket.recv(LAYOUT.size))
            except TimeoutError:
                break
            self.heard[number] = started
        return until()

    def wait_for(self, numbers: range, *, within: float) -> list[float]:
        """When each of these started."""
        if not self.listen(within, lambda: all(number in self.heard for number in numbers)):
            raise RuntimeError(f"of {len(numbers)} tasks {len(self.heard)} started within {within} s")
        return [self.heard[number] for number in numbers]
