"""Rules against oracles that share no code with them: minutes counted one by one, and dateutil for RRULE."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice, pairwise, takewhile

import pytest
from dateutil.rrule import rrulestr
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from scheduler_app.recurrence import Rule, between, interval, latest, next_after, upcoming, zone

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
YEARS = {  # whose clock changes are tried
    "America/New_York": (2024, 2030),
    "Europe/Bucharest": (2024, 2030),
    "Australia/Lord_Howe": (2024, 2030),  # shifts by half an hour
    "Africa/Casablanca": (2024, 2030),  # shifts for Ramadan
    "America/Sao_Paulo": (2017, 2018),  # shifted at midnight
    "Pacific/Apia": (2011, 2011),  # had no 30 December
}
exactly = settings(derandomize=True, max_examples=150)


@cache
def clock_changes(name: str) -> list[datetime]:
    """The hours, in UTC, after which the offset is another."""
    first, last = YEARS.get(name, (2024, 2030))
    start, end = datetime(first, 1, 1, tzinfo=UTC), datetime(last + 1, 1, 1, tzinfo=UTC)
    hours = [start + number * HOUR for number in range((end - start) // HOUR)]
    offsets = [hour.astimezone(zone(name)).utcoffset() for hour in hours]
    return [hour for hour, (before, after) in zip(hours, pairwise(offsets), strict=False) if before != after]


CHANGES = [(name, change) for name in YEARS for change in clock_changes(name)]
NO_CHANGES = [("Asia/Kathmandu", datetime(2026, 2, 27, tzinfo=UTC)), ("UTC", datetime(2028, 2, 28, tzinfo=UTC))]
places = st.sampled_from(CHANGES + NO_CHANGES)


@cache
def minutes_around(name: str, moment: datetime) -> list[tuple[datetime, datetime]]:
    """Each minute of three days, in UTC and as the local clock shows it."""
    start = moment - 36 * HOUR
    utc = [start + number * MINUTE for number in range(3 * 24 * 60)]
    return [(minute, minute.astimezone(zone(name)).replace(tzinfo=None)) for minute in utc]


def field_values(text: str, low: int, high: int) -> set[int]:
    values: set[int] = set()
    for item in text.split(","):
        bounds, _, step = item.partition("/")
        start, _, stop = f"{low}-{high}".partition("-") if bounds == "*" else bounds.partition("-")
        values |= set(range(int(start), int(stop or start) + 1, int(step or 1)))
    return values


def cron_matcher(text: str) -> Callable[[datetime], bool]:
    minute, hour, day, month, weekday = text.split()
    minutes, hours, days = field_values(minute, 0, 59), field_values(hour, 0, 23), field_values(day, 1, 31)
    months, weekdays = field_values(month, 1, 12), {value % 7 for value in field_values(weekday, 0, 7)}
    either = "*" not in (day[0], weekday[0])

    def matches(local: datetime) -> bool:
        on_days = (local.day in days, local.isoweekday() % 7 in weekdays)
        on_day = any(on_days) if either else all(on_days)
        return on_day and local.month in months and local.hour in hours and local.minute in minutes

    return matches


def cron_oracle(text: str, around: list[tuple[datetime, datetime]]) -> list[datetime]:
    matches = cron_matcher(text)
    if len(field_values(text.split()[1], 0, 23)) == 24:
        return [utc for utc, local in around if matches(local)]
    times, shown_until = [], around[0][1] - MINUTE  # the latest that the clock has shown so far
    for utc, local in around:
        new = range((local - shown_until) // MINUTE)  # none while the clock repeats an hour, many after a gap
        if any(matches(local - number * MINUTE) for number in new):
            times.append(utc)
        shown_until = max(shown_until, local)
    return times


def assert_cron_is_exact(text: str, name: str, change: datetime) -> None:
    around = minutes_around(name, change)
    start, end = around[0][0], around[-1][0] + MINUTE
    rule = Rule(cron=text, timezone=name, anchor=start)
    times = between(rule, start, end, 10_000)
    assert times == cron_oracle(text, around)
    assert latest(rule, start - MINUTE, end - MINUTE) == (times[-1] if times else None, len(times))


EVERYDAY = ["* * * * *", "*/15 * * * *", "0 * * * *", "45 0-23 * * *", "30 2 * * *", "30 1,2 * * *", "0 */2 * * *"]
NIGHTLY = ["*/10 0-3 * * *", "0 0 * * *", "59 23 * * *", "20 3 * * 0", "15 1,2,3 1-7 * 0"]


@pytest.mark.parametrize("name", YEARS)
@pytest.mark.parametrize("text", EVERYDAY + NIGHTLY)
def test_cron_is_exact_across_every_clock_change(text: str, name: str) -> None:
    assert clock_changes(name)
    for change in clock_changes(name):
        assert_cron_is_exact(text, name, change)


def cron_field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    ranges = st.tuples(number, number).map(lambda ends: f"{min(ends)}-{max(ends)}")
    several = st.lists(number, min_size=2, max_size=2, unique=True).map(lambda ends: f"{min(ends)}-{max(ends)}")
    stepped = st.tuples(st.just("*") | several, st.integers(1, 20)).map(lambda item: f"{item[0]}/{item[1]}")
    items = st.lists(number.map(str) | ranges | stepped, min_size=1, max_size=3).map(",".join)
    return st.just("*") | items


months = st.just("*") | st.lists(st.integers(1, 12), min_size=6, unique=True).map(lambda some: ",".join(map(str, some)))
crons = st.tuples(cron_field(0, 59), cron_field(0, 23), cron_field(1, 28), months, cron_field(0, 7)).map(" ".join)


@given(crons, places)
@exactly
def test_cron_is_what_counting_minutes_finds(text: str, place: tuple[str, datetime]) -> None:
    assert_cron_is_exact(text, *place)


def first_moment(wall: datetime, name: str) -> datetime:
    """The first minute at which the local clock has reached `wall`."""
    near = [(wall + shift).replace(tzinfo=UTC).astimezone(zone(name)).utcoffset() for shift in (-36 * HOUR, 36 * HOUR)]
    moment = wall.replace(tzinfo=UTC) - max(offset for offset in near if offset is not None)
    while moment.astimezone(zone(name)).replace(tzinfo=None) < wall:
        moment += MINUTE
    return moment


def numbers(low: int, high: int, size: int = 3) -> st.SearchStrategy[str]:
    some = st.lists(st.integers(low, high).filter(bool), min_size=1, max_size=size, unique=True)
    return some.map(lambda values: ",".join(map(str, values)))


weekdays = st.lists(st.sampled_from(["MO", "TU", "WE", "TH", "FR", "SA", "SU"]), min_size=1, unique=True).map(",".join)
nth_weekdays = st.tuples(st.sampled_from([1, 2, 3, 4, -1, -2, -4]), weekdays.map(lambda days: days[:2]))
nth_weekday = nth_weekdays.map(lambda day: f"{day[0]}{day[1]}")
intervals = st.sampled_from([1, 1, 2, 3, 5])


@st.composite
def rrules(draw: st.DrawFn) -> str:
    """Rules that fire within a few years: dateutil would search to the year 9999 for others."""
    freq = draw(st.sampled_from(["YEARLY", "MONTHLY", "WEEKLY", "DAILY"]))
    parts = {"FREQ": freq, "INTERVAL": str(draw(intervals)), "WKST": draw(st.sampled_from(["MO", "SU", "TH"]))}
    days = {
        "YEARLY": {"BYMONTHDAY": numbers(-28, 28), "BYYEARDAY": numbers(-365, 365), "BYDAY": nth_weekday | weekdays},
        "MONTHLY": {"BYMONTHDAY": numbers(-28, 28), "BYDAY": nth_weekday | weekdays},
        "WEEKLY": {"BYDAY": weekdays},
        "DAILY": {"BYDAY": weekdays, "BYMONTHDAY": numbers(-28, 28, 5)},
    }[freq]
    if draw(st.booleans()):
        key = draw(st.sampled_from(sorted(days)))
        parts[key] = draw(days[key])
    if "BYYEARDAY" not in parts and parts["INTERVAL"] in "15" and draw(st.booleans()):
        parts["BYMONTH"] = draw(numbers(1, 12))
    if draw(st.booleans()):
        parts |= {"BYHOUR": draw(numbers(0, 23)), "BYMINUTE": draw(numbers(0, 59))}
    if freq in ("YEARLY", "MONTHLY") and len(parts) > 3 and draw(st.booleans()):
        parts["BYSETPOS"] = draw(st.sampled_from(["1", "-1", "1,-1"]))
    return ";".join(f"{key}={value}" for key, value in parts.items())


def increasing(moments: Iterator[datetime], first: datetime) -> Iterator[datetime]:
    last = first - MINUTE
    for moment in moments:
        if moment > last:
            yield moment
            last = moment


@given(rrules(), places, st.integers(0, 3 * 24 * 60), st.sampled_from(["", ";COUNT=7"]))
@exactly
def test_rrule_is_what_dateutil_finds_on_the_local_clock(
    text: str, place: tuple[str, datetime], minutes: int, ending: str
) -> None:
    name, change = place
    anchor = change - 36 * HOUR + minutes * MINUTE
    dtstart = anchor.astimezone(zone(name)).replace(tzinfo=None)
    walls = takewhile(lambda wall: wall.year < dtstart.year + 20, rrulestr(text, dtstart=dtstart))
    moments = (moment for moment in (first_moment(wall, name) for wall in walls) if moment >= anchor)
    expected = list(islice(increasing(moments, anchor), 7 if ending else 12))
    assume(len(expected) > 6)
    rule = Rule(rrule=text + ending, timezone=name, anchor=anchor)
    assert upcoming(rule, anchor - HOUR, 12)[: len(expected)] == expected
    assert not ending or next_after(rule, expected[-1]) is None


@st.composite
def real_time_rules(draw: st.DrawFn) -> tuple[timedelta, dict[str, set[int]], str]:
    step = draw(st.sampled_from([HOUR, MINUTE]))
    most = 30 if step == HOUR else 200
    every = draw(st.integers(1, most))
    values = {"BYHOUR": st.integers(0, 23), "BYMINUTE": st.integers(0, 59), "BYMONTHDAY": st.integers(1, 28)}
    keys = draw(st.sets(st.sampled_from(sorted(values))))
    parts = {key: draw(st.sets(values[key], min_size=1)) for key in keys}
    written = [f"{key}={','.join(map(str, sorted(some)))}" for key, some in parts.items()]
    freq = "HOURLY" if step == HOUR else "MINUTELY"
    return every * step, parts, ";".join([f"FREQ={freq}", f"INTERVAL={every}", *written])


@given(real_time_rules(), places, st.integers(0, 59), st.sampled_from([0, 183]))
@exactly
def test_rrule_below_a_day_counts_real_time(
    drawn: tuple[timedelta, dict[str, set[int]], str], place: tuple[str, datetime], minute: int, days_ago: int
) -> None:
    (step, parts, text), (name, change) = drawn, place
    around = minutes_around(name, change)
    anchor = around[minute][0] - days_ago * DAY
    start_of_hour = anchor - anchor.astimezone(zone(name)).minute * MINUTE
    by_hour = text.startswith("FREQ=HOURLY") and "BYMINUTE" in parts

    def fires(utc: datetime, local: datetime) -> bool:
        counted = (utc - start_of_hour) % step < HOUR if by_hour else (utc - anchor) % step == timedelta(0)
        shown = {"BYHOUR": local.hour, "BYMINUTE": local.minute, "BYMONTHDAY": local.day}
        return utc >= anchor and counted and all(shown[key] in values for key, values in parts.items())

    rule = Rule(rrule=text, timezone=name, anchor=anchor)
    expected = [utc for utc, local in around if fires(utc, local)]
    assert between(rule, around[0][0], around[-1][0] + MINUTE, 10_000) == expected


@given(st.integers(1, 400), st.none() | st.integers(1, 9_000), st.integers(-500, 20_000), st.integers(0, 90 * 24))
@exactly
def test_intervals_are_counted_from_the_anchor(days: int, hours: int | None, since: int, window: int) -> None:
    every = interval(days, hours)
    assert every == max(days * DAY, (hours or 0) * HOUR)
    anchor = datetime(2026, 3, 1, 10, tzinfo=UTC)
    rule = Rule(every=every, anchor=anchor, timezone="America/New_York")
    after = anchor + since * HOUR
    until = after + window * HOUR
    times = [anchor + number * every for number in range(until.year)]
    inside = [moment for moment in times if after < moment <= until]
    assert next_after(rule, after) == next(moment for moment in times if moment > after)
    assert latest(rule, after, until) == (inside[-1] if inside else None, len(inside))


@given(crons | rrules() | real_time_rules().map(lambda drawn: drawn[2]), places)
@exactly
def test_each_way_to_ask_gives_the_same_times(text: str, place: tuple[str, datetime]) -> None:
    name, change = place
    kind = {"rrule": text} if re.match("FREQ", text) else {"cron": text}
    rule = Rule(**kind, timezone=name, anchor=change - 2 * DAY)  # type: ignore[arg-type]
    times = upcoming(rule, change - DAY, 20)
    assert all(earlier < later for earlier, later in pairwise(times))
    assert times[1:] == [next_after(rule, moment) for moment in times[:-1]]
    if times:
        assert between(rule, times[0], times[-1], 20) == times[:-1]
        assert latest(rule, change - DAY, times[-1]) == (times[-1], len(times))
