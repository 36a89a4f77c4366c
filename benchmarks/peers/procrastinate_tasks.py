"""Procrastinate: PostgreSQL alone, which keeps the status of each job."""

import os

from procrastinate import App, PsycopgConnector, SyncPsycopgConnector

from benchmarks.peers import clock

CONCURRENCY = 8
READY = "procrastinate is ready"

app = App(connector=PsycopgConnector(conninfo=os.environ["DATABASE_URL"], min_size=4, max_size=CONCURRENCY + 2))


@app.task(name="add")
@clock.of_this_process().timed
def add(a: int, b: int) -> int:
    return a + b


def work() -> None:
    print(READY)
    app.run_worker(concurrency=CONCURRENCY)


def publish(count: int) -> None:
    with app.replace_connector(sync()) as publisher, publisher.open():
        add.batch_defer(*[{"a": 4, "b": 7}] * count)


def prepare() -> None:
    with app.replace_connector(sync()) as publisher, publisher.open():
        publisher.schema_manager.apply_schema()


def sync() -> SyncPsycopgConnector:
    return SyncPsycopgConnector(conninfo=os.environ["DATABASE_URL"])
