"""200 clients wait for the ends of tasks in one web process: what a post takes beside them, and how soon one hears."""

import json
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime

from benchmarks.client import Client
from benchmarks.harness import Options, Servers
from benchmarks.table import Row, milliseconds, percentile, within
from benchmarks.watchers import posted
from tests.support.system import System

OPERATIONS = {"BACKBEAT_OPERATIONS": "actors,tests.support.trial_operations"}
WAITERS = 200
GOAL = 1.2  # times the p50 without them
SOON = 0.005  # seconds from the end of a task to the answer
LATER = json.dumps({"operation": "4+7", "run_at": "2999-01-01T00:00:00Z"}).encode()
SHORT = json.dumps({"operation": "trial.wait", "params": {"seconds": 0.05}}).encode()


def run(servers: Servers, options: Options) -> Iterable[Row]:
    without: list[float] = []
    beside: list[float] = []
    heard: list[float] = []
    with (
        servers.fresh() as environ,
        System(environ | {"BACKBEAT_OPERATIONS": "actors,tests.support.trial_operations"}) as system,
    ):
        client = Client(system.port)
        task_id = json.loads(client.post("/tasks/", LATER))["task_id"]
        posted(client, 2)
        for _ in range(options.size(5, 2)):
            without += posted(client, options.size(10, 4))
            with waiting(system.port, task_id):
                beside += posted(client, options.size(10, 4))
                heard += [hears(client) for _ in range(options.size(60, 20))]
    p50 = [percentile(times, 50) for times in (beside, without)]
    ratio = p50[0] / p50[1]
    shown = milliseconds(p50[0]), "without them", milliseconds(p50[1]), f"{ratio:.2f}", f"≤ {GOAL:g} x", ratio <= GOAL
    yield Row(f"post one beside {WAITERS} that wait, p50", *shown)
    yield within("from the end of a task to the answer", heard, 50, SOON)


def hears(client: Client) -> float:
    """Seconds from the end of a task, as its row says, to the answer to a request that waits for it."""
    task = json.loads(client.post("/tasks/?wait=30", SHORT))
    return time.time() - datetime.fromisoformat(task["finished_at"]).timestamp()


@contextmanager
def waiting(port: int, task_id: int) -> Iterator[None]:
    """So many connections that wait all the while; a round is shorter than a minute."""
    with ExitStack() as stack:
        request = f"GET /tasks/{task_id}/?wait=60 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        for _ in range(WAITERS):
            stack.enter_context(socket.create_connection(("127.0.0.1", port))).sendall(request)
        time.sleep(2)  # until all of them wait
        yield
