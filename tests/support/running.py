"""A whole Backbeat as a reader of the README has it, on SQLite."""

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import urllib3

from tests.support.processes import Process, eventually
from tests.support.servers import Valkey

WEB = "-m gunicorn wsgi:app --bind 127.0.0.1:0 --worker-class gthread --threads 8 --no-control-socket"
WORKER = "-m dramatiq actors.worker --processes 1 --threads 8"


class Backbeat:
    """Web, worker and scheduler, with the shop's operations."""

    def __init__(self, folder: Path, migrated: Mapping[str, str], valkey: Valkey, api_key: str) -> None:
        valkey.client.flushall()
        self.key = api_key
        self.database = folder / "backbeat.db"
        shutil.copy(migrated["sqlite"].removeprefix("sqlite:///"), self.database)
        environ = os.environ | {
            "DATABASE_URL": f"sqlite:///{self.database}",
            "REDIS_URL": valkey.url,
            "BACKBEAT_API_KEY": api_key,
            "BACKBEAT_OPERATIONS": "actors,examples.shop_operations",
            "SHOP_INVOICES": str(folder / "invoices"),
        }
        self.web = Process([*WEB.split(), "--access-logfile", "-"], environ, "Booting worker")
        worker = Process(WORKER.split(), environ, "Worker process is ready for action")
        self.processes = (self.web, worker, Process(["scheduler.py"], environ, "scheduler ready"))

    def wait_until_ready(self) -> None:
        for process in self.processes:
            process.wait_until_ready()
        self.url = re.findall(r"Listening at: (http://\S+)", self.web.output)[0]

    def call(self, method: str, path: str, body: object = None) -> Any:
        headers = {"Authorization": f"Bearer {self.key}"}
        return urllib3.request(method, self.url + path, headers=headers, json=body).json()

    def get(self, path: str) -> Any:
        return self.call("GET", path)

    def finished(self, task_id: int) -> dict[str, Any]:
        def look() -> dict[str, Any]:
            task = self.get(f"/tasks/{task_id}/")
            return task if task["finished_at"] else {}

        return eventually(look)

    def kill(self) -> None:
        for process in self.processes:
            process.kill()


@contextmanager
def running(*arguments: Any) -> Iterator[Backbeat]:
    system = Backbeat(*arguments)
    try:
        system.wait_until_ready()
        yield system
    finally:
        system.kill()
