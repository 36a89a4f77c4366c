"""Real faults on a whole system: nothing that was accepted is lost, and nothing sticks."""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import pytest
from sqlalchemy import select

from scheduler_app.models import Failure, Status, Task
from tests.support import faketime
from tests.support.account import Account, account, settled
from tests.support.fault_operations import AT_ONCE
from tests.support.harms import MONTH, Harm, frozen, full, last, read_only, stepped
from tests.support.limit_operations import most_at_once, short_spans
from tests.support.posting import Client
from tests.support.processes import Process, eventually
from tests.support.servers import Postgres, Valkey
from tests.support.system import WORKER_READY, worker_command
from tests.support.target import Target

RECOVERY = 120  # seconds; it takes up to 20, but the machine may be busy with something else


@dataclass
class Trial:
    """A harm while tasks are posted, and the account after it."""

    target: Target
    client: Client
    random: random.Random
    harms: dict[str, float] = field(default_factory=dict)  # when each was done

    @contextmanager
    def posting(self, *, before: int = 100, after: int = 100) -> Iterator[None]:
        """Posts on until so many tasks more were accepted; the harm is done at a random moment after the first ones."""
        with self.client.posting():
            self.accept(before)
            time.sleep(self.random.uniform(0, 0.3))  # any moment will do
            yield
            self.accept(after)

    def accept(self, count: int) -> None:
        wanted = len(self.client.accepted) + count
        eventually(lambda: len(self.client.accepted) >= wanted, within=RECOVERY)

    def bend(self, name: str, harm: Harm, *, seconds: float = 3) -> None:
        """Posts before, during and after a harm that lasts so long."""
        with self.posting():
            self.harm(name, partial(last, harm, seconds))

    def harm(self, name: str, do: Callable[[], object]) -> None:
        self.harms[name] = time.time()
        do()

    def check(self) -> Account:
        """Prints what it took; fails when anything is lost, stuck or wrong."""
        stuck = settled(self.target, within=RECOVERY)
        result = account(self.target, self.client.accepted)
        for name, at in self.harms.items():
            seconds = result.recovery(self.client.accepted, at)
            print(
                f"{name}: {len(result.finished)} tasks, {len(result.run_twice)} run twice, recovered in {seconds:.1f} s"
            )
        assert (stuck, result.lost, result.wrong) == ([], [], {})
        assert most_at_once(short_spans(self.target.limit_lines)) <= AT_ONCE
        return result


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    target = Target(request.param, tmp_path_factory.mktemp("faults"))
    yield target
    target.close()


@pytest.fixture
def trial(target: Target) -> Trial:
    eventually(target.ready, within=RECOVERY)
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")
    return Trial(target, Client(target.system.url, random.Random(seed), failing=0.15), random.Random(seed))


@pytest.fixture
def on_postgresql(target: Target) -> Postgres:
    if target.postgres is None:
        pytest.skip("SQLite is a file on one machine: it has no server, and one clock")
    return target.postgres


def test_the_web_process_is_killed_during_posts(trial: Trial) -> None:
    for number in range(2):
        with trial.posting():
            trial.harm(f"web killed ({number})", trial.target.system.web.kill)
    trial.check()


def test_both_schedulers_are_killed(trial: Trial) -> None:
    first, second = trial.target.system.schedulers
    with trial.posting():
        trial.harm("scheduler killed", first.kill)
    with trial.posting():
        trial.harm("both schedulers killed", lambda: (first.kill(), second.kill()))
    trial.check()


def test_redis_is_killed_and_comes_back_with_its_file(trial: Trial) -> None:
    with trial.posting():
        trial.harm("Redis killed", trial.target.valkey.kill)
        trial.target.valkey.start()
    trial.check()


def test_redis_loses_its_data(trial: Trial) -> None:
    valkey = trial.target.valkey
    with trial.posting():
        trial.harm("Redis flushed", valkey.client.flushall)
    with trial.posting():
        trial.harm("Redis restarted without its data", valkey.kill)
        valkey.lose_data()
        valkey.start()
    trial.check()


def test_posts_are_accepted_while_redis_is_away(trial: Trial) -> None:
    with trial.posting():
        trial.harm("Redis away", trial.target.valkey.kill)
        trial.accept(200)
        trial.target.valkey.start()
    trial.check()
    assert set(trial.client.answers) == {"202"}


def test_posts_are_answered_503_while_the_database_is_away(on_postgresql: Postgres, trial: Trial) -> None:
    client = trial.client
    with trial.posting():
        trial.harm("PostgreSQL away", on_postgresql.stop)
        eventually(lambda: client.answers["503"] >= 10)
        on_postgresql.start()
    trial.check()
    assert set(client.answers) == {"202", "503"}
    assert client.slowest < 10


def test_a_stopped_worker_leaves_nothing_behind(trial: Trial) -> None:
    worker = trial.target.system.workers[0]
    trial.client.post(*[{"operation": "fault.work", "params": {"seconds": 1}}] * 15)
    with trial.posting():
        busy(trial.target, worker)
        row = trial.target.worker_of(worker)
        assert row
        process = worker.popen
        trial.harm("worker stopped", process.terminate)
        assert process.wait(RECOVERY) == 0
        left = select(Task.task_id).where(Task.worker_id == row.worker_id, Task.status == Status.STARTED)
        assert trial.target.rows(left) == []
    assert trial.check().run_twice == []
    lost = select(Failure).where(Failure.type == "WorkerLost", Failure.task_id.in_(trial.client.accepted))
    assert trial.target.rows(lost) == []


def test_workers_die_or_stand_still(trial: Trial) -> None:
    target, client = trial.target, trial.client
    killed, frozen = target.system.workers
    with trial.posting():
        long = client.post(*[{"operation": "fault.work", "params": {"seconds": 6}}] * 20)
        eventually(lambda: all(target.running_on(one, long) for one in (killed, frozen)), within=RECOVERY)
        trial.harm("worker killed", killed.kill)
        trial.harm("worker stopped by SIGSTOP", lambda: target.freeze(frozen))
        assert target.running_on(frozen, long)  # so that it will have something to say too late
        row = target.worker_of(frozen)
        assert row
    with trial.posting(after=10):
        eventually(lambda: target.worker_of(frozen) != row, within=RECOVERY)
        frozen.signal(signal.SIGCONT)
        eventually(lambda: "came too late, dropped" in frozen.output)
    # It kills the worker's process only; the harms above the master as well. Earlier, it might kill the frozen one.
    [killer] = client.post({"operation": "fault.kill_worker", "max_retries": 1})
    del client.accepted[killer]
    eventually(lambda: status(target, killer) == Status.ERROR, within=2 * RECOVERY)
    trial.check()
    [task] = target.rows(select(Task.attempts, Task.error).where(Task.task_id == killer))
    assert (task.attempts, task.error["type"]) == (2, "WorkerLost")


def test_redis_stands_still(trial: Trial) -> None:
    trial.bend("Redis frozen", partial(frozen, trial.target.valkey))
    trial.check()


def test_redis_is_full_of_what_is_not_ours(trial: Trial) -> None:
    trial.bend("Redis full", partial(full, trial.target.valkey))
    trial.check()


def test_postgresql_stands_still(on_postgresql: Postgres, trial: Trial) -> None:
    trial.bend("PostgreSQL frozen", partial(frozen, on_postgresql))
    trial.check()


def test_postgresql_is_read_only_for_some_seconds(on_postgresql: Postgres, trial: Trial) -> None:
    trial.bend("PostgreSQL read-only", partial(read_only, on_postgresql))
    trial.check()


def test_a_worker_is_cut_from_redis(trial: Trial) -> None:
    trial.bend("cut", trial.target.redis_proxy.cut)
    trial.bend("stalled", trial.target.redis_proxy.stalled)
    trial.check()


@pytest.mark.usefixtures("on_postgresql")
def test_a_worker_is_cut_from_the_database(trial: Trial) -> None:
    trial.bend("cut", trial.target.database_proxy.cut)
    trial.bend("stalled", trial.target.database_proxy.stalled)
    trial.check()


@faketime.needed
@pytest.mark.usefixtures("on_postgresql")
def test_the_clock_of_a_worker_steps(trial: Trial) -> None:
    for seconds in (-10, 300, -3600):
        trial.bend(f"{seconds} s", partial(stepped, trial.target.worker_clock, seconds), seconds=2)
    trial.check()


@faketime.needed
@pytest.mark.usefixtures("on_postgresql")
def test_the_clock_of_a_scheduler_steps(trial: Trial) -> None:
    for seconds in (-60, 300, MONTH):
        trial.bend(f"{seconds} s", partial(stepped, trial.target.scheduler_clock, seconds), seconds=2)
    trial.check()


def test_a_worker_that_boots_without_its_database_can_be_stopped(own_valkey: Valkey) -> None:
    environ = {"DATABASE_URL": "postgresql://postgres@/backbeat?host=/nowhere", "REDIS_URL": own_valkey.url}
    worker = Process(worker_command(), environ, WORKER_READY)
    try:
        worker.wait_until_ready()
        assert worker.stop(within=10) == 0
    finally:
        worker.kill()


def busy(target: Target, process: Process) -> None:
    eventually(lambda: target.running_on(process), within=RECOVERY)


def status(target: Target, task_id: int) -> str:
    [row] = target.rows(select(Task.status).where(Task.task_id == task_id))
    return row.status
