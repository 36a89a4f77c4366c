"""The actors for the workers of test_fair_queue.py. Each writes what it does to a file, which outlives Redis."""

import os
import time
from pathlib import Path

import dramatiq

from scheduler_app.broker import ANY_OPERATION, FairScheduling, GiveBack, WorkerBroker

folder = Path(os.environ["FOLDER"])
weights = [float(weight) for weight in os.environ["WEIGHTS"].split(",")]
broker = WorkerBroker(os.environ["REDIS_URL"], weights=weights, heartbeat_timeout=3000)
broker.add_middleware(FairScheduling())
dramatiq.set_broker(broker)


def write(what: str, task_id: int) -> None:
    with (folder / "log").open("a") as log:
        log.write(f"{what} {task_id} {os.getppid()}\n")


def record(task_id: int, claims: int) -> None:
    write("done", task_id)


def hold(task_id: int, claims: int) -> None:
    """Runs until the test says that it may end."""
    write("started", task_id)
    while not (folder / "release").exists():
        time.sleep(0.01)
    write("done", task_id)


def give_back_once(task_id: int, claims: int) -> None:
    given_back = folder / "given_back"
    if not given_back.exists():
        given_back.touch()
        raise GiveBack
    write("done", task_id)


def unknown(task_id: int, claims: int) -> None:
    write("unknown", task_id)


for name, actor in {"record": record, "hold": hold, "give_back_once": give_back_once, ANY_OPERATION: unknown}.items():
    dramatiq.actor(actor, actor_name=name, queue_name="tasks.p5")
