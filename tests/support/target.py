"""A whole system on its own servers, which a test may harm."""

import os
import random
import signal
import time
from collections.abc import Collection
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import urllib3
from flask_migrate import upgrade
from sqlalchemy import NullPool, Row, Select, create_engine, func, select
from sqlalchemy.exc import OperationalError

from scheduler_app.config import Settings
from scheduler_app.extensions import db
from scheduler_app.models import Status, Task, Worker
from scheduler_app.web import create_web_app
from tests.support import faketime
from tests.support.faketime import WrongClock
from tests.support.processes import Process, eventually
from tests.support.proxy import postgres_proxy, redis_proxy
from tests.support.servers import Postgres, Valkey
from tests.support.system import System


class Target:
    """Web, workers and two schedulers, which are started again when they die; a database and a Valkey of their own.

    The first worker reaches its servers through proxies. The last worker and the last scheduler have clocks that can
    be set, where libfaketime is installed.
    """

    def __init__(self, database: str, folder: Path, *, workers: int = 2) -> None:
        self.folder = folder
        self.effects = folder / "effects"
        self.limit_lines = folder / "limited"
        with ExitStack() as started:
            self.valkey = Valkey()
            started.callback(self.valkey.close)
            self.postgres = Postgres() if database == "postgresql" else None
            if self.postgres:
                started.callback(self.postgres.close)
                self.postgres.sql("CREATE DATABASE backbeat")
            self._migrate()
            started.callback(self.engine.dispose)
            self._start(workers, started)
            started.callback(self.system.close)
            self.system.supervise()
            eventually(self.ready, within=60)
            self._started = started.pop_all()

    def close(self) -> None:
        self._started.close()

    def ready(self) -> bool:
        """Whether the web answers and all workers have registered."""
        try:
            return len(self.system.get("/workers/")) >= len(self.system.workers)
        except (urllib3.exceptions.HTTPError, ValueError):
            return False

    def rows(self, query: Select[Any]) -> list[Row[Any]]:
        with self.engine.connect() as connection:
            return list(connection.execute(query))

    def worker_of(self, process: Process) -> Row[Any] | None:
        """The row of the worker that this process runs now."""
        groups = {row: _group(row.pid) for row in self.rows(select(Worker.worker_id, Worker.pid))}
        return next((row for row, group in groups.items() if group == process.popen.pid), None)

    def running_on(self, process: Process, task_ids: Collection[int] | None = None) -> int:
        """How many tasks, of these ones if some are given."""
        row = self.worker_of(process)
        query = select(func.count()).where(Task.status == Status.STARTED, Task.worker_id == (row and row.worker_id))
        if task_ids is not None:
            query = query.where(Task.task_id.in_(task_ids))
        return self.rows(query)[0][0] if row else 0

    def freeze(self, process: Process) -> None:
        """SIGSTOP, but not within a transaction on SQLite: whoever holds its only lock stops everybody."""
        process.signal(signal.SIGSTOP)
        while not self._writable():
            process.signal(signal.SIGCONT)
            time.sleep(random.uniform(0, 0.05))
            process.signal(signal.SIGSTOP)

    def _writable(self) -> bool:
        if self.postgres:
            return True
        try:
            with self.engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA busy_timeout = 1000")
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                connection.exec_driver_sql("ROLLBACK")
        except OperationalError:
            return False
        return True

    def _migrate(self) -> None:
        file = self.folder / "backbeat.db"
        url = self.postgres.url("backbeat") if self.postgres else f"sqlite:///{file}"
        self.environ = {
            "DATABASE_URL": url,
            "REDIS_URL": self.valkey.url,
            "BACKBEAT_DATA_DIR": str(self.folder),
            "BACKBEAT_OPERATIONS": "actors,tests.support.fault_operations",
            "FAULT_EFFECTS": str(self.effects),
            "LIMIT_LINES": str(self.limit_lines),
        }
        app = create_web_app(Settings.from_env({"DATABASE_URL": url}))
        with app.app_context():
            upgrade()
            engine_url = db.engine.url
            db.engine.dispose()
        self.engine = create_engine(engine_url, poolclass=NullPool)

    def _start(self, workers: int, started: ExitStack) -> None:
        self.worker_clock, self.scheduler_clock = (self._clock(name) for name in ("worker", "scheduler"))
        self.system = System(self.environ, workers=0, logs=self.folder)
        self.system.add_worker(**self._proxied(started))
        for _ in range(workers - 2):
            self.system.add_worker()
        self.system.add_worker(**_of(self.worker_clock))
        self.system.add_scheduler(**_of(self.scheduler_clock))

    def _clock(self, name: str) -> WrongClock:
        folder = self.folder / f"clock-of-{name}"
        folder.mkdir()
        return WrongClock(folder)

    def _proxied(self, started: ExitStack) -> dict[str, str]:
        self.redis_proxy, url = redis_proxy(self.valkey.url)
        started.callback(self.redis_proxy.close)
        environ = {"REDIS_URL": url}
        if self.postgres:
            self.database_proxy, url = postgres_proxy(self.environ["DATABASE_URL"])
            started.callback(self.database_proxy.close)
            environ["DATABASE_URL"] = url
        return environ


def _of(clock: WrongClock) -> dict[str, str]:
    return clock.environ if faketime.LIBRARY.exists() else {}


def _group(pid: int) -> int | None:
    with suppress(ProcessLookupError):
        return os.getpgid(pid)
    return None
