"""A whole system of real processes that may be harmed, a client that posts to it, and an account of what came of it."""

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import urllib3
from flask_migrate import upgrade
from sqlalchemy import NullPool, Row, Select, create_engine, func, select
from sqlalchemy.exc import OperationalError

from scheduler_app import create_app
from scheduler_app.config import Settings
from scheduler_app.extensions import db
from scheduler_app.models import WAITING, Failure, Status, Task, Worker
from tests.support.processes import eventually
from tests.support.servers import Valkey

RESTART_DELAY = 0.2  # seconds until what has ended is started again
HANG = 20.0  # seconds after which an answer counts as never given
UNFINISHED = (*WAITING, Status.STARTED)


class Service:
    """A process in its own group, with its log in a file; start it again when it has ended."""

    def __init__(self, name: str, command: Sequence[str], environ: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self.command = [sys.executable, *command]
        self.environ = dict(environ)
        self.log = folder / f"{name}.log"
        self.start()

    def start(self) -> None:
        with self.log.open("a") as log:
            self.popen = subprocess.Popen(
                self.command, env=self.environ, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def ended(self) -> bool:
        return self.popen.poll() is not None

    def signal(self, number: int) -> None:
        """To the whole group."""
        with suppress(ProcessLookupError):
            os.killpg(self.popen.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM to its first process, as a supervisor would."""
        self.popen.terminate()

    def close(self) -> None:
        self.signal(signal.SIGCONT)
        self.kill()
        self.popen.wait(10)


class System:
    """Web, workers and schedulers on a database, with a Valkey of its own; what dies is started again."""

    def __init__(self, database_url: str, folder: Path, *, workers: int = 2) -> None:
        self.folder = folder
        self.effects = folder / "effects"
        self.valkey = Valkey()
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        settings = {
            "DATABASE_URL": database_url,
            "REDIS_URL": self.valkey.url,
            "BACKBEAT_DATA_DIR": str(folder),
            "BACKBEAT_OPERATIONS": "actors,tests.support.fault_operations",
        }
        self.environ = os.environ | settings | {"FAULT_EFFECTS": str(self.effects)}
        self._migrate(settings)
        web = ("gunicorn", "wsgi:app", "--bind", f"127.0.0.1:{self.port}", "--worker-class", "gthread")
        self.web = self._service("web", "-m", *web, "--threads", "8", "--no-control-socket")
        worker = ("-m", "dramatiq", "actors.worker", "--processes", "1", "--threads", "8")
        self.workers = [self._service(f"worker-{number}", *worker) for number in range(workers)]
        self.schedulers = [self._service(f"scheduler-{number}", "scheduler.py") for number in range(2)]
        self.services = [self.web, *self.workers, *self.schedulers]
        self._closing = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, daemon=True)
        self._supervisor.start()
        try:
            eventually(self.ready, within=60)
        except BaseException:
            self.close()
            raise

    def ready(self) -> bool:
        """Whether the web answers and all workers have registered."""
        try:
            answer = urllib3.request("GET", f"{self.url}/workers/", timeout=HANG, retries=False)
        except urllib3.exceptions.HTTPError:
            return False
        return answer.status == 200 and len(answer.json()) >= len(self.workers)

    def close(self) -> None:
        self._closing.set()
        self._supervisor.join()
        for service in self.services:
            service.close()
        self.valkey.close()
        self.engine.dispose()

    def rows(self, query: Select[Any]) -> list[Row[Any]]:
        with self.engine.connect() as connection:
            return list(connection.execute(query))

    def worker_of(self, service: Service) -> Row[Any] | None:
        """The row of the worker process that this service runs now."""
        groups = {row: _group(row.pid) for row in self.rows(select(Worker.worker_id, Worker.pid))}
        return next((row for row, group in groups.items() if group == service.popen.pid), None)

    def running_on(self, service: Service) -> int:
        row = self.worker_of(service)
        query = select(func.count()).where(Task.status == Status.STARTED, Task.worker_id == (row and row.worker_id))
        return self.rows(query)[0][0] if row else 0

    def freeze(self, service: Service) -> None:
        """SIGSTOP, but not within a transaction on SQLite: whoever holds its only lock stops everybody."""
        service.signal(signal.SIGSTOP)
        while not self._writable():
            service.signal(signal.SIGCONT)
            time.sleep(random.uniform(0, 0.05))
            service.signal(signal.SIGSTOP)

    def _writable(self) -> bool:
        if self.engine.dialect.name != "sqlite":
            return True
        try:
            with self.engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA busy_timeout = 1000")
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                connection.exec_driver_sql("ROLLBACK")
        except OperationalError:
            return False
        return True

    def _migrate(self, settings: Mapping[str, str]) -> None:
        app = create_app(Settings.from_env(settings))
        with app.app_context():
            upgrade()
            url = db.engine.url
            db.engine.dispose()
        self.engine = create_engine(url, poolclass=NullPool)

    def _service(self, name: str, *command: str) -> Service:
        return Service(name, command, self.environ, self.folder)

    def _supervise(self) -> None:
        while not self._closing.wait(RESTART_DELAY):
            for service in self.services:
                if service.ended():
                    service.kill()  # what is left of its group
                    service.start()


class Client:
    """Posts tasks until it is told to stop, in batches and one by one, and notes what was accepted."""

    def __init__(self, url: str, random_: random.Random, *, pause: float = 0.02) -> None:
        self.url = url
        self.random = random_
        self.pause = pause  # seconds between two posts, on average
        self.accepted: dict[int, float] = {}  # by task: when its 202 arrived
        self.answers: Counter[str] = Counter()  # statuses and errors
        self.slowest = 0.0  # seconds
        self.http = urllib3.PoolManager(retries=False, timeout=HANG)

    def post(self, *requests: dict[str, Any]) -> list[int]:
        """The tasks that were accepted: all or none."""
        began = time.monotonic()
        single = len(requests) == 1
        path, body = ("/tasks/", requests[0]) if single else ("/tasks/batch-request/", requests)
        try:
            answer = self.http.request("POST", self.url + path, json=body)
        except urllib3.exceptions.HTTPError as error:
            self.answers[type(error).__name__] += 1
            return []
        finally:
            self.slowest = max(self.slowest, time.monotonic() - began)
        self.answers[str(answer.status)] += 1
        if answer.status != 202:
            return []
        created = [answer.json()] if single else answer.json()["tasks"]
        ids = [task["task_id"] for task in created]
        self.accepted.update(dict.fromkeys(ids, time.time()))
        return ids

    @contextmanager
    def posting(self) -> Iterator[None]:
        stopping = threading.Event()

        def post() -> None:
            while not stopping.wait(self.random.uniform(0, 2 * self.pause)):
                size = self.random.choice((1, 1, 5, 15))
                self.post(*(self._request() for _ in range(size)))

        thread = threading.Thread(target=post)
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join()

    def _request(self) -> dict[str, Any]:
        priority = self.random.randrange(10)
        chance = self.random.random()
        if chance < 0.03:
            return {"operation": "fault.fail_once", "priority": priority}
        seconds = self.random.uniform(1, 3) if chance < 0.05 else self.random.uniform(0.003, 0.05)
        return {"operation": "fault.work", "params": {"seconds": seconds}, "priority": priority}


def unfinished(system: System) -> list[Row[Any]]:
    columns = (Task.task_id, Task.status, Task.claims, Task.attempts, Task.enqueued_at, Task.run_at, Task.worker_id)
    return system.rows(select(*columns).where(Task.status.in_(UNFINISHED)))


def settled(system: System, *, within: float) -> list[Row[Any]]:
    """What is not final even after so many seconds."""
    with suppress(AssertionError):
        eventually(lambda: not unfinished(system), within=within)
    return unfinished(system)


@dataclass
class Account:
    """What became of the tasks that were accepted."""

    lost: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)  # not in one final status, or not as the attempts say
    run_twice: list[int] = field(default_factory=list)  # whose effect came more than once
    statuses: Counter[str] = field(default_factory=Counter)
    finished: dict[int, datetime] = field(default_factory=dict)

    def recovery(self, accepted: Mapping[int, float], harmed_at: float) -> float:
        """Seconds from the harm until all that was accepted before it had finished."""
        ends = (self.finished[task_id].timestamp() for task_id, at in accepted.items() if at < harmed_at)
        return max(0.0, max(ends, default=0.0) - harmed_at)


def account(system: System, accepted: Iterable[int]) -> Account:
    result = Account()
    query = select(Task.task_id, Task.status, Task.attempts, Task.claims, Task.result, Task.error, Task.finished_at)
    tasks = {task.task_id: task for task in system.rows(query)}
    failures = Counter(task_id for (task_id,) in system.rows(select(Failure.task_id)))
    effects = Counter(int(line.split()[0]) for line in system.effects.read_text().splitlines())
    for task_id in accepted:
        task = tasks.get(task_id)
        if task is None:
            result.lost.append(task_id)
            continue
        result.statuses[task.status] += 1
        result.finished[task_id] = task.finished_at
        if problem := _problem(task, failures[task_id], effects[task_id]):
            result.wrong.append(f"{task}: {problem}")
        if effects[task_id] > 1:
            result.run_twice.append(task_id)
    return result


def _problem(task: Row[Any], failures: int, effects: int) -> str | None:
    if task.status not in (Status.SUCCESS, Status.ERROR) or task.finished_at is None:
        return "not final"
    if task.claims != task.attempts:
        return "an attempt that was not counted"
    if task.status == Status.ERROR:
        return None if failures == task.attempts and task.error["type"] == "WorkerLost" else "failed for no reason"
    if not effects or task.result != task.attempts or failures != task.attempts - 1:
        return f"{failures} failures and {effects} effects"
    return None


def _group(pid: int) -> int | None:
    with suppress(ProcessLookupError):
        return os.getpgid(pid)
    return None


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
