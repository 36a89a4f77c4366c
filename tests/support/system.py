"""A whole Backbeat of real processes, and the commands that start one of each kind."""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from scheduler_app import server
from tests.support.api import Api
from tests.support.processes import Process, free_port

WEB = ("wsgi.py",)
WEB_READY = server.READY
WORKER_READY = "Worker process is ready for action"
SCHEDULER_READY = "scheduler ready"
SCHEDULER = ("scheduler.py",)
RESTART_DELAY = 0.2  # seconds until what has ended is started again


def worker_command(*options: str, module: str = "actors.worker", threads: int = 8) -> tuple[str, ...]:
    return ("-m", "dramatiq", module, "--processes", "1", "--threads", str(threads), *options)


class System(Api):
    """So many processes of each kind, on the servers that the settings name; they end with the block.

    web is how many processes serve the one port, by the command serve. With a folder for the logs, each process has a
    named one.
    """

    web: Process  # if any serves

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        web: int = 1,
        workers: int = 1,
        schedulers: int = 1,
        serve: Sequence[str] = WEB,
        threads: int = 8,
        logs: Path | None = None,
    ) -> None:
        self.port = free_port()
        super().__init__(f"http://127.0.0.1:{self.port}", environ.get("BACKBEAT_API_KEY", ""))
        self.environ = environ
        self.threads = threads
        self.logs = logs
        self.processes: list[Process] = []
        self.workers: list[Process] = []
        self.schedulers: list[Process] = []
        self._closing = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, daemon=True)
        if web:
            size = {"PORT": str(self.port), "BACKBEAT_WEB_PROCESSES": str(web)}
            self.web = self._start("web", serve, WEB_READY, size)
        for _ in range(workers):
            self.add_worker()
        for _ in range(schedulers):
            self.add_scheduler()

    def add_worker(self, **environ: str) -> Process:
        """environ is what differs from the settings of the system."""
        name = f"worker-{len(self.workers)}"
        self.workers.append(self._start(name, worker_command(threads=self.threads), WORKER_READY, environ))
        return self.workers[-1]

    def add_scheduler(self, **environ: str) -> Process:
        name = f"scheduler-{len(self.schedulers)}"
        self.schedulers.append(self._start(name, SCHEDULER, SCHEDULER_READY, environ))
        return self.schedulers[-1]

    def wait_until_ready(self) -> None:
        for process in self.processes:
            process.wait_until_ready()

    def supervise(self) -> None:
        """From now on what ends is started again."""
        self._supervisor.start()

    def __enter__(self) -> Self:
        try:
            self.wait_until_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends all of it at once."""
        self._closing.set()
        if self._supervisor.is_alive():
            self._supervisor.join()
        for process in self.processes:
            process.kill()

    def _start(self, name: str, command: Sequence[str], ready: str, environ: Mapping[str, str] = {}) -> Process:
        log = self.logs / f"{name}.log" if self.logs else None
        self.processes.append(Process(command, {**self.environ, **environ}, ready, log=log))
        return self.processes[-1]

    def _supervise(self) -> None:
        while not self._closing.wait(RESTART_DELAY):
            for process in self.processes:
                if process.ended:
                    process.kill()  # what is left of its group
                    process.start()
