"""The work queue in real workers under the stock dramatiq command: who takes what, when, and what goes back."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from scheduler_app.broker import PriorityBroker
from scheduler_app.extensions import broker, db
from scheduler_app.models import Failure, Status, Task
from scheduler_app.services import dispatch, pauses, tasks
from tests.conftest import WEIGHTS
from tests.support.processes import Process, eventually
from tests.support.servers import Postgres, Valkey

pytestmark = [
    pytest.mark.usefixtures("context"),
    pytest.mark.parametrize("database_url", ["postgresql"], indirect=True),
]


class Workers:
    """Starts workers with the operations of queue_operations.py, and reads what these wrote."""

    def __init__(self, worker: Callable[..., Process], folder: Path) -> None:
        self.worker = worker
        self.folder = folder

    def start(self, *options: str, threads: int = 1, weights: str = WEIGHTS) -> Process:
        return self.worker(*options, threads=threads, BACKBEAT_PRIORITY_WEIGHTS=weights)

    def post(self, operation: str, count: int = 1, *, priority: int = 5, max_retries: int = 3) -> list[int]:
        request = {"operation": f"queue.{operation}", "params": {}, "priority": priority, "max_retries": max_retries}
        created = tasks.create([request] * count, now=datetime.now(UTC))
        db.session.commit()
        dispatch.publish(created)
        return [row.task_id for row in created]

    def log(self) -> list[tuple[str, int, int]]:
        """What an operation did, for which task, and the process that had started its worker, in order."""
        file = self.folder / "log"
        lines = file.read_text().splitlines() if file.exists() else []
        return [(what, int(task_id), int(pid)) for what, task_id, pid in map(str.split, lines)]

    def tasks(self, what: str = "done") -> list[int]:
        return [task_id for done, task_id, _ in self.log() if done == what]

    def wait_for(self, what: str, task_ids: Sequence[int]) -> None:
        eventually(lambda: {*task_ids} <= {*self.tasks(what)})

    def release(self) -> None:
        """Lets the operation hold end."""
        (self.folder / "release").touch()

    def rows(self, task_ids: Sequence[int], *columns: Any) -> list[Any]:
        query = select(*columns).where(Task.task_id.in_(task_ids)).order_by(Task.task_id)
        rows = [tuple(row) for row in db.session.execute(query)]
        db.session.rollback()
        return rows

    def statuses(self, task_ids: Sequence[int]) -> Counter[str]:
        return Counter(status for (status,) in self.rows(task_ids, Task.status))

    def wait_until_all_are(self, status: Status, task_ids: Sequence[int]) -> None:
        eventually(lambda: self.statuses(task_ids) == {status: len(task_ids)}, within=40)

    def attempts(self, task_ids: Sequence[int]) -> set[int]:
        return {attempts for (attempts,) in self.rows(task_ids, Task.attempts)}

    def in_redis(self) -> int:
        """How many messages Redis keeps, waiting or pulled."""
        return sum(broker.client.hlen(f"dramatiq:{name}.msgs") for name in broker.weights)

    def pulled(self) -> int:
        """How many messages workers have that they have not settled."""
        return sum(broker.client.scard(key) for key in broker.client.scan_iter("dramatiq:__acks__*"))


@pytest.fixture
def environ(environ: dict[str, str], tmp_path: Path) -> dict[str, str]:
    return environ | {"BACKBEAT_OPERATIONS": "actors,tests.support.queue_operations", "FOLDER": str(tmp_path)}


@pytest.fixture
def workers(context: None, worker: Callable[..., Process], tmp_path: Path) -> Workers:
    return Workers(worker, tmp_path)


@pytest.fixture
def valkey(own_valkey: Valkey) -> Valkey:
    return own_valkey


def test_an_idle_worker_starts_what_is_urgent_while_another_is_full(workers: Workers) -> None:
    workers.start(threads=2)
    workers.wait_for("started", workers.post("hold", 2, priority=9))
    idle = workers.start(threads=2)
    workers.wait_for("done", workers.post("record", 30, priority=0))
    assert {pid for what, _, pid in workers.log() if what == "done"} == {idle.popen.pid}


def test_what_was_claimed_ahead_runs_in_the_order_in_which_it_was_chosen(workers: Workers) -> None:
    task_ids = workers.post("record", 500)
    workers.start()
    workers.wait_until_all_are(Status.SUCCESS, task_ids)
    claims = dict(workers.rows(task_ids, Task.task_id, Task.claims))
    at_once = [task_id for task_id in workers.tasks() if claims[task_id] == 1]  # a busy machine may have looked stalled
    assert at_once == sorted(at_once)
    assert len(at_once) > 250


def test_a_full_worker_hoards_nothing(workers: Workers) -> None:
    workers.start(threads=2)
    task_ids = workers.post("hold", 10)
    eventually(lambda: len(workers.tasks("started")) == 2)
    eventually(lambda: broker.waiting()[5] == 8)
    assert workers.statuses(task_ids) == {"STARTED": 2, "PENDING": 8}


def test_what_was_claimed_ahead_goes_back_when_every_thread_meets_a_long_task(workers: Workers) -> None:
    workers.start()
    short = workers.post("record", 100)
    long = workers.post("hold")
    behind = workers.post("record", 50)
    last = workers.post("record")
    workers.wait_for("started", long)
    eventually(lambda: workers.statuses(behind) == {"PENDING": 50})
    eventually(lambda: broker.waiting()[5] == 51)
    workers.start()
    workers.wait_until_all_are(Status.SUCCESS, [*short, *behind, *last])
    assert workers.tasks()[100:] == [*behind, *last], "what came back was the first again, in its order"
    assert workers.attempts(behind) == {1}
    assert workers.rows(behind[:1], Task.claims) == [(3,)], "it had been claimed: a claim, its return, and the next"


def test_a_short_task_behind_a_long_one_runs_on_another_thread(workers: Workers) -> None:
    workers.start(threads=2)
    workers.wait_for("done", workers.post("record", 100))
    long, behind = workers.post("hold"), workers.post("record", 50)
    workers.wait_for("done", behind)
    workers.wait_until_all_are(Status.SUCCESS, behind)
    assert workers.statuses(long) == {"STARTED": 1}


def test_a_worker_that_is_stopped_finishes_what_runs_and_gives_back_the_rest(workers: Workers) -> None:
    process = workers.start()
    short, long, behind = workers.post("record", 100), workers.post("hold"), workers.post("record", 50)
    workers.wait_for("started", long)
    process.popen.terminate()
    eventually(lambda: "Shutting down" in process.output)
    workers.release()
    assert process.popen.wait(15) == 0, process.output
    assert {*workers.tasks()} == {*short, *long}
    assert workers.statuses([*short, *long]) == {"SUCCESS": 101}
    assert workers.statuses(behind) == {"PENDING": 50}
    assert workers.attempts(behind) == {0}
    assert (broker.waiting()[5], workers.pulled()) == (50, 0)
    workers.start()
    workers.wait_for("done", behind)
    assert len(workers.tasks()) == 151, "none ran twice"


def test_two_workers_together_follow_the_weights(workers: Workers) -> None:
    weights = list(range(10, 0, -1))
    for _ in range(2):
        workers.start(threads=2, weights=",".join(map(str, weights)))
    held = workers.post("hold", 4)
    workers.wait_for("started", held)
    priorities = {task_id: level for level in range(10) for task_id in workers.post("record", 400, priority=level)}
    workers.release()
    eventually(lambda: len(workers.tasks()) == 4004)
    done = [(priorities[task_id], pid) for _, task_id, pid in workers.log() if task_id in priorities][:1650]
    counts = Counter(priority for priority, _ in done)
    for priority, weight in enumerate(weights):
        assert counts[priority] == pytest.approx(30 * weight, rel=0.1, abs=2)
    assert len({pid for _, pid in done}) == 2


def test_a_worker_pulls_only_from_the_queues_it_is_told(workers: Workers) -> None:
    workers.start("--queues", "tasks.p0", "tasks.p1")
    others = [*workers.post("record", priority=5), *workers.post("record", priority=2)]
    told = [*workers.post("record", priority=1), *workers.post("record", priority=0)]
    workers.wait_until_all_are(Status.SUCCESS, told)
    eventually(lambda: workers.in_redis() == 2)
    assert workers.statuses(others) == {"PENDING": 2}


def test_an_unreadable_message_ends_in_the_dead_letters_and_stops_nothing(workers: Workers) -> None:
    broker.client.hset("dramatiq:tasks.p5.msgs", "bad", "{")
    broker.client.rpush("dramatiq:tasks.p5", "bad")
    task_ids = workers.post("record")
    workers.start()
    workers.wait_for("done", task_ids)
    eventually(lambda: broker.client.zcard("dramatiq:tasks.p5.XQ") == 1)
    eventually(lambda: workers.in_redis() == 0)


def test_a_worker_with_every_thread_busy_keeps_its_heartbeat_fresh(workers: Workers) -> None:
    def heartbeat() -> float:
        return max(score for _, score in broker.client.zrange("dramatiq:__heartbeats__", 0, -1, withscores=True))

    workers.start()
    workers.wait_for("started", workers.post("hold"))
    first = heartbeat()
    eventually(lambda: heartbeat() > first + 1000)


def test_a_success_is_recorded_while_long_tasks_run(workers: Workers) -> None:
    workers.start(threads=2)
    workers.wait_for("started", workers.post("hold"))
    workers.wait_until_all_are(Status.SUCCESS, workers.post("record", 20))
    eventually(lambda: workers.pulled() == 1)


@pytest.fixture
def shallow(postgres: Postgres) -> Iterator[None]:
    """PostgreSQL takes only JSON that is not nested deeply."""
    postgres.sql("ALTER DATABASE backbeat SET max_stack_depth = '100kB'")
    yield
    postgres.sql("ALTER DATABASE backbeat RESET max_stack_depth")


@pytest.mark.usefixtures("shallow")
def test_one_result_that_cannot_be_stored_harms_no_other(workers: Workers) -> None:
    before, deep, after = workers.post("record", 20), workers.post("deep"), workers.post("record", 20)
    workers.start()
    workers.wait_until_all_are(Status.SUCCESS, [*before, *after])
    workers.wait_until_all_are(Status.ERROR, deep)
    assert "cannot be stored" in workers.rows(deep, Task.error)[0][0]["message"]
    assert workers.attempts([*before, *deep, *after]) == {1}


def test_what_kills_its_worker_ends_in_error_and_its_neighbours_are_not_punished(
    workers: Workers, scheduler: Callable[..., Process]
) -> None:
    scheduler()
    before = workers.post("record", 20, max_retries=0)
    killer = workers.post("kill", max_retries=1)
    behind = workers.post("record", 40, max_retries=0)
    deaths = 0
    while workers.statuses(killer)["ERROR"] == 0:
        process = workers.start(threads=4)
        eventually(lambda p=process: p.ended or workers.statuses(killer)["ERROR"], within=60)
        deaths += process.ended
    if process.ended:
        workers.start(threads=4)
    workers.wait_until_all_are(Status.SUCCESS, [*before, *behind])
    assert workers.attempts([*before, *behind]) == {1}
    failures = db.session.execute(select(Failure.task_id, Failure.type, Failure.attempt)).all()
    assert [tuple(row) for row in failures] == [(killer[0], "WorkerLost", attempt) for attempt in (1, 2)]
    assert deaths == 3, "the first time nobody knew whether it had begun"


def test_of_a_long_task_the_attempt_counts_although_it_was_claimed_in_company(
    workers: Workers, scheduler: Callable[..., Process]
) -> None:
    scheduler()
    process = workers.start(threads=2)
    workers.wait_until_all_are(Status.SUCCESS, workers.post("record", 50))
    long = workers.post("hold", 2, max_retries=0)
    workers.wait_for("started", long)
    eventually(lambda: workers.rows(long, Task.begun) == [(True,), (True,)])
    process.kill()
    workers.wait_until_all_are(Status.ERROR, long)
    assert {error["type"] for (error,) in workers.rows(long, Task.error)} == {"WorkerLost"}


def test_a_pause_takes_back_what_was_claimed_ahead(workers: Workers) -> None:
    workers.start()
    workers.wait_for("done", workers.post("record", 100))
    long, behind = workers.post("hold"), workers.post("record", 30)
    workers.wait_for("started", long)
    pauses.pause(5, note=None, now=datetime.now(UTC))
    eventually(lambda: workers.statuses(behind) == {"PENDING": 30})
    workers.release()
    workers.wait_until_all_are(Status.SUCCESS, [*long, *workers.post("record", priority=6)])
    assert workers.statuses(behind) == {"PENDING": 30}


def test_a_lost_subscription_is_made_again(workers: Workers, valkey: Valkey) -> None:
    workers.start()

    def subscribers() -> set[bytes]:
        return {client["id"] for client in valkey.client.client_list(_type="pubsub")}

    first = eventually(subscribers)
    valkey.client.client_kill_filter(_type="pubsub")
    eventually(lambda: subscribers() - first)
    workers.wait_for("done", workers.post("record"))


def test_a_worker_goes_on_after_redis_has_lost_everything(workers: Workers, valkey: Valkey) -> None:
    process = workers.start(threads=2)
    long = workers.post("hold")
    workers.wait_for("started", long)
    valkey.client.flushall()
    workers.wait_for("done", workers.post("record"))
    workers.release()
    workers.wait_until_all_are(Status.SUCCESS, long)
    eventually(lambda: workers.in_redis() == workers.pulled() == 0)
    assert "Traceback" not in process.output


def test_a_worker_goes_on_after_an_outage_of_redis(workers: Workers, valkey: Valkey) -> None:
    process = workers.start(threads=2)
    task_ids = workers.post("record", 1000)
    eventually(workers.tasks)
    valkey.kill()
    eventually(lambda: "Redis does not answer" in process.output)
    valkey.start()
    task_ids += workers.post("record")
    workers.wait_for("done", task_ids)
    eventually(lambda: workers.in_redis() == workers.pulled() == 0)
    assert process.output.count("Redis does not answer") == process.output.count("Redis answers again") == 1
    assert "Traceback" not in process.output


def test_an_acknowledgement_waits_for_the_end_of_an_outage(workers: Workers, valkey: Valkey) -> None:
    process = workers.start(threads=2)
    long = workers.post("hold")
    workers.wait_for("started", long)
    valkey.kill()
    workers.release()
    workers.wait_until_all_are(Status.SUCCESS, long)
    eventually(lambda: "Redis does not answer" in process.output)
    valkey.start()
    eventually(lambda: workers.in_redis() == 0)
    assert workers.tasks() == long


def test_what_redis_counts_as_pulled_and_no_thread_has_is_made_up_for(workers: Workers, valkey: Valkey) -> None:
    workers.start()
    long = workers.post("hold")
    workers.wait_for("started", long)
    [worker_id] = valkey.client.zrange("dramatiq:__heartbeats__", 0, -1)
    lost = workers.post("record")
    impostor = PriorityBroker(valkey.url)
    impostor.broker_id = worker_id.decode()
    assert len(impostor.pull(["tasks.p5"], 1).messages) == 1, "in the worker's name, but it knows nothing of it"
    valkey.client.client_kill_filter(_type="pubsub")
    workers.release()
    workers.wait_until_all_are(Status.SUCCESS, lost)
    eventually(lambda: workers.in_redis() == workers.pulled() == 0)
    assert workers.tasks() == [*long, *lost]


def test_a_worker_stops_while_redis_is_away(workers: Workers, valkey: Valkey) -> None:
    process = workers.start(threads=2)
    long = workers.post("hold")
    workers.wait_for("started", long)
    valkey.kill()
    process.popen.terminate()
    eventually(lambda: "Shutting down" in process.output)
    workers.release()
    assert process.popen.wait(15) == 0
    assert workers.statuses(long) == {"SUCCESS": 1}
    assert "Traceback" not in process.output
