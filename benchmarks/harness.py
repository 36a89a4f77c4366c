"""The base of every benchmark: servers, empty databases, and processes that always get ended."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Self

import psycopg
from flask import Flask
from flask_migrate import upgrade

from scheduler_app.config import Settings
from scheduler_app.extensions import db
from scheduler_app.web import create_web_app
from tests.support.processes import ROOT, Process
from tests.support.servers import Postgres, Valkey

PEERS_PYTHON = ROOT / ".venv-bench" / "bin" / "python"
PATIENCE = 300.0  # seconds that any one step may take

Environ = dict[str, str]


@dataclass(frozen=True)
class Options:
    quick: bool = False
    explain: bool = False
    tasks: int = 200_000  # of the work that watches memory

    def size(self, full: int, quick: int) -> int:
        return quick if self.quick else full


class Servers:
    """One PostgreSQL and one Valkey for the whole run, both with the durability that they have by default."""

    def __init__(self) -> None:
        with ExitStack() as started:
            self.postgres = Postgres()
            started.callback(self.postgres.close)
            self.valkey = Valkey()
            started.callback(self.valkey.close)
            self._numbers = count(1)
            self._migrate_template()
            self._started = started.pop_all()

    def close(self) -> None:
        self._started.close()

    @contextmanager
    def fresh(self, *, template: str = "migrated") -> Iterator[Environ]:
        """Settings that name an empty Valkey and a database of its own, a copy of the template."""
        name = f"bench_{next(self._numbers)}"
        self.valkey.client.flushall()
        self.postgres.sql(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield {"DATABASE_URL": self.postgres.url(name), "REDIS_URL": self.valkey.url}
        finally:
            self.postgres.sql(f"DROP DATABASE {name} WITH (FORCE)")
            self.valkey.client.flushall()

    def description(self) -> str:
        with psycopg.connect(self.postgres.url("postgres")) as connection:
            shown = {name: connection.execute(f"SHOW {name}").fetchone()[0] for name in POSTGRES_SETTINGS}  # type: ignore[index]
        info = self.valkey.client.info("server")
        config = self.valkey.client.config_get("append*")
        return (
            f"PostgreSQL {shown['server_version']} (fsync {shown['fsync']}, synchronous_commit "
            f"{shown['synchronous_commit']}), Valkey {info.get('valkey_version', info['redis_version'])} "
            f"(appendonly {config['appendonly']}, {config['appendfsync']})"
        )

    def _migrate_template(self) -> None:
        self.postgres.sql("CREATE DATABASE migrated")
        migrate({"DATABASE_URL": self.postgres.url("migrated"), "REDIS_URL": self.valkey.url})


POSTGRES_SETTINGS = ("server_version", "fsync", "synchronous_commit")


def migrate(environ: Environ) -> None:
    with application(environ):
        upgrade(str(ROOT / "migrations"))


@contextmanager
def application(environ: Environ) -> Iterator[Flask]:
    """The application on these servers, in this process, with its context."""
    app = create_web_app(Settings.from_env(environ))
    with app.app_context():
        yield app
        db.session.remove()
        db.engine.dispose()


class Processes(list[Process]):
    """Several that run side by side; ended with the block."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self):
            process.kill()

    def start(
        self,
        command: Sequence[str],
        environ: Environ,
        ready: str,
        *,
        number: int = 1,
        python: str | Path = sys.executable,
    ) -> None:
        """So many of them, until they are ready."""
        environ = {"PYTHONUNBUFFERED": "1", **environ}
        started = [Process(command, environ, ready, python=python) for _ in range(number)]
        self.extend(started)
        for process in started:
            process.wait_until_ready()


@contextmanager
def paused(processes: Iterable[Process]) -> Iterator[None]:
    """Stops the processes, so that afterwards all of them find the published tasks at the same moment."""
    for process in processes:
        process.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            process.signal(signal.SIGCONT)


def call_peer(module: str, call: str, environ: Mapping[str, str]) -> None:
    """Runs a function of a peer's module to its end, in a process of the peers' environment."""
    code = f"from {module} import *; {call}"
    subprocess.run([PEERS_PYTHON, "-c", code], cwd=ROOT, env=os.environ | environ, check=True, timeout=PATIENCE)


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
