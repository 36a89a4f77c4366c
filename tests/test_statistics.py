"""What pages read of the history: series, totals, quantiles, and the share that each priority got and was due."""

from collections import Counter
from datetime import timedelta
from itertools import pairwise

import pytest

from scheduler_app.extensions import db
from scheduler_app.models import Depth, Status
from scheduler_app.services import statistics
from scheduler_app.services.spans import KEPT, begin_of
from scheduler_app.services.statistics import Period, fair_parts, quantile
from tests.test_history import LATER, NOW, SECOND, end, roll_up

pytestmark = pytest.mark.usefixtures("context")


@pytest.mark.parametrize(("period", "slices"), [(Period.HOUR, 60), (Period.DAY, 96), (Period.MONTH, 120)])
def test_a_series_has_every_slice_of_its_period(period: Period, slices: int) -> None:
    end(3)
    end(2, at=NOW - timedelta(minutes=20), status=Status.ERROR)
    roll_up()
    found = statistics.series(period, now=LATER)
    assert len(found) == slices
    begins = [one["begins_at"] for one in found]
    assert {later - earlier for earlier, later in pairwise(begins)} == {begins[1] - begins[0]}
    assert begins[-1] <= LATER < begins[-1] + timedelta(seconds=found[-1]["seconds"])
    assert (sum(one["finished"] for one in found), sum(one["failed"] for one in found)) == (5, 2)
    assert sum(one["created"] for one in found) == 5
    assert (found[-1]["complete"], found[0]["complete"]) == (False, True)


def test_a_series_can_be_of_one_operation_and_one_priority() -> None:
    end(3, priority=1)
    end(2, priority=1, operation="http_request")
    end(1)
    roll_up()
    assert [
        sum(one["finished"] for one in statistics.series(Period.HOUR, now=LATER, **chosen))
        for chosen in ({}, {"priority": 1}, {"operation": "calculate"}, {"priority": 5, "operation": "http_request"})
    ] == [6, 5, 4, 0]


def test_quantiles_are_near_the_durations() -> None:
    for seconds in range(1, 101):
        end(waited=seconds * SECOND, ran=timedelta(milliseconds=seconds))
    roll_up()
    totals = statistics.totals(Period.DAY, now=LATER)
    assert totals["waiting_p50"] == pytest.approx(50, rel=0.25)
    assert totals["waiting_p95"] == pytest.approx(95, rel=0.25)
    assert totals["running_p50"] == pytest.approx(0.05, rel=0.25)
    assert totals["running_p95"] == pytest.approx(0.095, rel=0.25)


def test_nothing_has_no_quantile() -> None:
    assert quantile(Counter(), 0.5) is None
    assert statistics.totals(Period.HOUR, now=NOW)["waiting_p95"] is None


def test_operations_have_their_rates_and_those_that_fail_most_come_first() -> None:
    end(90, operation="shop.mail")
    end(10, operation="shop.mail", status=Status.ERROR)
    end(20, operation="shop.invoice", status=Status.ERROR)
    end(5)
    roll_up()
    found = statistics.by_operation(Period.HOUR, now=LATER)
    assert {name: (one["finished"], one["failed"], one["failed_share"]) for name, one in found.items()} == {
        "calculate": (5, 0, 0),
        "shop.invoice": (20, 20, 1),
        "shop.mail": (100, 10, 0.1),
    }
    assert found["shop.mail"]["per_minute"] == pytest.approx(100 / 60)
    top = statistics.top_failing(Period.HOUR, now=LATER)
    assert [(one["operation"], one["failed"]) for one in top] == [("shop.invoice", 20), ("shop.mail", 10)]
    assert len(statistics.top_failing(Period.HOUR, now=LATER, limit=1)) == 1


def waiting(tasks: int, priority: int) -> None:
    for span in KEPT:
        begin = begin_of(LATER, span)
        row = Depth(span=span, begins_at=begin, priority=priority, waiting=tasks, running=1, oldest_seconds=2.5)
        db.session.add(row)
    db.session.commit()


def test_a_priority_is_due_no_more_than_it_had_to_do() -> None:
    end(10, priority=0)
    end(60, priority=5)
    end(30, priority=6)
    waiting(500, priority=5)
    waiting(500, priority=6)
    roll_up()
    found = {one["priority"]: (one["got"], one["due"]) for one in statistics.by_priority(Period.HOUR, now=LATER)}
    assert found[0] == (0.1, pytest.approx(0.1)), "by its weight it could have had nearly all"
    assert found[5] == (0.6, pytest.approx(0.6))
    assert found[6] == (0.3, pytest.approx(0.3))
    assert found[9] == (0, 0)


@pytest.mark.parametrize(
    ("wanted", "parts"),
    [([100, 100, 100], [60, 30, 10]), ([0, 100, 100], [0, 75, 25]), ([10, 100, 0], [10, 90, 0]), ([0, 0, 0], [0] * 3)],
)
def test_what_one_does_not_want_goes_to_the_others_by_weight(wanted: list[float], parts: list[float]) -> None:
    assert fair_parts(100, wanted, [6, 3, 1]) == pytest.approx(parts)


def test_the_depth_has_every_slice_of_every_priority() -> None:
    waiting(7, priority=3)
    for period, slices in {Period.HOUR: 60, Period.DAY: 96, Period.MONTH: 120}.items():
        found = statistics.depth(period, now=LATER)
        assert {len(one) for one in found.values()} == {slices}
        assert sorted(found) == list(range(10))
        last = found[3][-1]
        assert (last["waiting"], last["running"], last["oldest_seconds"]) == (7, 1, 2.5)
        assert found[3][0]["waiting"] == found[4][-1]["waiting"] == 0


def test_the_rates_are_of_the_minute_that_was_counted_last() -> None:
    end(30, at=NOW)
    end(30, at=NOW - timedelta(minutes=5))
    roll_up(NOW + 15 * SECOND)
    assert statistics.rates(now=NOW + 15 * SECOND) == {"in": 30, "out": 30}
    assert statistics.rates(now=NOW + 15 * SECOND, priority=4) == {"in": 0, "out": 0}
