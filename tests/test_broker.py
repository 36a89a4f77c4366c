"""The broker against a real Valkey: publishing, pulling by weight, maintenance."""

import random
import time
from collections import Counter
from collections.abc import Iterable

import dramatiq
import pytest
import redis
from dramatiq import Message
from dramatiq.brokers.redis import RedisBroker

from scheduler_app.broker import Delivery, WorkerBroker, queue_name
from tests.support.processes import eventually
from tests.support.servers import Valkey

WEIGHTS = [2.0 ** (9 - priority) for priority in range(10)]


@pytest.fixture
def broker(valkey: Valkey) -> WorkerBroker:
    return WorkerBroker(valkey.url)


def deliveries(count: int, *, priority: int = 5, first: int = 1) -> list[Delivery]:
    return [Delivery(task_id, 0, "calculate", priority) for task_id in range(first, first + count)]


def fill(broker: WorkerBroker, count: int, priorities: Iterable[int] = range(10)) -> None:
    for priority in priorities:
        broker.publish(deliveries(count, priority=priority, first=1 + 1_000_000 * priority))


def pull(broker: WorkerBroker, count: int = 1) -> list[tuple[str, str]]:
    return broker.pull(broker.weights, count).messages


def shares(*brokers: WorkerBroker, pulls: int) -> Counter[str]:
    """How many messages of each queue come when the brokers pull in turn, a few at a time."""
    counts: Counter[str] = Counter()
    while counts.total() < pulls:
        size = min(random.randint(1, 16), pulls - counts.total())
        counts.update(name for name, _ in pull(random.choice(brokers), size))
    return counts


def deliver(broker: WorkerBroker, task_id: int = 1) -> tuple[str, str]:
    broker.publish(deliveries(1, first=task_id))
    [pulled] = pull(broker)
    return pulled


def acknowledge(broker: WorkerBroker, *pulled: tuple[str, str]) -> None:
    broker.pull(broker.weights, 0, done=pulled)


def acks(valkey: Valkey) -> list[bytes]:
    return list(valkey.client.scan_iter("dramatiq:__acks__*"))


def test_a_delivery_is_a_message_of_dramatiq(broker: WorkerBroker, valkey: Valkey) -> None:
    broker.publish([Delivery(7, 2, "http_request", 3)])
    [(name, message_id)] = pull(broker)
    data = valkey.client.hget("dramatiq:tasks.p3.msgs", "7.2")
    message = Message.decode(data)
    assert (name, message_id) == (message.queue_name, message.message_id) == ("tasks.p3", "7.2")
    assert (message.actor_name, message.args, message.kwargs) == ("http_request", (7, 2), {})
    assert message.options == {"redis_message_id": "7.2"}
    assert message.message_timestamp == pytest.approx(time.time() * 1000, abs=10_000)
    assert message.encode() == data


def test_the_same_attempt_is_published_once(broker: WorkerBroker) -> None:
    assert broker.publish(deliveries(3)) == 3
    assert broker.publish(deliveries(4)) == 1
    assert len(pull(broker, 10)) == 4
    assert broker.publish(deliveries(4)) == 0, "a worker has them"
    assert pull(broker, 10) == []


def test_an_attempt_can_be_published_again_when_it_was_acknowledged(broker: WorkerBroker) -> None:
    acknowledge(broker, deliver(broker))
    assert broker.publish(deliveries(1)) == 1


def test_what_is_done_is_acknowledged_with_the_next_pull(broker: WorkerBroker, valkey: Valkey) -> None:
    pulled = [deliver(broker, task_id) for task_id in (1, 2, 3)]
    assert valkey.client.hlen("dramatiq:tasks.p5.msgs") == 3
    broker.publish(deliveries(1, first=4))
    valkey.client.config_resetstat()
    assert len(broker.pull(broker.weights, 5, done=pulled[:2]).messages) == 1
    assert valkey.client.info("commandstats")["cmdstat_evalsha"]["calls"] == 1
    assert sorted(valkey.client.hkeys("dramatiq:tasks.p5.msgs")) == [b"3.0", b"4.0"]


def test_a_thousand_messages_are_one_round_trip(broker: WorkerBroker, valkey: Valkey) -> None:
    broker.publish(deliveries(1))
    valkey.client.config_resetstat()
    broker.publish(deliveries(1000, first=2))
    commands = valkey.client.info("commandstats")
    assert commands["cmdstat_evalsha"]["calls"] == 1
    assert commands["cmdstat_publish"]["calls"] == 1
    assert set(commands) == {
        f"cmdstat_{name}" for name in ("evalsha", "hlen", "smembers", "hsetnx", "rpush", "publish", "config|resetstat")
    }


def test_what_was_given_back_can_come_before_all_that_waits(broker: WorkerBroker) -> None:
    broker.publish(deliveries(2))
    assert broker.publish(deliveries(2, first=10), first=True) == 2
    assert [message_id for _, message_id in pull(broker, 9)] == ["11.0", "10.0", "1.0", "2.0"]


def test_more_than_a_thousand_are_published_in_batches(broker: WorkerBroker) -> None:
    assert broker.publish(deliveries(2500)) == 2500
    assert broker.waiting() == [0, 0, 0, 0, 0, 2500, 0, 0, 0, 0]


def test_a_waiting_task_costs_less_than_400_bytes(broker: WorkerBroker, valkey: Valkey) -> None:
    broker.publish(deliveries(1))
    before = valkey.client.info("memory")["used_memory"]
    broker.publish(deliveries(10_000, first=1_000_000_000))
    assert (valkey.client.info("memory")["used_memory"] - before) / 10_000 < 400


def test_holds_tells_what_waits_or_runs(broker: WorkerBroker) -> None:
    broker.publish([*deliveries(1200), *deliveries(1, priority=0, first=2000)])
    pull(broker, 2)
    asked = {0: ["2000.0", "1.0"], 5: [f"{task_id}.0" for task_id in range(1, 1301)]}
    assert broker.holds(asked) == {"2000.0", *(f"{task_id}.0" for task_id in range(1, 1201))}
    assert broker.holds({}) == set()


def test_a_flush_of_the_scripts_is_survived(broker: WorkerBroker, valkey: Valkey) -> None:
    for first in (1, 11):
        assert broker.publish(deliveries(2, first=first)) == 2
        assert len(pull(broker, 2)) == 2
        assert len(broker.holds({5: [f"{first}.0"]})) == 1
        valkey.client.script_flush()


def test_the_weights_hold_over_all_workers_together(broker: WorkerBroker, valkey: Valkey) -> None:
    fill(broker, 5300)
    counts = shares(broker, WorkerBroker(valkey.url), pulls=10_230)
    for priority, weight in enumerate(WEIGHTS):
        assert counts[queue_name(priority)] == pytest.approx(10 * weight, rel=0.1)


def test_the_least_urgent_moves_while_the_most_urgent_is_never_empty(broker: WorkerBroker) -> None:
    fill(broker, 1100, [0, 9])
    assert shares(broker, pulls=1026) == {"tasks.p0": 1024, "tasks.p9": 2}


def test_a_level_that_is_busy_alone_gets_everything(broker: WorkerBroker) -> None:
    fill(broker, 100, [7])
    assert len(pull(broker, 100)) == 100


def test_an_idle_level_earns_no_credit(broker: WorkerBroker) -> None:
    fill(broker, 3000, [0])
    shares(broker, pulls=2000)
    fill(broker, 1000, [1])
    assert shares(broker, pulls=768)["tasks.p1"] == pytest.approx(256, abs=2)


def test_a_level_that_was_busy_alone_owes_no_more_than_one_stride(broker: WorkerBroker) -> None:
    fill(broker, 2000, [9])
    shares(broker, pulls=1500)
    fill(broker, 2000, [0])
    assert shares(broker, pulls=1026)["tasks.p9"] == pytest.approx(2, abs=1)


def test_a_paused_level_gives_nothing_and_earns_no_credit(broker: WorkerBroker) -> None:
    fill(broker, 3000, [0, 1])
    broker.pauses.copy(lambda: {"tasks.p1"})
    assert shares(broker, pulls=1000) == {"tasks.p0": 1000}
    broker.pauses.copy(set)
    assert shares(broker, pulls=768)["tasks.p1"] == pytest.approx(256, abs=2)


def test_a_pause_reaches_a_worker_that_pulls_next_whatever_redis_has_lost(valkey: Valkey) -> None:
    asked: list[set[str] | None] = [{"tasks.p5"}, {"tasks.p5"}, None, set(), set()]
    broker = WorkerBroker(valkey.url, ask_paused=lambda: asked.pop(0))
    valkey.client.flushall()
    broker.publish(deliveries(1))
    assert pull(broker, 1) == [], "paused"
    valkey.client.delete("dramatiq:__paused__")
    assert pull(broker, 1) == [], "not known"
    assert len(pull(broker, 1)) == 1, "not paused"
    assert asked == []


def test_changed_weights_count_at_once(broker: WorkerBroker, valkey: Valkey) -> None:
    fill(broker, 2000, [0, 9])
    shares(WorkerBroker(valkey.url, weights=[1] * 9 + [0.001]), pulls=100)
    assert shares(broker, pulls=1026)["tasks.p9"] == pytest.approx(2, abs=1)


def test_the_most_urgent_of_a_full_house_comes_first(broker: WorkerBroker) -> None:
    fill(broker, 1)
    assert [name for name, _ in pull(broker, 10)] == [queue_name(priority) for priority in range(10)]


def test_only_the_named_queues_are_pulled(broker: WorkerBroker) -> None:
    fill(broker, 2)
    assert [name for name, _ in broker.pull(["tasks.p3", "tasks.p4"], 10).messages] == ["tasks.p3", "tasks.p4"] * 2


def test_an_id_without_message_is_passed_over(broker: WorkerBroker, valkey: Valkey) -> None:
    broker.publish(deliveries(2))
    valkey.client.hdel("dramatiq:tasks.p5.msgs", "1.0")
    assert [message_id for _, message_id in pull(broker, 2)] == ["2.0"]


def test_a_message_given_back_waits_again(broker: WorkerBroker, valkey: Valkey) -> None:
    broker.requeue(*deliver(broker))
    assert broker.waiting()[5] == 1
    assert acks(valkey) == []


def test_acknowledging_what_redis_has_lost_does_nothing(broker: WorkerBroker, valkey: Valkey) -> None:
    pulled = deliver(broker)
    valkey.client.flushall()
    acknowledge(broker, pulled)
    assert broker.waiting()[5] == 0


def test_what_a_dead_worker_had_pulled_comes_back(valkey: Valkey) -> None:
    dead, keeper = (WorkerBroker(valkey.url, heartbeat_timeout=300) for _ in range(2))
    fill(dead, 1)
    pull(dead, 10)
    assert eventually(lambda: keeper.maintain() and keeper.waiting() == [1] * 10)
    assert acks(valkey) == []


def test_what_a_living_worker_has_pulled_stays(valkey: Valkey) -> None:
    alive, keeper = (WorkerBroker(valkey.url, heartbeat_timeout=300) for _ in range(2))
    deliver(alive)
    until = time.monotonic() + 1

    def keep() -> bool:
        alive.beat()
        keeper.maintain()
        return time.monotonic() > until

    eventually(keep)
    assert keeper.waiting() == [0] * 10


@pytest.mark.parametrize("ahead", [-60, 86_400])
def test_a_worker_whose_clock_is_wrong_is_alive_while_it_shows_so(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    alive, keeper = (WorkerBroker(valkey.url, heartbeat_timeout=2_000) for _ in range(2))
    keeper.maintain()
    with monkeypatch.context() as clock:
        clock.setattr("dramatiq.common.time", lambda: time.time() + ahead)
        deliver(alive)
    assert keeper.maintain()
    assert keeper.waiting()[5] == 0
    assert eventually(lambda: keeper.maintain() and keeper.waiting()[5] == 1), "it is dead since"


def test_a_heartbeat_of_the_future_counts_from_now(valkey: Valkey) -> None:
    dead, keeper = (WorkerBroker(valkey.url, heartbeat_timeout=300) for _ in range(2))
    deliver(dead)
    valkey.client.zadd("dramatiq:__heartbeats__", {dead.broker_id: 1000 * (time.time() + 86_400)})
    assert eventually(lambda: keeper.maintain() and keeper.waiting()[5] == 1)


def test_what_a_stock_worker_had_pulled_comes_back(valkey: Valkey) -> None:
    stock, keeper = RedisBroker(client=valkey.client, middleware=[]), WorkerBroker(valkey.url, heartbeat_timeout=300)
    keeper.publish(deliveries(2))
    assert len(stock.do_fetch("tasks.p5", 2)) == 2
    stock.do_ack("tasks.p5", "1.0")
    assert eventually(lambda: keeper.maintain() and keeper.waiting()[5] == 1)
    assert [message_id for _, message_id in pull(keeper, 2)] == ["2.0"]


def test_old_dead_letters_are_deleted(broker: WorkerBroker, valkey: Valkey) -> None:
    broker.nack(*deliver(broker))
    assert not broker.maintain()
    assert broker.maintain()
    assert valkey.client.hlen("dramatiq:tasks.p5.XQ.msgs") == 1
    broker.dead_message_ttl = 1
    assert eventually(lambda: broker.maintain() and not valkey.client.exists("dramatiq:tasks.p5.XQ.msgs"))
    assert not valkey.client.exists("dramatiq:tasks.p5.XQ")


def test_maintenance_goes_on_where_another_scheduler_left_off(valkey: Valkey) -> None:
    first, second = (WorkerBroker(valkey.url, heartbeat_timeout=60_000) for _ in range(2))
    assert [first.maintain(), second.maintain()] == [False, True]


def test_maintenance_skips_the_round_after_a_pause(valkey: Valkey) -> None:
    keeper = WorkerBroker(valkey.url, heartbeat_timeout=300)
    assert [keeper.maintain(), keeper.maintain()] == [False, True]
    until = time.monotonic() + 0.2
    eventually(lambda: time.monotonic() > until)
    assert [keeper.maintain(), keeper.maintain()] == [False, True]


def test_it_is_made_without_redis_and_fails_fast() -> None:
    broker = WorkerBroker("unix:///nowhere/socket")
    for call in (broker.ping, broker.waiting, broker.maintain, lambda: broker.publish(deliveries(1))):
        with pytest.raises(redis.RedisError):
            call()


def test_there_are_ten_queues_and_no_others(broker: WorkerBroker) -> None:
    assert broker.get_declared_queues() == {f"tasks.p{priority}" for priority in range(10)}
    assert broker.get_declared_delay_queues() == set()
    with pytest.raises(ValueError, match="'default': the queues are"):
        dramatiq.actor(print, broker=broker)
