"""Rates against a real Valkey, by its clock."""

import time

import pytest

from scheduler_app.limits import Limit, Rate
from tests.support.lanes import Lanes, ids
from tests.support.processes import eventually
from tests.support.servers import Valkey


@pytest.fixture
def lanes(valkey: Valkey) -> Lanes:
    return Lanes(valkey.url)


def test_a_rate_holds_by_the_clock_of_redis(lanes: Lanes) -> None:
    lanes.limit(Limit(rate=Rate(20, seconds=1, burst=2), name="fetch"))
    lanes.post(*range(1, 200))
    began, taken = time.monotonic(), 0
    while taken < 30:
        pulled = lanes.pull([*lanes.weights], 50)
        taken += len(pulled.messages)
        assert pulled.wait is not None
        assert pulled.wait <= 1 / 20
        time.sleep(pulled.wait)
    assert time.monotonic() - began > 29 / 20, "the bucket was empty at the beginning"


def test_a_rate_makes_up_for_a_worker_that_comes_late(lanes: Lanes) -> None:
    lanes.limit(Limit(rate=Rate(10, seconds=1), name="fetch"))
    lanes.post(1, 2, 3)
    eventually(lambda: lanes.take() == ids(1))
    time.sleep(0.13)  # the clock that counts is Redis' own
    pulled = lanes.pull([*lanes.weights], 5)
    assert [id_ for _, id_ in pulled.messages] == ids(2)
    assert pulled.wait is not None
    assert 0.05 <= pulled.wait <= 0.07, "the third comes no more than half a turn early"


def test_what_does_not_begin_takes_nothing_from_the_rate(lanes: Lanes) -> None:
    lanes.limit(Limit(rate=Rate(10, seconds=1), name="fetch"))
    lanes.post(1, 2, 3)
    eventually(lambda: lanes.take() == ids(1))
    lanes.limits.refund([("tasks.p5", "1.0")])
    assert lanes.take(5, done=ids(1)) == ids(2)
    lanes.requeue("tasks.p5", "2.0")
    assert lanes.take() == ids(3)


def test_the_bucket_of_a_new_limit_is_empty_and_then_holds_a_burst(lanes: Lanes, valkey: Valkey) -> None:
    lanes.limit(Limit(rate=Rate(10, seconds=1, burst=3), name="fetch"))
    lanes.post(*range(1, 10))
    assert lanes.take(5) == []
    time.sleep(0.45)  # the clock that counts is Redis' own
    assert len(lanes.take(5)) == 3
