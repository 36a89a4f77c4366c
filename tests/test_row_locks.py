"""Transactions that change the same rows at the same moment wait for each other, and never end in a deadlock."""

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psycopg
import pytest
from flask import Flask
from sqlalchemy import func, select, text

from scheduler_app.broker import Message
from scheduler_app.extensions import db
from scheduler_app.models import Status, Task
from scheduler_app.operations import PermanentError
from scheduler_app.services import attempts, bulk, dispatch, occurrences, task_schedules, tasks, workers
from scheduler_app.services.bulk import Chosen
from scheduler_app.services.firing import fire_due
from scheduler_app.worker.status_writer import StatusWriter
from tests.support.claims import claim, message, success
from tests.support.row_locks import wait_until_blocked
from tests.support.schedules import DAY, HOUR, NOON, create

SECONDS = 3.0  # of pressure
TASKS = 200
MANY = 1_000
SCHEDULES = 20
WORKER = "a worker"
CHANGE = "UPDATE task SET attempts = attempts WHERE task_id = %s"

Step = Callable[[], Any]

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


@pytest.fixture
def environ(environ: dict[str, str]) -> dict[str, str]:
    """PostgreSQL looks for a deadlock after 20 ms of waiting, not a second, so that a few seconds show many."""
    return environ | {"DATABASE_URL": f"{environ['DATABASE_URL']}&options=-c%20deadlock_timeout%3D20ms"}


def press(app: Flask, *steps: Step) -> None:
    """Does each step again and again in a thread of its own; raises the first error."""
    until = time.monotonic() + SECONDS

    def repeat(step: Step) -> None:
        with app.app_context():
            while time.monotonic() < until:
                step()
                db.session.rollback()

    with ThreadPoolExecutor(len(steps)) as pool:
        for repeated in [pool.submit(repeat, step) for step in steps]:
            repeated.result()


def post(count: int = TASKS) -> None:
    """Keeps `count` tasks waiting. The oldest are the least urgent, so that relay and workers differ in their order."""
    waiting = db.session.scalar(select(func.count()).where(Task.status == Status.PENDING)) or 0
    requests = [
        {"operation": "calculate", "params": {}, "max_retries": 0, "priority": 9 - place * 10 // count}
        for place in range(waiting, count)
    ]
    tasks.create(requests, now=NOON)
    db.session.commit()


def mark() -> None:
    """What a relay does once it has sent them."""
    waiting = select(Task.task_id, Task.claims).where(Task.status == Status.PENDING).order_by(func.random())
    rows = db.session.execute(waiting.limit(TASKS)).all()
    db.session.rollback()
    if rows:
        dispatch._mark(rows, enqueued_at=NOON)
        db.session.commit()


def cancel_many() -> None:
    bulk.cancel(Chosen({}, limit=TASKS), now=NOON)


def retry_many() -> None:
    bulk.retry(Chosen({}, limit=TASKS), now=NOON + HOUR)


def work() -> None:
    """Claims several at once, with the successes of those before, in any order."""
    with closing(StatusWriter(WORKER)) as writer:
        running: list[attempts.Attempt] = []
        for _ in range(5):
            ended = [success(attempt, now=NOON) for attempt in running]
            running = [*writer.settle(ended, some_waiting(4), now=NOON).claimed.values()]


def some_waiting(count: int, *conditions: Any) -> list[Message]:
    query = select(Task.task_id, Task.claims).where(Task.status == Status.PENDING, *conditions)
    rows = [message(task_id, claims) for task_id, claims in db.session.execute(query)]
    db.session.rollback()
    return random.sample(rows, min(count, len(rows)))


class Hours:
    """Schedules that cancel what has not finished and are paused by what fails, at hours that fly by."""

    def __init__(self) -> None:
        self.now = NOON
        fields: dict[str, Any] = {"overlap": "cancel_previous", "pause_on_failure": True, "max_retries": 0}
        self.schedules = [create(every_x_hours=1, **fields) for _ in range(SCHEDULES)]

    def fire(self) -> None:
        self.now += HOUR
        fire_due(now=self.now)

    def fail(self) -> None:
        for one in some_waiting(1):
            if attempt := self._claim(one):
                attempts.fail(attempt, PermanentError("broken"), now=NOON)

    def lose(self) -> None:
        """A worker that ends leaves what it has begun."""
        for one in some_waiting(5):
            self._claim(one)
        workers.leave(WORKER, now=NOON)

    def resume(self) -> None:
        task_schedules.resume(random.choice(self.schedules), now=self.now)

    def _claim(self, one: Message) -> attempts.Attempt | None:
        return claim(one.task_id, one.claims, worker_id=WORKER, in_company=random.random() < 0.5, now=NOON)


def test_bulk_cancels_and_the_relay(app: Flask) -> None:
    with app.app_context():
        post(MANY)
        db.session.execute(text("ANALYZE task"))
        db.session.commit()
    press(app, mark, mark, cancel_many, retry_many)


def test_bulk_cancels_and_workers(app: Flask) -> None:
    press(app, post, cancel_many, work, work, work)


def test_firing_and_tasks_that_fail(app: Flask) -> None:
    with app.app_context():
        hours = Hours()
    press(app, hours.fire, hours.fail, hours.fail, hours.resume)


def test_firing_and_workers_that_leave(app: Flask) -> None:
    with app.app_context():
        hours = Hours()
    press(app, hours.fire, hours.lose, hours.lose, hours.resume)


def test_a_schedule_that_is_deleted_locks_its_tasks_in_the_order_of_their_ids(app: Flask, database_url: str) -> None:
    with app.app_context():
        schedule = create(cron="0 * * * *")
        for day in (1, 2, 3):  # its older times have the newer tasks
            occurrences.backfill(schedule, start=NOON - DAY * day, end=NOON - DAY * (day - 1), now=NOON)
        task_ids = db.session.scalars(select(Task.task_id).order_by(Task.task_id)).all()
        # They stand in the table as in such an index.
        db.session.execute(text("CREATE INDEX by_time ON task (task_schedule_id, scheduled_for)"))
        db.session.execute(text("CLUSTER task USING by_time"))
        db.session.execute(text("DROP INDEX by_time"))
        db.session.commit()
    middle = task_ids[len(task_ids) // 2]

    def remove() -> None:
        with app.app_context():
            task_schedules.remove(schedule, now=NOON)

    with ThreadPoolExecutor() as pool:
        with psycopg.connect(database_url) as other:
            other.execute(CHANGE, (middle,))
            removing = pool.submit(remove)
            wait_until_blocked(database_url)
            assert unlocked(database_url) == [task_id for task_id in task_ids if task_id > middle]
        removing.result(30)


def unlocked(url: str) -> list[int]:
    with psycopg.connect(url) as look:
        query = "SELECT task_id FROM task ORDER BY task_id FOR UPDATE SKIP LOCKED"
        return [task_id for (task_id,) in look.execute(query)]


def test_the_victim_of_a_deadlock_is_tried_again(app: Flask, database_url: str) -> None:
    """A request and another transaction each hold a row that the other one needs."""
    with app.app_context():
        post(3)
        first, second, third = db.session.scalars(select(Task.task_id).order_by(Task.task_id)).all()

    def cancel() -> int:
        return app.test_client().post("/tasks/cancel/", json={"all": True}).status_code

    patient = psycopg.connect(database_url, options="-c deadlock_timeout=30s")  # so that the request is the victim
    with ThreadPoolExecutor() as pool, patient as other:
        with psycopg.connect(database_url) as holder:  # commits at the end
            holder.execute(CHANGE, (second,))
            other.execute(CHANGE, (third,))
            cancelling = pool.submit(cancel)
            wait_until_blocked(database_url)
            waiting = pool.submit(other.execute, CHANGE, (first,))
            wait_until_blocked(database_url, transactions=2)
        waiting.result(30)
        other.commit()
        assert cancelling.result(30) == 202
    with app.app_context():
        assert set(db.session.scalars(select(Task.status))) == {"CANCELLED"}
