"""One task at a time over HTTP, on an idle system: until the answer, and until SUCCESS is committed."""

import json
import time
from collections.abc import Iterable

import psycopg

from benchmarks.client import Client
from benchmarks.harness import Environ, Options, Servers
from benchmarks.table import Row, within
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
