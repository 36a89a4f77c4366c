"""A model of the whole: the task table, Redis, workers and a scheduler, in interleavings that Hypothesis chooses.

The real services, broker and worker run on real servers, in threads that stop before each statement and each command
to Redis (support/points.py) and go on when Hypothesis says so. Time passes when it says so, too. What must hold after
each step stands in support/model_truth.py. In the end, every task has one final status.

In the suite some examples are tried, always the same. MODEL_EXAMPLES=2000 tries so many others on each database.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

import pytest
from flask import Flask
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from scheduler_app.extensions import db
from scheduler_app.models import WAITING, Status, Task
from scheduler_app.services import control
from scheduler_app.services.row_locks import update_tasks
from tests.support import points as stops
from tests.support.model_clock import Clock, keep_processes_apart
from tests.support.model_system import System
from tests.support.model_worker import FAIL, FAIL_FOR_GOOD, LIMITED, SUCCEED, ModelWorker
from tests.support.servers import Valkey
from tests.support.stage import Actor

EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "0"))
IN_SUITE = 15  # examples on each database
RACES_IN_SUITE = 30
STEPS = 40  # in one example, at most

# Over how many points a thread goes before it stops again.
points = st.sampled_from([1, 2, 3, 4, 5, None])
outcomes = st.sampled_from([SUCCEED, FAIL, FAIL_FOR_GOOD])
faults = st.sampled_from(["", "", "", stops.REFUSED, stops.LOST])


def any_of(choices: Callable[[System], Iterable[Any]]) -> Any:
    """One of what the system has at the time."""
    return st.runner().flatmap(lambda model: st.sampled_from([*choices(model.system)]))


def if_any(choices: Callable[[System], Any]) -> Any:
    return precondition(lambda model: bool(choices(model.system)))


class Machine(RuleBasedStateMachine):
    def __init__(self, app: Flask, valkey: Valkey, clock: Clock) -> None:
        super().__init__()
        self.system = System(app, valkey, clock)

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:  # no step has failed
                self.system.finish()
        finally:
            self.system.close()


class Model(Machine):
    """Its rules are what people, programs, time and bad luck do to a system."""

    @if_any(System.may_call)
    @rule(
        points=points,
        max_retries=st.integers(0, 2),
        delay=st.sampled_from([0, 5]),
        expires_in=st.sampled_from([None, None, 10]),
        operation=st.sampled_from(["model.run", LIMITED]),
        group=st.sampled_from([None, "a"]),
    )
    def post(
        self,
        points: int | None,
        max_retries: int,
        delay: int,
        expires_in: int | None,
        operation: str,
        group: str | None,
    ) -> None:
        kind = {"operation": operation, "group": group}
        self.system.post(points, max_retries=max_retries, delay=delay, expires_in=expires_in, **kind)

    @if_any(System.cancellable)
    @rule(points=points, task_id=any_of(System.cancellable))
    def cancel(self, points: int | None, task_id: int) -> None:
        self.system.cancel(points, task_id)

    @if_any(System.may_call)
    @rule(points=points)
    def cancel_all(self, points: int | None) -> None:
        self.system.cancel_all(points)

    @if_any(System.retriable)
    @rule(points=points, task_id=any_of(System.retriable))
    def retry(self, points: int | None, task_id: int) -> None:
        self.system.retry(points, task_id)

    @if_any(System.deletable)
    @rule(points=points, task_id=any_of(System.deletable))
    def delete(self, points: int | None, task_id: int) -> None:
        self.system.delete(points, task_id)

    @if_any(System.may_call)
    @rule(points=points)
    def relay(self, points: int | None) -> None:
        self.system.relay(points)

    @if_any(System.may_call)
    @rule(points=points, duty=any_of(System.duties))
    def duty(self, points: int | None, duty: str) -> None:
        self.system.duties()[duty](points)

    @if_any(System.threads)
    @rule(thread=any_of(System.threads), points=points, outcome=outcomes, fault=faults)
    def work(self, thread: Actor, points: int | None, outcome: str, fault: str) -> None:
        self.system.go_on(thread, points, outcome=outcome, fault=fault)

    @if_any(System.threads)
    @rule(thread=any_of(System.threads))
    def work_on(self, thread: Actor) -> None:
        self.system.go_on(thread, 1)

    @if_any(System.stopped_calls)
    @rule(call=any_of(System.stopped_calls), points=points, fault=faults)
    def go_on(self, call: Actor, points: int | None, fault: str) -> None:
        self.system.go_on(call, points, fault=fault)

    @rule(seconds=st.sampled_from([1, 7, 16]), silent=any_of(System.silent))
    def wait(self, seconds: float, silent: list[ModelWorker]) -> None:
        self.system.wait(seconds, silent=silent)

    @rule(what=any_of(System.misfortunes))
    def misfortune(self, what: str) -> None:
        self.system.misfortunes()[what]()

    @if_any(System.may_boot)
    @rule()
    def boot(self) -> None:
        self.system.boot()


class Races(Machine):
    """Calls and workers meet at few tasks, step by step, and nothing else happens."""

    # One rule: Hypothesis leaves out some of many in each example, but a race needs a post, a call and a worker.
    @rule(step=any_of(System.steps), points=st.sampled_from([1, 2, 3, 4, None, None]), outcome=outcomes)
    def step(self, step: str, points: int | None, outcome: str) -> None:
        self.system.steps(outcome)[step](points)


@pytest.fixture
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | {"BACKBEAT_OPERATIONS": "actors,tests.support.model_worker"}


@pytest.fixture
def clock(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    """The points are there, and time stands still."""
    clock = Clock()
    clock.install(app, monkeypatch)
    keep_processes_apart(monkeypatch)
    stops.on_redis(monkeypatch)
    with app.app_context():
        for engine in db.engines.values():
            stops.on_engine(engine)
    logging.disable()  # of all that goes wrong here on purpose
    yield clock
    logging.disable(logging.NOTSET)


def test_every_accepted_task_ends_once_whatever_comes_between(app: Flask, valkey: Valkey, clock: Clock) -> None:
    run(lambda: Model(app, valkey, clock), IN_SUITE)


def test_a_call_is_told_the_truth_about_tasks_that_workers_change_meanwhile(
    app: Flask, valkey: Valkey, clock: Clock
) -> None:
    run(lambda: Races(app, valkey, clock), RACES_IN_SUITE)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # on SQLite nobody comes between two writes
def test_the_model_finds_a_cancellation_in_two_statements(
    app: Flask, valkey: Valkey, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "cancel_all", cancel_all_in_two_statements)
    with pytest.raises(AssertionError, match="a cancellation missed task"):
        run(lambda: Races(app, valkey, clock), RACES_IN_SUITE, phases=[Phase.generate])


def cancel_all_in_two_statements(task_ids: Sequence[int], *, now: datetime) -> set[int]:
    """As it once was: a task that a worker begins between the two is missed."""
    asked = update_tasks(Task.task_id.in_(task_ids), Task.status == Status.STARTED).values(cancel_requested=True)
    running = db.session.scalars(asked.returning(Task.task_id)).all()
    waiting = update_tasks(Task.task_id.in_(task_ids), Task.status.in_(WAITING))
    ended = waiting.values(status=Status.CANCELLED, finished_at=now).returning(Task.task_id)
    return {*running, *db.session.scalars(ended)}


def run(machine: Callable[[], Machine], examples: int, **more: Any) -> None:
    how = settings(
        max_examples=EXAMPLES or examples,
        derandomize=not EXAMPLES,
        stateful_step_count=STEPS,
        database=None,
        suppress_health_check=list(HealthCheck),
        **more,
    )
    run_state_machine_as_test(machine, settings=how)
