"""Celery at its best: late acknowledgement, no results of its own, the two statuses written with bare psycopg."""

import os
import threading
from typing import Any

import psycopg
from celery import Celery
from celery.signals import worker_ready

from benchmarks.peers import clock

READY = "celery is ready"

app = Celery("benchmark", broker=os.environ["REDIS_URL"].replace("unix://", "redis+socket://"))
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=16,
    worker_enable_remote_control=False,
    worker_redirect_stdouts=False,
)
local = threading.local()

STARTED = "UPDATE task SET status = 'STARTED', started_at = now() WHERE task_id = %s AND status = 'PENDING'"
SUCCESS = (
    "UPDATE task SET status = 'SUCCESS', result = %s, finished_at = now() WHERE task_id = %s AND status = 'STARTED'"
)
TABLE = """
    CREATE TABLE task (task_id bigint PRIMARY KEY, status text NOT NULL, result integer,
                       started_at timestamptz, finished_at timestamptz)
"""
ROWS = "INSERT INTO task SELECT n, 'PENDING' FROM generate_series(1, %s) AS n"


@app.task(name="add")
@clock.of_this_process().timed
def add(task_id: int, a: int, b: int) -> None:
    connection = database()
    connection.execute(STARTED, (task_id,), prepare=True)
    connection.execute(SUCCESS, (a + b, task_id), prepare=True)


def database() -> "psycopg.Connection[Any]":
    """The connection of this thread."""
    if not hasattr(local, "connection"):
        local.connection = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)
    connection: psycopg.Connection[Any] = local.connection
    return connection


@worker_ready.connect
def say_ready(**_: Any) -> None:
    print(READY)


def publish(count: int) -> None:
    database().execute(TABLE)
    database().execute(ROWS, (count,))
    with app.producer_pool.acquire() as producer:
        for task_id in range(1, count + 1):
            add.apply_async((task_id, 4, 7), producer=producer)
