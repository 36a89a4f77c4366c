"""`python -m scheduler_app.testing.processes` runs everything until its standard input ends; see everything.py.

It says on which port it serves. The processes are forks of this one, because importing all that they need takes most of
the time of a start.
"""

import importlib
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from urllib.parse import quote

import apscheduler.schedulers.blocking  # noqa: F401 (for the forks)
import dramatiq
from flask_migrate import upgrade

from scheduler_app import server, standalone
from scheduler_app.config import Settings
from scheduler_app.extensions import db
from scheduler_app.supervisor.child import GUARD
from scheduler_app.web import create_web_app

ROOT = Path(__file__).parents[2]
GRACE = 5.0  # seconds that a process has to stop


def main() -> None:
    settings = Settings.load()
    with standalone.socket_folder(settings.data_dir) as folder:
        run(settings, folder / "valkey.sock")


def run(settings: Settings, valkey: Path) -> None:
    lifeline, held = os.pipe()
    start_valkey(settings, valkey, lifeline)
    app = create_web_app(settings)
    with app.app_context():
        upgrade(str(ROOT / "migrations"))
        for engine in db.engines.values():
            engine.dispose()
    listening = server.listen(settings.host, 0)
    web = [str(ROOT / "wsgi.py"), str(listening.fileno())]
    children = [
        fork(lambda: run_file(*web), lifeline, held),
        fork(lambda: run_file(str(ROOT / "scheduler.py")), lifeline, held),
        fork(lambda: run_worker(settings.worker_threads), lifeline, held),
    ]
    print(listening.getsockname()[1], flush=True)
    sys.stdin.read()
    stop(children)


def start_valkey(settings: Settings, socket: Path, lifeline: int) -> None:
    """It ends with the lifeline."""
    os.environ["REDIS_URL"] = f"unix://{quote(str(socket))}"
    guard = (sys.executable, "-I", "-S", str(GUARD), str(lifeline), str(GRACE))
    command = (*guard, *standalone.valkey(settings, socket).command)
    subprocess.Popen(
        command,
        cwd=settings.data_dir,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        pass_fds=(lifeline,),
        start_new_session=True,
    )


def fork(run: Callable[[], None], lifeline: int, held: int) -> int:
    """A process that runs this, and ends when this process has ended."""
    if child := os.fork():
        return child
    code = 1
    try:
        os.close(held)
        threading.Thread(target=end_with, args=(lifeline,), daemon=True).start()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        run()
        code = 0
    except Exception:
        traceback.print_exc()
    os._exit(code)


def end_with(lifeline: int) -> None:
    os.read(lifeline, 1)  # nothing is ever written: this returns at the end of the pipe
    os._exit(1)


def run_file(path: str, *arguments: str) -> None:
    sys.argv = [path, *arguments]
    with suppress(SystemExit):
        runpy.run_path(path, run_name="__main__")


def run_worker(threads: int) -> None:
    """As dramatiq's command does, in this process."""
    over = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        over.set()

    signal.signal(signal.SIGTERM, stop)
    importlib.import_module("actors.worker")
    worker = dramatiq.Worker(dramatiq.get_broker(), worker_threads=threads)
    worker.start()
    over.wait()
    worker.stop(timeout=int(GRACE * 1000))


def stop(children: list[int]) -> None:
    for child in children:
        os.kill(child, signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    while children and time.monotonic() < deadline:
        children = [child for child in children if os.waitpid(child, os.WNOHANG) == (0, 0)]
        time.sleep(0.02)
    for child in children:
        os.kill(child, signal.SIGKILL)


if __name__ == "__main__":
    main()
