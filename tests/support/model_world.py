"""What test_model.py plays with: workers, calls that are under way, one clock, on real servers.

What can be done with it, and happens to it, stands in model_system.py.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from flask import Flask
from redis import RedisError
from sqlalchemy import text

from scheduler_app import database
from scheduler_app.broker.breaker import Breaker
from scheduler_app.errors import TaskNotFound, WrongState
from scheduler_app.extensions import Base, broker, db
from scheduler_app.extensions import settings as app_settings
from scheduler_app.services import limits
from scheduler_app.services.backlog import Backlog
from tests.support.model_clock import Clock
from tests.support.model_truth import Truth
from tests.support.model_worker import IDLE, SUCCEED, ModelWorker
from tests.support.servers import Valkey
from tests.support.stage import Actor, Killed, Stage

EXPECTED = (WrongState, TaskNotFound, Killed, RedisError)  # how a call may end that was not answered with success


@dataclass(eq=False)
class Call:
    actor: Actor
    task_ids: set[int]  # that it is about
    answered: Callable[[Any], None]  # gets what it returned; None if it was refused


class World:
    def __init__(self, app: Flask, valkey: Valkey, clock: Clock) -> None:
        self.app, self.valkey, self.clock = app, valkey, clock
        clock.start()
        valkey.client.flushall()
        with app.app_context():
            _empty()
            self.broker = broker._get_current_object()  # type: ignore[attr-defined]
            self.settings = app_settings._get_current_object()  # type: ignore[attr-defined]
            self.monitor = db.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self.broker._breaker = BreakerOfCall()
        app.extensions["backbeat.backlog"] = Backlog(app, most=self.settings.max_waiting, monotonic=clock.monotonic)
        with app.app_context():
            limits._copy()
        self.broker.ends.in_turn = self.broker.limits.in_turn = self.broker._breaker.call
        self.stage = Stage(self._blockers, self._is_busy)
        self.truth = Truth(self.monitor, clock.now)
        self.truth.retrying = lambda: self._about("retry")
        self.truth.deleting = lambda: self._about("delete")
        self.workers: list[ModelWorker] = []
        self.calls: list[Call] = []
        self.accepted: set[int] = set()

    def living(self) -> list[ModelWorker]:
        return [worker for worker in self.workers if not worker.killed and not worker.gone]

    def threads(self) -> list[Actor]:
        """Threads of workers that can go on."""
        threads = [thread for worker in self.workers for thread in worker.threads]
        return [actor for actor in self.stage.stopped() if actor in threads]

    def stopped_calls(self) -> list[Actor]:
        calls = [call.actor for call in self.calls]
        return [actor for actor in self.stage.stopped() if actor in calls]

    def go_on(self, actor: Actor, points: int | None, *, outcome: str = SUCCEED, fault: str = "") -> None:
        """The fault happens to the first command that it sends."""
        actor.outcome, actor.fault = outcome, fault
        if fault:
            self.stage.go_on(actor, 1)
            actor.fault = ""
        self.stage.go_on(actor, points)
        self._check()

    def kill(self, worker: ModelWorker) -> None:
        worker.killed = True
        for actor in self.stage.actors.copy():
            if actor.process is worker:
                self.stage.kill(actor)
        self._check()

    def kill_call(self, actor: Actor) -> None:
        """The process dies that it is made in."""
        self.stage.kill(actor)
        self._check()

    def pass_time(self, seconds: float) -> None:
        self.clock.seconds += seconds
        # Redis has its own clock: there, what was is made older instead.
        key = f"{self.broker.namespace}:__heartbeats__"
        for worker_id, beaten_at in self.valkey.client.zrange(key, 0, -1, withscores=True):
            self.valkey.client.zadd(key, {worker_id: beaten_at - 1000 * seconds})

    def run_all(self) -> None:
        """Until nothing moves any more: every call has ended, and the workers find nothing to do."""
        while self.stage.stopped() and not self._is_quiet():
            for actor in self.stopped_calls() or self.threads():
                self.go_on(actor, None)

    def close(self) -> None:
        self.stage.close()
        self.monitor.close()

    def _call(
        self,
        name: str,
        service: Callable[..., Any],
        points: int | None,
        *,
        task_ids: Iterable[int] = (),
        answered: Callable[[Any], None] = lambda result: None,
        worker: ModelWorker | None = None,
    ) -> None:
        def body() -> Any:
            with database.deadline(math.inf), self.app.app_context():
                return service(self.clock.now())

        call = Call(Actor(name, body, process=worker), {*task_ids}, answered)
        self.calls.append(call)
        call.actor.free = points is None
        self.stage.enter(call.actor)
        self.go_on(call.actor, points and points - 1)

    def _is_under_way(self, name: str) -> bool:
        return any(call.actor.name == name for call in self.calls)

    def _about(self, name: str) -> set[int]:
        return {task_id for call in self.calls if call.actor.name == name for task_id in call.task_ids}

    def _check(self) -> None:
        """What is seen after a step."""
        self.truth.look()
        for call in [call for call in self.calls if call.actor.ended]:
            self.calls.remove(call)
            error = call.actor.error
            if error and not isinstance(error, EXPECTED):
                raise error
            if not isinstance(error, Killed):
                call.answered(call.actor.result)
        assert not self.truth.wrong, self.truth.wrong

    def _is_quiet(self) -> bool:
        idle = all(actor.point == IDLE for actor in self.stage.stopped())
        at_hand = any(worker.has_work() for worker in self.living())
        return idle and not at_hand and not self.calls and not any(self.broker.waiting())

    def _blockers(self, backend: int) -> Sequence[int]:
        return self.monitor.scalars(text("SELECT unnest(pg_blocking_pids(:pid))"), {"pid": backend}).all()

    def _is_busy(self, backend: int) -> bool:
        query = text("SELECT state <> 'idle' FROM pg_stat_activity WHERE pid = :pid")
        return bool(self.monitor.execute(query, {"pid": backend}).scalar())


class BreakerOfCall:
    """Each call is made in a process of its own: none is spared because another one stands still."""

    def call(self) -> AbstractContextManager[None]:
        return Breaker().call()


def _empty() -> None:
    """As new: rows must stand in the table in the same order each time that an example is run."""
    tables = Base.metadata.sorted_tables
    if db.engine.dialect.name == "postgresql":
        names = ", ".join(table.name for table in tables)
        db.session.execute(text(f"TRUNCATE {names} RESTART IDENTITY"))
    else:
        for table in reversed(tables):
            db.session.execute(table.delete())
        db.session.execute(text("DELETE FROM sqlite_sequence"))
    db.session.commit()
