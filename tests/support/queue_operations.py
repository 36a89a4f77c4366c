"""Operations for the workers of test_work_queue.py. Each writes what it does to a file, which outlives Redis."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from marshmallow import Schema

from scheduler_app.operations import current_task, operation


class Nothing(Schema):
    pass


def folder() -> Path:
    return Path(os.environ["FOLDER"])


def write(what: str) -> None:
    with (folder() / "log").open("a") as log:
        log.write(f"{what} {current_task.task_id} {os.getppid()}\n")


@operation("queue.record", params=Nothing)
def record() -> None:
    "Ends at once."
    write("done")


@operation("queue.hold", params=Nothing)
def hold() -> None:
    "Runs until the test says that it may end."
    write("started")
    while not (folder() / "release").exists():
        time.sleep(0.01)
    write("done")


@operation("queue.kill", params=Nothing)
def kill() -> None:
    "Ends its worker's process."
    write("started")
    os.kill(os.getpid(), signal.SIGKILL)


@operation("queue.deep", params=Nothing)
def deep() -> Any:
    "Returns what PostgreSQL does not store."
    value: list[Any] = []
    for _ in range(900):
        value = [value]
    return value
