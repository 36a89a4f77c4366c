"""Lanes against a real Valkey: groups take turns, and limits hold."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from scheduler_app.broker import Delivery
from scheduler_app.broker.limits import State
from scheduler_app.limits import Limit, Rate
from tests.support.lanes import Ids, Lanes, Played, ids, standing
from tests.support.processes import eventually
from tests.support.servers import Valkey


@pytest.fixture
def lanes(valkey: Valkey) -> Lanes:
    return Lanes(valkey.url)


def test_groups_take_turns_whatever_each_has_waiting(lanes: Lanes) -> None:
    lanes.post(*range(1, 10_001), group="big")
    lanes.post(*range(20_001, 20_011), group="small")
    lanes.post(*range(30_001, 30_011))
    first = [int(id_.partition(".")[0]) for id_ in lanes.take(30)]
    assert Counter(task_id // 10_000 for task_id in first) == {0: 10, 2: 10, 3: 10}
    assert first[:6] == [30_001, 1, 20_001, 30_002, 2, 20_002]
    assert lanes.waiting()[5] == 10_000 - 10


def test_a_group_keeps_its_order(lanes: Lanes) -> None:
    lanes.post(3, 1, 2, group="a")
    assert lanes.take(3) == ids(3, 1, 2)


def test_a_new_group_waits_for_one_round(lanes: Lanes) -> None:
    lanes.post(*range(1, 6), group="a")
    lanes.post(*range(11, 16), group="b")
    assert lanes.take(3) == ids(1, 11, 2)
    lanes.post(21, group="c")
    assert lanes.take(3) == ids(12, 3, 21)


@pytest.mark.parametrize("seed", range(10))
def test_a_pull_of_many_brings_what_as_many_pulls_of_one_bring(seed: int, lanes: Lanes, valkey: Valkey) -> None:
    orders = []
    for whole in (True, False):
        valkey.client.flushall()
        if seed % 2:  # then more is read of each message
            lanes.limit(Limit(1, name="fetch"))
        played = Played(seed, lanes, valkey, whole=whole)
        played.play(100)
        assert not valkey.client.keys("*.lane*")
        orders.append(played.order)
    assert orders[0] == orders[1]


def test_a_lost_message_holds_up_none_of_its_limit(lanes: Lanes, valkey: Valkey) -> None:
    lanes.limit(Limit(1, name="fetch"))
    lanes.post(1, 2)
    valkey.client.hdel("dramatiq:tasks.p5.msgs", "1.0")
    assert lanes.take(5) == ids(2)
    assert lanes.slots() == 1


def test_a_limit_holds_and_a_slot_that_is_free_is_used(lanes: Lanes) -> None:
    lanes.limit(Limit(2, name="fetch"))
    lanes.post(1, 2, 3, 4)
    assert lanes.take(10) == ids(1, 2)
    assert lanes.take(10) == []
    assert lanes.take(10, done=ids(1)) == ids(3)
    assert lanes.take(10, done=ids(2, 3)) == ids(4)
    assert lanes.take(10, done=ids(4)) == []
    assert lanes.slots() == 0


def test_a_limit_per_group_counts_for_each(lanes: Lanes) -> None:
    lanes.limit(Limit(1, per="group", name="fetch:group"))
    for group in range(3):
        lanes.post(10 * group + 1, 10 * group + 2, group=f"g{group}")
    lanes.post(91, 92)
    assert sorted(lanes.take(10)) == ids(1, 11, 21, 91)
    assert lanes.take(10, done=ids(11)) == ids(12)
    assert lanes.take(10, done=ids(91)) == ids(92)


def test_all_limits_must_have_room_and_no_slot_stays_unused(lanes: Lanes) -> None:
    lanes.limit(Limit(3, name="fetch"), Limit(1, per="group", name="fetch:group"))
    for group in range(4):
        lanes.post(*range(10 * group + 1, 10 * group + 4), group=f"g{group}")
    assert lanes.take(10) == ids(1, 11, 21)
    assert lanes.take(10, done=ids(1)) == ids(31), "g0 may go on, but g3 has waited longer for the slot of all"
    assert lanes.take(10, done=ids(11)) == ids(2)
    assert sorted(lanes.take(10, done=ids(31, 21))) == ids(12, 22)


def test_other_operations_pass_those_that_are_held_up(lanes: Lanes) -> None:
    lanes.limit(Limit(1, name="fetch"))
    lanes.post(1, 2, 3)
    lanes.post(11, 12, operation="other")
    assert sorted(lanes.take(10)) == ids(1, 11, 12)


def test_while_there_is_little_room_no_more_come_than_threads_are_idle(lanes: Lanes) -> None:
    lanes.limit(Limit(10, name="fetch"))
    lanes.post(*range(1, 21))
    assert len(lanes.take(20, idle=2)) == 5 + 2, "half of the room is for any, then one for each idle thread"
    pulled = lanes.pull([*lanes.weights], 20, idle=0)
    assert (pulled.messages, pulled.wait) == ([], 0)
    assert len(lanes.take(20, idle=20)) == 3


def test_limited_ones_come_first_and_are_counted(lanes: Lanes) -> None:
    lanes.limit(Limit(10, name="fetch"))
    lanes.post(1, 2, operation="other")
    lanes.post(3)
    pulled = lanes.pull([*lanes.weights], 10)
    assert [id_ for _, id_ in pulled.messages] == ids(3, 1, 2)
    assert (pulled.limited, pulled.epoch) == (1, Lanes.epochs)


def test_what_goes_back_frees_its_slot(lanes: Lanes) -> None:
    lanes.limit(Limit(1, name="fetch"))
    lanes.post(1, 2)
    assert lanes.take() == ids(1)
    lanes.requeue("tasks.p5", "1.0")
    assert lanes.take(5) == ids(2)
    lanes.nack("tasks.p5", "2.0")
    assert lanes.take(5) == ids(1)


def test_what_a_dead_worker_had_frees_its_slots(valkey: Valkey, lanes: Lanes) -> None:
    dead = Lanes(valkey.url, heartbeat_timeout=300)
    dead.limit(Limit(1, name="fetch"))
    dead.post(1, 2, group="a")
    assert dead.take() == ids(1)
    patient = Lanes(valkey.url, heartbeat_timeout=300)
    eventually(lambda: patient.maintain() and patient.waiting()[5] == 2, within=5)
    assert lanes.take(5) == ids(2)
    assert lanes.take(5, done=ids(2)) == ids(1)


def test_a_new_limit_counts_for_what_waits_and_for_what_runs(lanes: Lanes) -> None:
    lanes.post(*range(1, 1501))
    lanes.post(2001, 2002, group="a")
    lanes.post(3001, operation="other")
    assert lanes.take() == ids(1)
    lanes.limit(Limit(2, name="fetch"), running=[("1.0", "fetch", "")])
    taken: Ids = []
    eventually(lambda: taken.extend(lanes.take(10)) or len(taken) == 2)
    assert "3001.0" in taken
    assert lanes.take(10) == []
    assert lanes.waiting()[5] == 1500


def test_a_limit_that_is_gone_holds_nothing_up(lanes: Lanes) -> None:
    lanes.limit(Limit(1, name="fetch"))
    lanes.post(*range(1, 6))
    lanes.post(11, 12, group="a")
    assert lanes.take(10) == ids(1)
    lanes.limit()
    lanes.limits.sweep()
    taken: Ids = []
    eventually(lambda: taken.extend(lanes.take(10)) or len(taken) == 6)
    assert lanes.waiting()[5] == 0


def test_a_raised_limit_wakes_those_that_wait(lanes: Lanes) -> None:
    lanes.limit(Limit(1, per="operation", name="fetch"))
    for group in range(20):
        lanes.post(group + 1, group=f"g{group}")
    assert len(lanes.take(50)) == 1
    lanes.limit(Limit(10, name="fetch"), running=[("1.0", "fetch", "g0")])
    assert lanes.limits.sweep()[0] == 9
    assert len(lanes.take(50)) == 9


def test_slots_close_when_redis_was_restarted_until_they_are_counted(own_valkey: Valkey) -> None:
    lanes, valkey = Lanes(own_valkey.url), own_valkey
    lanes.limit(Limit(2, name="fetch"))
    lanes.post(1, 2, 3)
    assert lanes.take() == ids(1)
    valkey.kill()
    valkey.start()
    assert lanes.limits.state() is None
    assert lanes.take(5) == []
    lanes.limit(Limit(2, name="fetch"), running=[("1.0", "fetch", "")])
    assert lanes.take(5) == ids(2)


def test_without_the_copy_of_the_limits_nothing_is_pulled(valkey: Valkey) -> None:
    asked: list[str] = []
    lanes = Lanes(valkey.url, ask_limits=lambda: asked.append("asked"))
    lanes.post(1)
    assert lanes.take() == []
    assert asked == ["asked"]
    lanes.limit()
    assert lanes.take() == ids(1)


def test_slots_that_nobody_holds_are_found(lanes: Lanes) -> None:
    lanes.limit(Limit(2, name="fetch"), running=[("7.0", "fetch", "a"), ("8.0", "fetch", "a")])
    lanes.post(1)
    assert lanes.take() == []
    assert sorted(lanes.limits.sweep()[1]) == ids(7, 8)
    lanes.limits.free(ids(7))
    assert lanes.take() == ids(1)
    assert lanes.limits.sweep()[1] == ids(8)


def test_a_slot_that_was_counted_is_not_freed_by_who_finds_its_message_out_of_date(lanes: Lanes) -> None:
    """Redis has lost the pull of a message: it runs in one worker, and waits for another one."""
    lanes.post(1, 2)
    lanes.limit(Limit(2, name="fetch"), running=[("1.0", "fetch", ""), ("9.0", "fetch", "")])
    lanes.limits.free(ids(9))
    assert lanes.take(5) == ids(1, 2)
    assert lanes.take(5, done=ids(1)) == []
    assert lanes.slots() == 2
    lanes.limits.free(ids(1))
    assert lanes.slots() == 1


def test_an_older_epoch_changes_nothing(lanes: Lanes) -> None:
    lanes.limit(Limit(2, name="fetch"))
    assert not lanes.limits.open(State(0, ""), {}, [])
    assert lanes.limits.state() == State(Lanes.epochs, "")


def test_an_epoch_begins_once(lanes: Lanes) -> None:
    """Two processes open it, perhaps with other limits in their code: what began in between keeps its slot."""
    lanes.post(1, 2)
    lanes.limit(Limit(1, name="fetch"))
    assert lanes.take(5) == ids(1)
    limits = {"fetch": [Limit(1, name="fetch").for_scripts()]}
    assert not lanes.limits.open(State(Lanes.epochs, "another"), limits, [])
    assert lanes.limits.state() == State(Lanes.epochs, "")
    assert lanes.slots() == 1
    assert lanes.take(5) == []


def test_an_epoch_begins_again_when_redis_has_lost_its_limits(lanes: Lanes, valkey: Valkey) -> None:
    lanes.limit(Limit(1, name="fetch"))
    valkey.client.delete("dramatiq:__limits__")
    assert lanes.limits.open(State(Lanes.epochs, ""), {}, [])


def test_slots_of_a_paused_queue_go_to_others(lanes: Lanes) -> None:
    lanes.limit(Limit(1, name="fetch"))
    lanes.post(1, 2, priority=3)
    lanes.post(11, priority=5)
    assert lanes.take(5, priority=3) == ids(1)
    lanes.pauses.copy(lambda: {"tasks.p3"})
    assert lanes.take(5, done=ids(1), priority=3) == ids(11)


def test_a_release_wakes_who_waits(lanes: Lanes, valkey: Valkey) -> None:
    lanes.limit(Limit(1, name="fetch"))
    lanes.post(1, 2)
    lanes.take(5)
    with valkey.client.pubsub() as heard:
        heard.subscribe("dramatiq:__wake_up__")
        assert heard.get_message(timeout=5)
        lanes.take(0, done=ids(1))
        told = heard.get_message(timeout=5)
    assert told is not None
    assert told["type"] == "message"


@pytest.mark.parametrize("lose", [".lane.|a", ".heads", ".ring", ".lane.|a .heads", ".heads .ring"])
@pytest.mark.parametrize("more", [[], [(201, "a")], [(201, "c"), (202, "a"), (203, "a"), (204, "b"), (205, "c")]])
@pytest.mark.parametrize("first", [False, True])
def test_a_lane_or_a_ring_that_is_lost_comes_back(
    lanes: Lanes, valkey: Valkey, lose: str, more: list[tuple[int, str]], first: bool
) -> None:
    lanes.post(*range(1, 51), group="a")
    lanes.post(101, group="b")
    lanes.post(102, 103, group="d")
    assert valkey.client.delete(*(f"dramatiq:tasks.p5{end}" for end in lose.split()))
    lanes.publish([Delivery(id_, 0, "fetch", 5, group) for id_, group in more], first=first)
    taken: Ids = []

    def all_come() -> bool:
        taken.extend(lanes.take(7))
        lanes.lists.restore()
        return lanes.waiting()[5] == 0 and len(taken) >= 53 + len(more)

    eventually(all_come)
    assert sorted(taken) == sorted(ids(*range(1, 51), 101, 102, 103, *dict(more)))
    assert standing(valkey) == {}
    assert not valkey.client.keys("*.lane*")


@pytest.mark.parametrize(
    "meet",
    [
        lambda lanes: lanes.take(1),
        lambda lanes: lanes.post(201, group="a"),
        lambda lanes: lanes.publish([Delivery(201, 0, "fetch", 5, "a")], first=True),
        lambda lanes: lanes.discard(5, ids(1)),
    ],
)
def test_a_list_that_is_lost_comes_back_while_others_wait(
    lanes: Lanes, valkey: Valkey, meet: Callable[[Lanes], object]
) -> None:
    lanes.post(*range(1, 51), group="a")
    lanes.post(*range(101, 151), group="b")
    assert valkey.client.delete("dramatiq:tasks.p5.lane.|a")
    meet(lanes)
    assert lanes.lists.restore() == 49
    assert lanes.lists.restore() == 0
    assert lanes.waiting()[5] == sum(map(len, standing(valkey).values()))


def test_what_a_list_has_lost_comes_back_when_no_lane_has_more(lanes: Lanes, valkey: Valkey) -> None:
    lanes.post(*range(1, 51), group="a")
    valkey.client.ltrim("dramatiq:tasks.p5.lane.|a", 1, -2)
    assert len(lanes.take(100)) == 48
    assert lanes.lists.restore() == 2
    assert sorted(lanes.take(100)) == ids(2, 50)


def test_discarded_messages_leave_their_lanes(lanes: Lanes, valkey: Valkey) -> None:
    lanes.limit(Limit(1, name="fetch"))
    lanes.post(1, 2, 3, group="a")
    lanes.post(4, group="b")
    assert lanes.take() == ids(1)
    assert lanes.discard(5, ids(2, 3)) == 2
    assert lanes.lists.restore() == 0
    assert lanes.take(5, done=ids(1)) == ids(4)


def test_a_message_that_goes_first_is_the_first_of_its_group(lanes: Lanes) -> None:
    lanes.post(1, 2, group="a")
    lanes.publish([Delivery(3, 0, "fetch", 5, "a")], first=True)
    assert lanes.take(3) == ids(3, 1, 2)


def test_its_place_says_which_limit_it_waits_for(lanes: Lanes) -> None:
    lanes.limit(Limit(1, name="one"), Limit(rate=Rate(1, seconds=60), per="group", name="slow"))
    lanes.post(1, 2, 3, group="a")
    lanes.take(5)
    place = lanes.place(5, "3.0")
    assert place is not None
    assert (place.ahead, place.limit) == (2, "slow")
    assert place.seconds is not None
    assert 50 < place.seconds <= 60


def test_many_groups_leave_nothing_behind(lanes: Lanes, valkey: Valkey) -> None:
    lanes.limit(Limit(5, per="group", name="fetch:group"))
    lanes.take()
    before = set(valkey.client.scan_iter())
    for first in range(0, 5000, 1000):
        for number in range(first, first + 1000):
            lanes.post(number + 1, group=f"customer-{number}")
    taken = lanes.take(5000)
    assert len(taken) == 5000
    lanes.take(0, done=taken)
    assert lanes.lists.restore() == 0
    left = set(valkey.client.scan_iter()) - before
    assert {key for key in left if b"lane" in key or b"slots" in key or b"ring" in key or b"wait" in key} == set()


def test_a_thousand_held_up_lanes_do_not_hide_one_that_is_free(lanes: Lanes) -> None:
    lanes.limit(Limit(1, per="group", name="fetch:group"))
    for number in range(1000):
        lanes.post(2 * number + 1, 2 * number + 2, group=f"g{number}")
    taken = lanes.take(1000)
    assert len(taken) == 1000
    lanes.post(5001, group="new")

    def new_one() -> Any:
        return "5001.0" in lanes.take(5)

    eventually(new_one)
