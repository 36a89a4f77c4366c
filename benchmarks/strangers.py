"""Clients that stall: how long a probe and a post of somebody else take beside them, on one web process."""

import json
import resource
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager

from benchmarks.client import Client
from benchmarks.harness import Options, Servers
from benchmarks.post import BODY
from benchmarks.table import Row, milliseconds, percentile, within
from tests.support.system import System

GOAL = 0.1  # seconds that a probe may take
FILES = 4_096  # that this process may open
LARGE = json.dumps([{"operation": "http_request", "params": {"url": "http://localhost/", "body": "x" * 500}}] * 1_000)


def head(line: str, *headers: str) -> bytes:
    return "\r\n".join([f"{line} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


JSON = "Content-Type: application/json"
# What each of so many clients sends. None of them reads, and none hangs up.
STALLS = {
    "nobody": (0, b""),
    "500 half heads": (500, b"POST /tasks/ HTTP/1.1\r\nHost: loc"),
    "500 half bodies": (500, head("POST /tasks/", JSON, "Content-Length: 1000") + b"[{"),
    "64 answers of about 1 MiB that nobody reads": (
        64,
        head("POST /tasks/batch-request/", JSON, f"Content-Length: {len(LARGE)}") + LARGE.encode(),
    ),
    "1,000 idle connections": (1_000, head("GET /livez")),
}


def run(servers: Servers, options: Options) -> Iterable[Row]:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES, most), most))
    for name, (clients, sent) in STALLS.items():
        with servers.fresh() as environ, System(environ, workers=0, schedulers=0) as system:
            probes, posts = beside(system.port, clients, sent, options.size(400, 50))
        post = f"post one p50 {milliseconds(percentile(posts, 50))}, longest {milliseconds(max(posts))}"
        yield within(f"a probe beside {name}", probes, 100, GOAL, peer=post)


def beside(port: int, clients: int, sent: bytes, count: int) -> tuple[list[float], list[float]]:
    """Seconds that each probe and each post took while the clients stalled, and while they came."""
    client = Client(port)
    client.post("/tasks/", BODY)
    with stalling(port, clients, sent) as connecting:
        probes = [timed(lambda: client.get("/livez")) for _ in connecting]
        posts = []
        for _ in range(count):
            probes.append(timed(lambda: client.get("/livez")))
            posts.append(timed(lambda: client.post("/tasks/", BODY)))
    return probes, posts


@contextmanager
def stalling(port: int, clients: int, sent: bytes) -> Iterator[Iterator[None]]:
    """Yields an iterator that lets one client come at each step."""
    with ExitStack() as stack:

        def come() -> Iterator[None]:
            for _ in range(clients):
                connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
                connection.sendall(sent)
                yield

        yield come()


def timed(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began
