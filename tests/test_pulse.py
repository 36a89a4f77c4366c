"""What a worker does besides running tasks."""

import threading
from datetime import UTC, datetime

import pytest
from flask import Flask
from sqlalchemy import select

from scheduler_app.extensions import db
from scheduler_app.models import Task
from scheduler_app.services import attempts, tasks
from scheduler_app.services.attempts import Attempt
from scheduler_app.worker.pulse import Loop
from scheduler_app.worker.running import RunningTask
from tests.support.claims import claim

NOW = datetime(2040, 6, 1, 12, tzinfo=UTC)


def test_a_loop_outlives_whatever_its_step_raises(app: Flask) -> None:
    errors = iter((RuntimeError(), KeyError(), OSError()))
    stopping, reached = threading.Event(), threading.Event()

    def act() -> None:
        for error in errors:
            raise error
        reached.set()

    loop = Loop(app, stopping, "trial", act, 0.01)
    loop.start()
    assert reached.wait(10)
    stopping.set()
    loop.join()


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_progress_does_not_wait_for_a_row_that_somebody_holds() -> None:
    request = {"operation": "calculate", "params": {"expression": "1+1"}, "priority": 5, "max_retries": 0}
    [row] = tasks.create([request], now=NOW)
    db.session.commit()
    attempt = claim(row.task_id, 0, worker_id="here", now=NOW)
    assert attempt
    with db.engine.connect() as other:
        other.execute(select(Task.task_id).with_for_update())
        assert not attempts.save_progress(attempt, {"percent": 1, "message": ""})
        db.session.rollback()
    assert attempts.save_progress(attempt, {"percent": 2, "message": ""})


def test_progress_that_could_not_be_saved_gives_way_to_newer() -> None:
    task = RunningTask(Attempt(1, 1, 1, 0, "calculate", {}), 0)
    task.progress(1)
    taken = task.take_progress()
    assert taken
    task.return_progress(taken)
    assert task.unsaved == taken
    task.take_progress()
    task.progress(2)
    task.return_progress(taken)
    assert task.unsaved == {"percent": 2, "message": ""}
