"""One client posts batches of tasks over HTTP. Each is committed, and published to Valkey."""

import json
import statistics
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from benchmarks.client import Client
from benchmarks.harness import Options, Servers, application
from benchmarks.table import Row, compared, rate
from scheduler_app.extensions import broker
from tests.support.system import System

GOAL = 5_000  # tasks a second
BATCH = 100
BODY = json.dumps([{"operation": "4+7", "priority": n % 10} for n in range(BATCH)]).encode()
WARM_UP = 20  # batches


def run(servers: Servers, options: Options) -> Iterable[Row]:
    batches = options.size(200, 50)
    rates: dict[str, list[float]] = {"ours": [], "bare": [], "two": []}
    for _ in range(options.size(3, 1)):
        rates["ours"].append(accept(servers, batches))
        rates["two"].append(accept(servers, batches, connections=2))
        rates["bare"].append(insert_only(servers, batches))
    median = statistics.median(rates["ours"])
    work = f"accept {BATCH * batches:,} in batches of {BATCH}"
    yield Row(work, rate(median), goal=f"≥ {rate(GOAL)}", met=median >= GOAL)
    yield Row(f"{work}, two connections", rate(statistics.median(rates["two"])))
    yield compared(work, rates["ours"], "bare Flask and psycopg, insert only", rates["bare"])


def accept(servers: Servers, batches: int, *, connections: int = 1) -> float:
    with servers.fresh() as environ, System(environ, web=2, workers=0, schedulers=0) as system:
        measured = post(system.port, "/tasks/batch-request/", batches, connections)
        with application(environ):
            assert sum(broker.waiting()) == BATCH * (batches + WARM_UP * connections)
    return measured


def insert_only(servers: Servers, batches: int) -> float:
    serve = ("-m", "benchmarks.peers.bare_web")
    with servers.fresh() as environ, System(environ, web=2, workers=0, schedulers=0, serve=serve) as system:
        return post(system.port, "/tasks/", batches, connections=1)


def post(port: int, path: str, batches: int, connections: int) -> float:
    """Tasks a second."""
    clients = [Client(port) for _ in range(connections)]

    def send(client: Client, count: int) -> None:
        for _ in range(count):
            client.post(path, BODY)

    with ThreadPoolExecutor(connections) as pool:
        list(pool.map(send, clients, [WARM_UP] * connections))
        began = time.monotonic()
        list(pool.map(send, clients, [batches // connections] * connections))
        return BATCH * batches / (time.monotonic() - began)
