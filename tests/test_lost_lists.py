"""Messages in no list, and ids without a message, as after an eviction or a stray DEL, are repaired."""

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask

from scheduler_app.broker import Delivery, PriorityBroker, WorkerBroker, lists
from scheduler_app.broker.connection import script
from scheduler_app.extensions import broker as app_broker
from scheduler_app.extensions import db
from scheduler_app.services import dispatch, tasks
from tests.support.servers import Valkey

LIST, MESSAGES = "dramatiq:tasks.p5", "dramatiq:tasks.p5.msgs"
NOW = datetime(2040, 6, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(seconds=5)


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what is in the tests takes several."""
    monkeypatch.setattr(lists, "SLICE", 1500)
    monkeypatch.setattr(lists, "PAGE", 70)


@pytest.fixture
def broker(valkey: Valkey) -> WorkerBroker:
    """It has sent 2,500 messages, and pulled the first three."""
    broker = WorkerBroker(valkey.url)
    broker.publish(Delivery(task_id, 0, "calculate", 5) for task_id in range(1, 2501))
    broker.pull(broker.weights, 3)
    return broker


@pytest.fixture
def sent(app: Flask, valkey: Valkey) -> Iterator[int]:
    """How many tasks are in Redis, and stand so in their rows."""
    with app.app_context():
        tasks.create([{"operation": "calculate", "params": {}, "priority": 5, "max_retries": 5}] * 20, now=NOW)
        db.session.commit()
        dispatch.resync(now=LATER)
        yield dispatch.relay(now=LATER)


def waiting(valkey: Valkey) -> list[int]:
    """The tasks whose messages wait, in order."""
    return [int(id_.partition(b".")[0]) for id_ in valkey.client.lrange(LIST, 0, -1)]


def test_a_list_that_is_lost_comes_back(broker: WorkerBroker, valkey: Valkey) -> None:
    valkey.client.delete(LIST)
    assert broker.lists.restore() == 2497
    assert sorted(waiting(valkey)) == list(range(4, 2501))
    assert broker.lists.restore() == 0


def test_of_a_list_that_lost_a_part_only_that_comes_back(broker: WorkerBroker, valkey: Valkey) -> None:
    valkey.client.ltrim(LIST, 1000, -101)
    assert broker.lists.restore() == 1100
    assert waiting(valkey)[:1397] == list(range(1004, 2401))
    assert sorted(waiting(valkey)) == list(range(4, 2501))


def test_what_was_posted_since_the_loss_is_there_once(broker: WorkerBroker, valkey: Valkey) -> None:
    valkey.client.delete(LIST)
    broker.publish([Delivery(2501, 0, "calculate", 5)])
    assert broker.lists.restore() == 2497
    assert sorted(waiting(valkey)) == list(range(4, 2502))


def test_what_a_worker_had_pulled_comes_back_when_its_ack_set_is_lost(broker: WorkerBroker, valkey: Valkey) -> None:
    [acks] = valkey.client.scan_iter("dramatiq:__acks__*")
    valkey.client.delete(acks)
    assert broker.lists.restore() == 3
    assert sorted(waiting(valkey)[-3:]) == [1, 2, 3]


def test_while_nothing_is_missing_nothing_is_read_or_written(broker: WorkerBroker, valkey: Valkey) -> None:
    broker.lists.restore()
    valkey.client.config_resetstat()
    assert broker.lists.restore() == 0
    commands = {name.removeprefix("cmdstat_") for name in valkey.client.info("commandstats")}
    assert commands <= {
        "evalsha",
        "script|exists",
        "get",
        "hget",
        "hlen",
        "llen",
        "zrange",
        "scard",
        "config|resetstat",
    }


def test_of_two_that_put_back_at_once_one_does(broker: WorkerBroker, valkey: Valkey) -> None:
    valkey.client.delete(LIST)
    brokers = [PriorityBroker(valkey.url) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        restored = list(pool.map(lambda one: one.lists.restore(), brokers))
    assert sorted(restored) == [0, 0, 0, 2497]
    assert sorted(waiting(valkey)) == list(range(4, 2501))


def test_what_was_missed_by_the_search_and_waits_is_not_put_back(broker: WorkerBroker, valkey: Valkey) -> None:
    """It may have been given back to one of the ends of the list since."""
    lost, first, last = 1000, 4, 2500
    valkey.client.lrem(LIST, 1, f"{lost}.0")
    relist = script(valkey.client, "relist")
    ids = [f"{task_id}.0" for task_id in (first, last, lost)]
    assert relist(keys=["dramatiq"], args=["a process", "tasks.p5", *ids]) == [1, 0]
    assert sorted(waiting(valkey)) == list(range(4, 2501))


def test_what_moves_meanwhile_is_not_taken_for_lost(broker: WorkerBroker, valkey: Valkey) -> None:
    """Workers pull, acknowledge and give back, clients post, and now and then a part of the list is lost."""
    stopped = threading.Event()
    done: set[str] = set()

    def work() -> None:
        worker = WorkerBroker(valkey.url)
        while not stopped.is_set():
            ids = [id_ for _, id_ in worker.pull(worker.weights, 20).messages]
            worker.requeue("tasks.p5", *ids[::2])
            worker.pull(worker.weights, 0, done=[("tasks.p5", id_) for id_ in ids[1::2]])
            done.update(ids[1::2])

    def post() -> None:
        poster = PriorityBroker(valkey.url)
        for first in range(3001, 8001, 50):
            poster.publish(Delivery(task_id, 0, "calculate", 5) for task_id in range(first, first + 50))

    threads = [threading.Thread(target=target) for target in (work, work, post)]
    for thread in threads:
        thread.start()
    lost = restored = 0
    while threads[-1].is_alive():
        lost += sum(valkey.client.lpop(LIST) is not None for _ in range(random.randint(0, 3)))
        restored += broker.lists.restore()
    restored += broker.lists.restore()
    stopped.set()
    for thread in threads:
        thread.join(20)
    restored += broker.lists.restore()  # a scan may leave what moves to the next one
    assert restored == lost
    there = {id_.decode() for id_ in valkey.client.hkeys(MESSAGES)}
    assert {f"{task_id}.0" for task_id in [*range(4, 2501), *range(3001, 8001)]} <= there | done
    assert len(waiting(valkey)) == len(set(waiting(valkey)))


def test_the_next_scan_puts_a_lost_list_back(sent: int, valkey: Valkey) -> None:
    ids = waiting(valkey)
    assert ids == sorted(ids), "of the same time, the first to come is the first to be sent"
    valkey.client.delete(LIST)
    assert dispatch.resync(now=LATER) == sent == 20
    assert waiting(valkey) == ids
    assert dispatch.resync(now=LATER) == 0


def test_an_id_without_message_has_the_next_scan_look_for_what_is_lost(sent: int, valkey: Valkey) -> None:
    valkey.client.delete(MESSAGES)
    assert dispatch.resync(now=LATER) == 0, "nothing tells of it yet"
    assert app_broker.pull(app_broker.weights, 8).messages == []
    assert dispatch.resync(now=LATER) == 20
    assert dispatch.relay(now=LATER) == 20
    assert len(app_broker.pull(app_broker.weights, 30).messages) == 20
