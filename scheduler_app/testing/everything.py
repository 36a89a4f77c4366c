"""All of Backbeat, for as long as a test needs it: web, worker and scheduler, on SQLite and a Valkey of their own."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from scheduler_app.config import Settings

ROOT = Path(__file__).parents[2]
STARTING = 30.0  # seconds that it may take; usually it takes one or two
STOPPING = 10.0
LONGEST = 60  # seconds that one request may wait for a task
LOOK = 0.02  # seconds between two looks whether it is ready


class StartFailed(Exception):
    """It did not become ready. The message is what it wrote."""


class Backbeat:
    """The system under test."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def run(self, operation: str, params: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        """Posts a task and returns it once it has ended, however it ended; or as it is after a minute."""
        body = {"operation": operation, **({} if params is None else {"params": params}), **options}
        status, task = self.call("POST", f"/tasks/?wait={LONGEST}", body)
        assert status in (200, 202), task
        found: dict[str, Any] = task
        return found

    def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Status and JSON of the answer to any call."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=LONGEST + 30)
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        return answer.status, json.loads(text) if text else None


@contextmanager
def everything(*operations: str, **settings: str) -> Iterator[Backbeat]:
    """Starts it with the operations of these modules beside those that ship, and with settings by their variables.

    It keeps its data in a folder of its own. Everything ends with the block, or with this process. Raises StartFailed.
    """
    with TemporaryDirectory(prefix="backbeat-") as folder:
        data = Path(folder)
        unset = dict.fromkeys((field.metadata["variable"] for field in fields(Settings)), "")
        ours = {
            "BACKBEAT_DATA_DIR": str(data),
            "BACKBEAT_OPERATIONS": ",".join(("actors", *operations)),
            "BACKBEAT_HTTP_ALLOW": "local",
            "BACKBEAT_SCAN_INTERVAL": "0.1",
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),  # the operations may be anywhere
        }
        with (data / "log").open("wb") as log:
            command = [sys.executable, "-m", "scheduler_app.testing.processes"]
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | unset | ours | settings,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        try:
            yield _ready(process, data / "log")
        finally:
            _stop(process)


def _ready(process: "subprocess.Popen[bytes]", log: Path) -> Backbeat:
    assert process.stdout
    if line := process.stdout.readline():
        backbeat, deadline = Backbeat(int(line)), time.monotonic() + STARTING
        while time.monotonic() < deadline and process.poll() is None:
            if backbeat.call("GET", "/readyz")[1]["status"] == "ok":
                return backbeat
            time.sleep(LOOK)
    raise StartFailed(log.read_text(errors="replace") or "It is not ready, and wrote nothing.")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdin
    assert process.stdout
    process.stdin.close()  # by which it is told
    process.stdout.close()
    try:
        process.wait(STOPPING)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
