"""What can be done with the system of test_model.py, and what happens to it. Each call goes over so many points."""

from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import partial
from typing import Any

from scheduler_app.models import Overlap, Status
from scheduler_app.services import bulk, control, dispatch, expiry, firing, limits, task_schedules, tasks, workers
from scheduler_app.services.bulk import Chosen
from tests.support.model_worker import IDLE, SUCCEED, THREADS, ModelWorker
from tests.support.model_world import World
from tests.support.stage import Actor

CALLS = 6  # under way at once, at most
RACING = 3  # calls under way at once, and unfinished tasks, at most, where all of them meet
WORKERS = 3  # in one example, at most
LOOK = 2.9  # seconds between two looks of the scheduler while time passes
ROUNDS = 8  # of 16 seconds in which all that was accepted must end
WORK: dict[str, Any] = {"operation": "model.run", "params": {}, "priority": 5, "max_retries": 1}


class System(World):
    """Begins with one worker, and a schedule."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.reaper = workers.Reaper(self.clock.monotonic)
        with self.app.app_context():
            task_schedules.create(now=self.clock.now(), every_x_minutes=1, overlap=Overlap.CANCEL_PREVIOUS, **WORK)
        self.boot()

    def task_ids(self) -> list[int]:
        return list(self.truth.rows)

    def cancellable(self) -> list[int]:
        return self.task_ids() if self.may_call() else []

    def retriable(self) -> list[int]:
        return [task_id for task_id in self.cancellable() if self.truth.rows[task_id].final]

    def deletable(self) -> list[int]:
        return [task_id for task_id in self.cancellable() if self.truth.rows[task_id].status == Status.PENDING]

    def may_call(self) -> bool:
        return len(self.calls) < CALLS and not self.stage.waits

    def may_boot(self) -> bool:
        return len(self.workers) < WORKERS

    def silent(self) -> list[list[ModelWorker]]:
        """Who may be silent while time passes."""
        return [[], self.workers[:1], self.workers[1:]]

    def duties(self) -> dict[str, Callable[[int | None], None]]:
        """What scheduler and workers do by themselves, one of a kind at a time; each goes over so many points."""
        duties: dict[str, Callable[[int | None], None]] = {
            "resync": partial(self.resync, thorough=False),
            "thorough resync": partial(self.resync, thorough=True),
            "maintenance": self.maintain,
            "reap": self.reap,
            "expiry": self.expire,
            "limits": self.count_slots,
        }
        for worker in self.living():
            duties[f"{worker.name}'s heartbeat"] = partial(self.beat, worker)
            duties[f"{worker.name}'s disowning"] = partial(self.disown, worker)
            duties[f"{worker.name}'s attention"] = partial(self.attend, worker)
            duties[f"{worker.name}'s tidying"] = partial(self.tidy, worker)
            if not worker.stopping:
                duties[f"{worker.name}'s stop"] = partial(self.stop, worker)
        return {name: duty for name, duty in duties.items() if not self._is_under_way(name)}

    def misfortunes(self) -> dict[str, Callable[[], None]]:
        queue = f"{self.broker.namespace}:tasks.p5"
        misfortunes: dict[str, Callable[[], None]] = {
            "Redis loses everything": self.valkey.client.flushall,
            "Redis loses a queue": partial(self.valkey.client.delete, queue, f"{queue}.msgs"),
            "Redis loses a queue's list": partial(self.valkey.client.delete, queue),
        }
        misfortunes |= {f"{worker.name} is killed": partial(self.kill, worker) for worker in self.living()}
        for actor in self.stopped_calls():
            if not actor.process:
                misfortunes[f"{actor} is killed"] = partial(self.kill_call, actor)
        return misfortunes

    def steps(self, outcome: str = SUCCEED) -> dict[str, Callable[[int | None], None]]:
        """What comes next while calls and workers meet at few tasks and nothing else happens.

        Each goes over so many points.
        """
        busy = [thread for thread in self.threads() if thread.point != IDLE]
        idle = [thread for thread in self.threads() if thread.point == IDLE]  # they are all alike
        able = [*busy, *(idle[:1] if any(self.broker.waiting()) else [])]  # the others would find nothing
        moving = [*able, *self.stopped_calls()]
        steps = {repr(actor): partial(self.go_on, actor, outcome=outcome) for actor in moving}
        if len(self.calls) < RACING and not self.stage.waits:
            unfinished = [task_id for task_id, row in self.truth.rows.items() if not row.final]
            if len(unfinished) < RACING:
                steps |= {"post": lambda points: self.post(None, max_retries=1), "fire": self.fire}
            calls: dict[str, Callable[[int | None], None]] = {"cancel all": self.cancel_all}
            calls |= {f"cancel {task_id}": partial(self.cancel, task_id=task_id) for task_id in unfinished}
            calls |= {f"retry {task_id}": partial(self.retry, task_id=task_id) for task_id in self.retriable()[-1:]}
            steps |= calls
            for thread in able:
                between = partial(self.meet, thread=thread, outcome=outcome)
                steps |= {f"{name} around {thread}": partial(between, call) for name, call in calls.items()}
        return steps

    def meet(
        self, call: Callable[[int | None], None], points: int | None, *, thread: Actor, outcome: str = SUCCEED
    ) -> None:
        """The call goes over so many points, then the worker's thread as far as it can, then the call to its end."""
        others = self.stopped_calls()
        call(points)
        self.go_on(thread, None, outcome=outcome)
        for actor in self.stopped_calls():
            if actor not in others:
                self.go_on(actor, None)

    def post(
        self, points: int | None, *, max_retries: int = 0, delay: int = 0, expires_in: int | None = None, **other: Any
    ) -> None:
        run_at = self.clock.now() + timedelta(seconds=delay)
        request = WORK | {"max_retries": max_retries, "run_at": run_at, "expires_in": expires_in} | other
        self._call("post", lambda now: tasks.submit([request], now=now), points, answered=self._accept)

    def cancel(self, points: int | None, task_id: int) -> None:
        cancellation = self.truth.cancellation([task_id])
        self._call(
            "cancel",
            lambda now: control.cancel(task_id, now=now),
            points,
            task_ids=[task_id],
            answered=lambda task: self.truth.answered(cancellation, [task_id] if task else []),
        )

    def cancel_all(self, points: int | None) -> None:
        cancellation = self.truth.cancellation(self.truth.rows)
        self._call(
            "cancel all",
            lambda now: bulk.cancel(Chosen({}, limit=1000), now=now),
            points,
            task_ids=self.truth.rows,
            answered=lambda answer: self.truth.answered(cancellation, answer["task_ids"]),
        )

    def fire(self, points: int | None) -> None:
        """A minute later, the schedule's next task cancels its previous ones."""
        self.pass_time(60)
        previous = [task_id for task_id, row in self.truth.rows.items() if row.task_schedule_id]
        cancellation = self.truth.cancellation(previous)
        self._call(
            "fire",
            lambda now: firing.fire_due(now=now),
            points,
            task_ids=previous,
            answered=lambda fired: fired and self.truth.answered(cancellation, {*previous} - cancellation.ended),
        )

    def retry(self, points: int | None, task_id: int) -> None:
        self._call("retry", lambda now: control.retry(task_id, now=now), points, task_ids=[task_id])

    def delete(self, points: int | None, task_id: int) -> None:
        self._call("delete", lambda now: tasks.remove(task_id, now=now), points, task_ids=[task_id])

    def relay(self, points: int | None) -> None:
        self._call("relay", lambda now: dispatch.relay(now=now), points)

    def resync(self, points: int | None, *, thorough: bool) -> None:
        self._call(
            "thorough resync" if thorough else "resync", lambda now: dispatch.resync(now=now, thorough=thorough), points
        )

    def maintain(self, points: int | None) -> None:
        self._call("maintenance", lambda now: self.broker.maintain(), points)

    def reap(self, points: int | None) -> None:
        self._call("reap", lambda now: self.reaper.reap(now=now), points)

    def expire(self, points: int | None) -> None:
        self._call("expiry", lambda now: expiry.expire(now=now), points)

    def count_slots(self, points: int | None) -> None:
        self._call("limits", lambda now: limits.renew(now=now), points)

    def beat(self, worker: ModelWorker, points: int | None) -> None:
        self._call(f"{worker.name}'s heartbeat", lambda now: worker.beat(), points, worker=worker)

    def disown(self, worker: ModelWorker, points: int | None) -> None:
        self._call(f"{worker.name}'s disowning", lambda now: worker.disown(), points, worker=worker)

    def attend(self, worker: ModelWorker, points: int | None) -> None:
        self.clock.seconds += 1
        self._call(f"{worker.name}'s attention", lambda now: worker.attend(), points, worker=worker)

    def tidy(self, worker: ModelWorker, points: int | None) -> None:
        self.clock.seconds += 1
        self._call(f"{worker.name}'s tidying", lambda now: worker.tidy(), points, worker=worker)

    def stop(self, worker: ModelWorker, points: int | None) -> None:
        self._call(f"{worker.name}'s stop", lambda now: worker.stop(), points, worker=worker)

    def boot(self) -> None:
        worker = ModelWorker(f"worker-{len(self.workers) + 1}", self.app, self.settings, self.truth, self.clock)
        self.workers.append(worker)
        self.beat(worker, None)
        for number in range(THREADS):
            actor = Actor(f"{worker.name}, thread {number + 1}", worker.work, process=worker)
            worker.threads.append(self.stage.enter(actor))
        self._check()

    def wait(self, seconds: float, *, silent: Iterable[ModelWorker] = ()) -> None:
        """Time passes. The scheduler looks at the workers meanwhile, and all beat but the silent ones."""
        end = self.clock.seconds + seconds
        while self.clock.seconds < end:
            self.pass_time(min(LOOK, end - self.clock.seconds))
            for worker in self.living():
                if worker not in silent:
                    self._pulse(worker)
            self._check()
            self._perform("reap")
        self.maintain(None)
        self.maintain(None)  # after a gap the first only gives the workers time

    def finish(self) -> None:
        """All that stands still goes on, and all that was accepted ends."""
        self.run_all()
        if not self.living():
            self.boot()
        for _ in range(ROUNDS):
            self.resync(None, thorough=True)
            self.relay(None)
            self.expire(None)
            self.count_slots(None)
            self.run_all()
            if self.truth.all_ended():
                break
            self.wait(16)
        self.truth.check_end(self.accepted)

    def _accept(self, posted: Any) -> None:
        self.accepted.update(task.task_id for task in posted or ())

    def _pulse(self, worker: ModelWorker) -> None:
        worker.broker.beat()
        for duty in ("heartbeat", "disowning"):
            self._perform(f"{worker.name}'s {duty}")

    def _perform(self, name: str) -> None:
        """If it is not under way."""
        if duty := self.duties().get(name):
            duty(None)
