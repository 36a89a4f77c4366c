"""One task at a time over HTTP, on an idle system: until the answer, and until SUCCESS is committed."""

import json
import time
from collections.abc import Iterable

import psycopg

from benchmarks.client import Client
from benchmarks.harness import Environ, Options, Servers, application
from benchmarks.table import Row, milliseconds, percentile, within
from scheduler_app import database
from scheduler_app.access_models import Scope
from scheduler_app.services import keys
from tests.support.system import System

BODY = json.dumps({"operation": "4+7"}).encode()
GAP = 0.05  # seconds between two
LOOK = 0.0005  # seconds between two looks at the row
STATUS = "SELECT status FROM task WHERE task_id = %s"


def run(servers: Servers, options: Options) -> Iterable[Row]:
    with servers.fresh() as environ, System(environ, web=2) as system:
        times = trials(environ, system.port, options.size(300, 60))
    answered, done = zip(*times, strict=True)
    for percent, goal in ((50, 0.004), (95, 0.008)):
        yield within("post one", answered, percent, goal)
    for percent, goal in ((50, 0.009), (95, 0.02)):
        yield within("post one, until SUCCESS", done, percent, goal)


def keyed(servers: Servers, options: Options) -> Iterable[Row]:
    """The same post with a key of the database and without any, in turn, on two systems."""
    with servers.fresh() as open_, servers.fresh() as closed:
        with application(closed):
            _, key = keys.create("benchmark", Scope.WRITE, now=database.clock())
        with System(open_, workers=0, schedulers=0) as ours, System(closed, workers=0, schedulers=0) as theirs:
            with_key, without = Client(theirs.port, key=key), Client(ours.port)
            times = [(answered(with_key), answered(without)) for _ in range(options.size(2_000, 200))][50:]
    p50 = [percentile(part, 50) for part in zip(*times, strict=True)]
    ratio, goal = p50[0] / p50[1], 1.03
    shown = milliseconds(p50[0]), "without a key", milliseconds(p50[1]), f"{ratio:.2f}", f"≤ {goal:g} x", ratio <= goal
    yield Row("post one with a key, p50", *shown)


def answered(client: Client) -> float:
    """Seconds until the answer."""
    began = time.monotonic()
    client.post("/tasks/", BODY)
    return time.monotonic() - began


def trials(environ: Environ, port: int, count: int) -> list[tuple[float, float]]:
    client = Client(port)
    with psycopg.connect(environ["DATABASE_URL"], autocommit=True) as reader:
        for _ in range(20):  # so that every process and thread has its connections
            trial(client, reader)
        return [trial(client, reader) for _ in range(count)]


def trial(client: Client, reader: "psycopg.Connection[tuple[str]]") -> tuple[float, float]:
    """Seconds until the answer and until another connection sees SUCCESS."""
    time.sleep(GAP)
    began = time.monotonic()
    answer = client.post("/tasks/", BODY)
    answered = time.monotonic()
    task_id = json.loads(answer)["task_id"]
    while (row := reader.execute(STATUS, (task_id,), prepare=True).fetchone()) and row[0] != "SUCCESS":
        if time.monotonic() > began + 30:
            raise RuntimeError(f"task {task_id} is {row[0]}")
        time.sleep(LOOK)
    return answered - began, time.monotonic() - began
