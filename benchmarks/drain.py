"""Waiting `4+7` tasks done by two worker processes, beside the same on other task queues."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import ours
from benchmarks.harness import (
    PATIENCE,
    PEERS_PYTHON,
    Environ,
    Options,
    Processes,
    Servers,
    application,
    call_peer,
    paused,
    progress,
)
from benchmarks.peers import clock
from benchmarks.table import Row, compared
from tests.support.processes import eventually
from tests.support.system import WORKER_READY

PROCESSES, THREADS = 2, "8"


@dataclass(frozen=True)
class Peer:
    """A task queue to compare with. Its module has publish(count)."""

    name: str
    goal: float | None  # our rate, in its own
    tasks: int  # fewer than ours where it is slow
    module: str
    worker: tuple[str, ...]  # what Python is given to run one worker process
    ready: str
    prepare: bool  # its module has prepare(), to be called before the workers start


def peer(
    name: str, goal: float | None, tasks: int, module: str, *worker: str, ready: str, prepare: bool = False
) -> Peer:
    path = f"benchmarks.peers.{module}"
    return Peer(name, goal, tasks, path, tuple(part.format(module=path) for part in worker), ready, prepare)


DRAMATIQ = ("-m", "dramatiq", "{module}", "--processes", "1", "--threads", THREADS)
CELERY = ("-m", "celery", "--app", "{module}", "worker", "--pool", "threads", "--concurrency", THREADS)
QUIET = ("--loglevel", "ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat")
WORK = ("-c", "from {module} import work; work()")
RQ = ("-c", "from {module} import work; work(fork=True)")
RQ_SIMPLE = ("-c", "from {module} import work; work(fork=False)")

PEERS = (
    peer("stock Dramatiq, records nothing", 0.55, 20_000, "dramatiq_tasks", *DRAMATIQ, ready=WORKER_READY),
    peer("Celery with bare psycopg", 2.5, 5_000, "celery_tasks", *CELERY, *QUIET, ready="celery is ready"),
    peer("Procrastinate", 5, 2_000, "procrastinate_tasks", *WORK, ready="procrastinate is ready", prepare=True),
    peer("RQ", 9, 1_000, "rq_tasks", *RQ, ready="rq is ready"),
    peer("RQ with SimpleWorker", None, 2_000, "rq_tasks", *RQ_SIMPLE, ready="rq is ready"),
)


def run(servers: Servers, options: Options) -> Iterable[Row]:
    count = options.size(20_000, 5_000)
    rates: dict[str, list[float]] = {name: [] for name in ("ours", *(peer.name for peer in PEERS))}
    for _ in range(options.size(3, 1)):
        rates["ours"].append(drain_ours(servers, count))
        for peer in PEERS:
            rates[peer.name].append(drain_peer(servers, peer, options.size(peer.tasks, peer.tasks // 4)))
        progress(", ".join(f"{name} {some[-1]:,.0f}/s" for name, some in rates.items()))
    for peer in PEERS:
        name = f"{peer.name} ({options.size(peer.tasks, peer.tasks // 4):,} tasks)"
        yield compared(f"drain {count:,}", rates["ours"], name, rates[peer.name], goal=peer.goal)


def drain_ours(servers: Servers, count: int) -> float:
    with servers.fresh() as environ:
        with application(environ):
            ours.insert_tasks(count)
        return ours.drain(environ, count)


def drain_peer(servers: Servers, peer: Peer, count: int) -> float:
    """Tasks a second, from the first start to the last end."""
    with servers.fresh(template="template0") as environ, TemporaryDirectory() as folder, Processes() as processes:
        environ |= {"CLOCKS": folder}
        if peer.prepare:
            call_peer(peer.module, "prepare()", environ)
        processes.start(peer.worker, environ, peer.ready, number=PROCESSES, python=PEERS_PYTHON)
        return _measure(peer, processes, environ, count)


def _measure(peer: Peer, processes: Processes, environ: Environ, count: int) -> float:
    clocks = Path(environ["CLOCKS"])
    with paused(processes):
        call_peer(peer.module, f"publish({count})", environ)
    try:
        eventually(lambda: clock.done(clocks) == count, within=PATIENCE)
    except AssertionError:
        raise RuntimeError(f"{peer.name}: {clock.done(clocks)} of {count} done\n{processes[0].output}") from None
    return count / clock.seconds(clocks)
