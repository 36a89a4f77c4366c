"""A hundred dashboards ask for themselves every five seconds: what a post takes beside them, and without them.

Their answers change all the while, since tasks are posted and run.
"""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection

from benchmarks.client import Client
from benchmarks.harness import Options, Servers
from benchmarks.post import answered
from benchmarks.table import Row, milliseconds, percentile
from tests.support.system import System

WATCHERS = 100
EVERY = 5.0  # seconds between two looks of one of them
PAGES = ("/dashboard/", "/dashboard/tasks")  # that they look at
GOAL = 1.3  # times the p50 without them
GAP = 0.02  # seconds between two posts


def run(servers: Servers, options: Options) -> Iterable[Row]:
    without: list[float] = []
    beside: list[float] = []
    looks: list[tuple[float, int]] = []
    with servers.fresh() as environ, System(environ, web=2) as system:
        client = Client(system.port)
        posted(client, 2)
        for _ in range(options.size(5, 2)):
            without += posted(client, options.size(10, 4))
            with watching(system.port, looks):
                beside += posted(client, options.size(10, 4))
    p50 = [percentile(times, 50) for times in (beside, without)]
    ratio = p50[0] / p50[1]
    shown = milliseconds(p50[0]), "without them", milliseconds(p50[1]), f"{ratio:.2f}", f"≤ {GOAL:g} x", ratio <= GOAL
    yield Row(f"post one beside {WATCHERS} dashboards, p50", *shown)
    seconds = [took for took, _ in looks]
    same = sum(status == 304 for _, status in looks)
    says = f"p95 {milliseconds(percentile(seconds, 95))}, {len(looks)} looks, {same} of them 304"
    yield Row("a look of a dashboard, p50", milliseconds(percentile(seconds, 50)), says)


def posted(client: Client, seconds: float) -> list[float]:
    """Seconds until the answer, of posts one after the other for so many seconds."""
    end, times = time.monotonic() + seconds, []
    while time.monotonic() < end:
        times.append(answered(client))
        time.sleep(GAP)
    return times


@contextmanager
def watching(port: int, looks: list[tuple[float, int]]) -> Iterator[None]:
    """Adds to `looks` how long each took, and its status."""
    over = threading.Event()
    watchers = [threading.Thread(target=watch, args=(port, number, over, looks)) for number in range(WATCHERS)]
    for watcher in watchers:
        watcher.start()
    try:
        yield
    finally:
        over.set()
        for watcher in watchers:
            watcher.join()


def watch(port: int, number: int, over: threading.Event, looks: list[tuple[float, int]]) -> None:
    connection, tag = HTTPConnection("127.0.0.1", port, timeout=60), ""
    over.wait(EVERY * number / WATCHERS)  # they do not all look at once
    while not over.is_set():
        began = time.monotonic()
        connection.request("GET", PAGES[number % len(PAGES)], headers={"Backbeat-Live": "1", "If-None-Match": tag})
        answer = connection.getresponse()
        answer.read()
        looks.append((time.monotonic() - began, answer.status))
        if answer.status not in (200, 304):
            raise RuntimeError(f"a look was answered {answer.status}")
        tag = answer.headers.get("ETag", "")
        over.wait(EVERY)
    connection.close()
