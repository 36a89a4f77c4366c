"""Waiting tasks on SQLite, in the size that `make run` has: one worker process of eight threads."""

import statistics
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import ours
from benchmarks.harness import Environ, Options, Servers, application, migrate
from benchmarks.table import Row, rate

GOAL = 1_000  # tasks a second


def run(servers: Servers, options: Options) -> Iterable[Row]:
    count = options.size(10_000, 3_000)
    median = statistics.median(drain(servers, count) for _ in range(options.size(3, 1)))
    yield Row(f"drain {count:,} on SQLite", rate(median), goal=f"≥ {rate(GOAL)}", met=median >= GOAL)


def drain(servers: Servers, count: int) -> float:
    with database(servers) as environ:
        with application(environ):
            ours.insert_tasks(count)
        return ours.drain(environ, count, workers=1)


@contextmanager
def database(servers: Servers) -> Iterator[Environ]:
    """An empty Valkey and a SQLite file of its own."""
    servers.valkey.client.flushall()
    with TemporaryDirectory() as folder:
        environ = {"DATABASE_URL": f"sqlite:///{Path(folder)}/backbeat.db", "REDIS_URL": servers.valkey.url}
        migrate(environ)
        yield environ
