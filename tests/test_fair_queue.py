"""FairQueue in real workers under the stock dramatiq command."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from scheduler_app.broker import Delivery, PriorityBroker
from tests.conftest import WEIGHTS
from tests.support.processes import Process, eventually
from tests.support.servers import Valkey
from tests.support.system import WORKER_READY, worker_command


class Workers:
    """Starts workers of tests.support.broker_actors, and reads what these wrote."""

    def __init__(self, url: str, folder: Path) -> None:
        self.broker = PriorityBroker(url)
        self.url = url
        self.folder = folder
        self.processes: list[Process] = []

    def start(self, *options: str, threads: int = 1, weights: str = WEIGHTS) -> Process:
        command = worker_command(*options, module="tests.support.broker_actors", threads=threads)
        environ = {"REDIS_URL": self.url, "FOLDER": str(self.folder), "WEIGHTS": weights}
        process = Process(command, environ, WORKER_READY)
        self.processes.append(process)
        return process.wait_until_ready()

    def post(self, operation: str, *task_ids: int, priority: int = 5) -> None:
        self.broker.publish(Delivery(task_id, 0, operation, priority) for task_id in task_ids)

    def log(self) -> list[tuple[str, int, int]]:
        """What an actor did, for which task, and the process that had started its worker, in order."""
        file = self.folder / "log"
        lines = file.read_text().splitlines() if file.exists() else []
        return [(what, int(task_id), int(pid)) for what, task_id, pid in map(str.split, lines)]

    def tasks(self, what: str = "done") -> list[int]:
        return [task_id for done, task_id, _ in self.log() if done == what]

    def wait_for(self, what: str, *task_ids: int) -> None:
        eventually(lambda: set(task_ids) <= set(self.tasks(what)))

    def release(self) -> None:
        """Lets the operation hold end."""
        (self.folder / "release").touch()

    def in_redis(self) -> int:
        """How many messages Redis keeps, waiting or pulled."""
        return sum(self.broker.client.hlen(f"dramatiq:{name}.msgs") for name in self.broker.weights)

    def pulled(self) -> int:
        """How many messages workers have that they have not settled."""
        return sum(self.broker.client.scard(key) for key in self.broker.client.scan_iter("dramatiq:__acks__*"))

    def kill(self) -> None:
        for process in self.processes:
            process.kill()


@pytest.fixture
def workers(valkey: Valkey, tmp_path: Path) -> Iterator[Workers]:
    workers = Workers(valkey.url, tmp_path)
    yield workers
    workers.kill()


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    """One to kill."""
    server = Valkey()
    yield server
    server.close()


@pytest.fixture
def outage(own_valkey: Valkey, tmp_path: Path) -> Iterator[tuple[Workers, Valkey]]:
    workers = Workers(own_valkey.url, tmp_path)
    yield workers, own_valkey
    workers.kill()


def test_an_idle_worker_starts_what_is_urgent_while_another_is_full(workers: Workers) -> None:
    workers.start(threads=2)
    workers.post("hold", 1, 2, priority=9)
    workers.wait_for("started", 1, 2)
    idle = workers.start(threads=2)
    workers.post("record", *range(3, 33), priority=0)
    workers.wait_for("done", *range(3, 33))
    assert {pid for what, _, pid in workers.log() if what == "done"} == {idle.popen.pid}


def test_what_was_fetched_ahead_runs_in_the_order_in_which_it_was_chosen(workers: Workers) -> None:
    workers.post("record", *range(1, 501))
    workers.start()
    workers.wait_for("done", *range(1, 501))
    assert workers.tasks() == list(range(1, 501))


def test_a_full_worker_hoards_nothing(workers: Workers) -> None:
    workers.start(threads=2)
    workers.post("hold", *range(1, 11))
    workers.wait_for("started", 1, 2)
    assert workers.broker.waiting()[5] == 8
    assert workers.pulled() == 2


def test_what_was_fetched_ahead_goes_back_when_every_thread_meets_a_long_task(workers: Workers) -> None:
    workers.start()
    workers.post("record", *range(1, 101))
    workers.post("hold", 101)
    workers.post("record", *range(102, 152))
    workers.wait_for("started", 101)
    eventually(lambda: workers.pulled() == 1, within=5)
    workers.start()
    workers.wait_for("done", *range(102, 152))


def test_a_worker_that_is_stopped_finishes_what_runs_and_gives_back_the_rest(workers: Workers) -> None:
    process = workers.start()
    workers.post("record", *range(1, 101))
    workers.post("hold", 101)
    workers.post("record", *range(102, 152))
    workers.wait_for("started", 101)
    process.popen.terminate()
    eventually(lambda: "Shutting down" in process.output)
    workers.release()
    assert process.popen.wait(15) == 0, process.output
    assert workers.tasks() == list(range(1, 102))
    assert workers.broker.waiting()[5] == 50
    assert workers.pulled() == 0
    workers.start()
    workers.wait_for("done", *range(102, 152))
    assert len(workers.tasks()) == 151, "none ran twice"


def test_two_workers_together_follow_the_weights(workers: Workers) -> None:
    weights = list(range(10, 0, -1))
    for _ in range(2):
        workers.start(threads=2, weights=",".join(map(str, weights)))
    workers.post("hold", *range(4))
    workers.wait_for("started", *range(4))
    for priority in range(10):
        workers.post("record", *range(1000 * priority + 100, 1000 * priority + 500), priority=priority)
    workers.release()
    eventually(lambda: len(workers.tasks()) == 4004)
    done = [(task_id // 1000, pid) for what, task_id, pid in workers.log() if what == "done" and task_id > 3][:1650]
    counts = Counter(priority for priority, _ in done)
    for priority, weight in enumerate(weights):
        assert counts[priority] == pytest.approx(30 * weight, rel=0.1, abs=2)
    assert len({pid for _, pid in done}) == 2


def test_a_message_that_an_actor_gives_back_is_delivered_again(workers: Workers) -> None:
    process = workers.start()
    workers.post("give_back_once", 1)
    workers.wait_for("done", 1)
    eventually(lambda: workers.in_redis() == 0)
    assert "Traceback" not in process.output


def test_a_worker_pulls_only_from_the_queues_it_is_told(workers: Workers) -> None:
    workers.start("--queues", "tasks.p0", "tasks.p1")
    for priority in (5, 2, 1, 0):
        workers.post("record", priority, priority=priority)
    workers.wait_for("done", 0, 1)
    eventually(lambda: workers.in_redis() == 2)
    assert sorted(workers.tasks()) == [0, 1]


def test_an_unknown_operation_reaches_the_actor_for_any(workers: Workers) -> None:
    workers.start()
    workers.post("no_such_operation", 1)
    workers.wait_for("unknown", 1)
    eventually(lambda: workers.in_redis() == 0)


def test_an_unreadable_message_ends_in_the_dead_letters_and_stops_nothing(workers: Workers) -> None:
    client = workers.broker.client
    client.hset("dramatiq:tasks.p5.msgs", "bad", "{")
    client.rpush("dramatiq:tasks.p5", "bad")
    workers.post("record", 1)
    workers.start()
    workers.wait_for("done", 1)
    eventually(lambda: client.zcard("dramatiq:tasks.p5.XQ") == 1)
    eventually(lambda: workers.in_redis() == 0)


def test_a_worker_with_every_thread_busy_keeps_its_heartbeat_fresh(workers: Workers) -> None:
    def heartbeat() -> float:
        return max(
            score for _, score in workers.broker.client.zrange("dramatiq:__heartbeats__", 0, -1, withscores=True)
        )

    workers.start()
    workers.post("hold", 1)
    workers.wait_for("started", 1)
    first = heartbeat()
    eventually(lambda: heartbeat() > first + 1000)


def test_a_lost_subscription_is_made_again(workers: Workers, valkey: Valkey) -> None:
    workers.start()

    def subscribers() -> set[bytes]:
        return {client["id"] for client in valkey.client.client_list(_type="pubsub")}

    first = eventually(subscribers)
    valkey.client.client_kill_filter(_type="pubsub")
    eventually(lambda: subscribers() - first)
    workers.post("record", 1)
    workers.wait_for("done", 1)


def test_a_worker_goes_on_after_redis_has_lost_everything(workers: Workers, valkey: Valkey) -> None:
    process = workers.start(threads=2)
    workers.post("hold", 1)
    workers.wait_for("started", 1)
    valkey.client.flushall()
    workers.post("record", 2)
    workers.wait_for("done", 2)
    workers.release()
    workers.wait_for("done", 1)
    eventually(lambda: workers.in_redis() == workers.pulled() == 0)
    assert "Traceback" not in process.output


def test_a_worker_goes_on_after_an_outage_of_redis(outage: tuple[Workers, Valkey]) -> None:
    workers, valkey = outage
    process = workers.start(threads=2)
    workers.post("record", *range(1, 1001))
    eventually(workers.tasks)
    valkey.kill()
    eventually(lambda: "Redis does not answer" in process.output)
    valkey.start()
    workers.post("record", 1001)
    workers.wait_for("done", *range(1, 1002))
    eventually(lambda: workers.in_redis() == workers.pulled() == 0)
    assert process.output.count("Redis does not answer") == process.output.count("Redis answers again") == 1
    assert "Traceback" not in process.output


def test_an_acknowledgement_waits_for_the_end_of_an_outage(outage: tuple[Workers, Valkey]) -> None:
    workers, valkey = outage
    process = workers.start(threads=2)
    workers.post("hold", 1)
    workers.wait_for("started", 1)
    valkey.kill()
    workers.release()
    workers.wait_for("done", 1)
    eventually(lambda: "Redis does not answer" in process.output)
    valkey.start()
    eventually(lambda: workers.in_redis() == 0)
    assert workers.tasks() == [1]


def test_what_redis_counts_as_pulled_and_no_thread_has_is_made_up_for(workers: Workers, valkey: Valkey) -> None:
    workers.start()
    workers.post("hold", 1)
    workers.wait_for("started", 1)
    [worker_id] = valkey.client.zrange("dramatiq:__heartbeats__", 0, -1)
    workers.broker.broker_id = worker_id.decode()
    workers.post("record", 2)
    assert len(workers.broker.pull(["tasks.p5"], 1)) == 1, "in the worker's name, but it knows nothing of it"
    valkey.client.client_kill_filter(_type="pubsub")
    workers.release()
    workers.wait_for("done", 2)
    eventually(lambda: workers.in_redis() == workers.pulled() == 0)
    assert workers.tasks() == [1, 2]


def test_a_worker_stops_while_redis_is_away(outage: tuple[Workers, Valkey]) -> None:
    workers, valkey = outage
    process = workers.start(threads=2)
    workers.post("hold", 1)
    workers.wait_for("started", 1)
    valkey.kill()
    process.popen.terminate()
    eventually(lambda: "Shutting down" in process.output)
    workers.release()
    assert process.popen.wait(15) == 0
    assert "Traceback" not in process.output
