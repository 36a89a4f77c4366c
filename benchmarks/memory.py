"""The memory of web, worker and scheduler after many tasks, and of a waiting task in Valkey."""

from collections.abc import Iterable

from benchmarks import ours
from benchmarks.accept import BATCH, BODY
from benchmarks.client import Client
from benchmarks.harness import PATIENCE, Options, Servers, application, progress
from benchmarks.table import Row
from benchmarks.usage import rss
from scheduler_app.extensions import broker
from tests.support.processes import Process, eventually
from tests.support.system import System

MEGABYTE = 1024 * 1024
FLAT = 1.1  # times what it was after the first quarter
PER_TASK = 400  # bytes in Valkey
BACKLOG = 5_000  # tasks that wait at most: it is about what is done, not about what waits


def run(servers: Servers, options: Options) -> Iterable[Row]:
    yield waiting(servers, options)
    yield from processes(servers, options.size(options.tasks, options.tasks // 20))


def waiting(servers: Servers, options: Options) -> Row:
    count = options.size(100_000, 20_000)
    with servers.fresh() as environ, application(environ):
        ours.insert_tasks(count)
        before = servers.valkey.client.info("memory")["used_memory"]
        ours.publish_all()
        bytes_each = (servers.valkey.client.info("memory")["used_memory"] - before) / count
    goal = f"< {PER_TASK} bytes"
    return Row("a waiting task in Valkey", f"{bytes_each:.0f} bytes", goal=goal, met=bytes_each < PER_TASK)


def processes(servers: Servers, count: int) -> Iterable[Row]:
    with servers.fresh() as environ, System(environ, web=2, workers=2) as system:
        watched = {"web": [system.web], "workers": system.workers, "scheduler": system.schedulers}
        with application(environ):
            post(system.port, count // 4)
            early = {name: held(some) for name, some in watched.items()}
            progress(f"after {count // 4:,}: {early}")
            post(system.port, count - count // 4)
            late = {name: held(some) for name, some in watched.items()}
    for name in watched:
        yield row(name, count, early[name], late[name])


def row(name: str, count: int, early: float, late: float) -> Row:
    return Row(
        f"memory of {name} after {count:,} tasks",
        f"{late:.0f} MB",
        f"after {count // 4:,}",
        f"{early:.0f} MB",
        f"{late / early:.2f}",
        f"≤ {FLAT:g} x",
        late <= FLAT * early,
    )


def held(processes: Iterable[Process]) -> float:
    return sum(rss(process.popen) for process in processes) / MEGABYTE


def post(port: int, count: int) -> None:
    """So many tasks over HTTP, no faster than they are done; ends when all are."""
    client = Client(port)
    for _ in range(count // BATCH):
        client.post("/tasks/batch-request/", BODY)
        eventually(lambda: sum(broker.waiting()) < BACKLOG, within=PATIENCE)
    eventually(lambda: sum(broker.waiting()) == 0, within=PATIENCE)
