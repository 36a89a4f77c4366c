"""When a rule fires. All decisions about times and clocks are here, in pure functions.

Kinds of rule:

* An interval is an exact duration, counted from the anchor. Zones do not matter to it.
* cron is crontab(5): five fields; where both day fields are restricted (do not begin with `*`) either may match; 0 and
  7 are Sunday. A step follows `*` or a range. No seconds, `L`, `W` or `#`. `@daily` and its like are names for such
  fields.
* rrule is RFC 5545, see `rrule`. DTSTART is the anchor (a fraction of a second is rounded up), and fires only if it
  matches. UNTIL is inclusive; COUNT counts from the anchor.

When the clocks change (PEP 495 says "gap" and "fold"):

* A rule that names hours (any cron rule but those of the next point, FREQ=DAILY and longer) follows the local clock.
  A time in a gap fires at the gap's end. cron(8) says "soon after the change"; RFC 5545, 3.3.5, would fire later, by
  as much as the time lies in the gap. A time that comes twice fires only the first time, as both say.
* A rule that runs through the day (cron whose hour field allows all 24, FREQ=HOURLY and MINUTELY) follows real time:
  it fires whenever the local clock shows a minute that matches, so that `*/15 * * * *` neither pauses nor doubles.
  INTERVAL counts real hours and minutes.

cron(8) of Debian also follows real time for `*` in the minute field and `*/2` in the hour field. Backbeat does not,
because such a rule would lose local times in spring and have some twice in autumn.

`clock_changes` says which of the times that a rule gives were moved in this way.

The order of this file: public functions; the parts of a search; cron; rrule; the clocks.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from functools import cache, lru_cache
from importlib import resources
from itertools import count, islice, takewhile
from typing import NamedTuple
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from scheduler_app import rrule
from scheduler_app.rrule import Recurrence

SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
ALL_HOURS, ALL_MINUTES = frozenset(range(24)), frozenset(range(60))
AT_ONCE, AN_HOUR = range(1), range(60)  # minutes
YEARS = range(1970, 9991)
LONGEST_INTERVAL = 36_500 * DAY
CRON_LENGTH = 200
CRON_NAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
CRON_ALLOWED = (
    f"{', '.join(CRON_NAMES)}; or five fields, at most {CRON_LENGTH} characters: minute 0-59, hour 0-23, day of month"
    " 1-31, month 1-12 or JAN-DEC, day of week 0-7 or SUN-SAT; each *, a number, a range 1-5, a step */2 or 1-5/2, or"
    " a list of these with commas; the days must exist in the months."
)
_RANGE = r"(\d{1,2}-\d{1,2}|[A-Z]{3}-[A-Z]{3})"
_ITEM = rf"(\d{{1,2}}|[A-Z]{{3}}|(\*|{_RANGE})(/\d{{1,2}})?)"
_FIELD = rf"{_ITEM}(,{_ITEM})*"
_STEP_IN_ONE_VALUE = re.compile(r"\b0*(\w+)-0*\1/")  # 5-5/2: cronsim would read 5-59/2
_CRON = re.compile(rf"{_FIELD}( {_FIELD}){{4}}", re.ASCII)
BARREN_PERIODS = 11_000  # a search ends after so many periods in a row without a time: about 30 years of days


class InvalidRule(ValueError):
    """The message says what is allowed in `field`."""

    def __init__(self, field: str, allowed: str) -> None:
        super().__init__(allowed)
        self.field = field


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Exactly one of `every`, `cron` and `rrule`; `anchor` and `until` are aware."""

    anchor: datetime  # nothing fires before it; intervals are counted from it
    every: timedelta | None = None
    cron: str | None = None
    rrule: str | None = None
    timezone: str = "UTC"
    until: datetime | None = None  # the last moment at which it may fire


def check(rule: Rule, now: datetime) -> None:
    """Raises InvalidRule for a rule that can't be read, or that never fires from now on. Takes less than 100 ms."""
    if (rule.every, rule.cron, rule.rrule).count(None) != 2:
        raise InvalidRule("rule", "Exactly one of an interval, cron and rrule.")
    zone(rule.timezone)
    if rule.anchor.year not in YEARS:
        raise InvalidRule("anchor", f"In the years {YEARS[0]} to {YEARS[-1]}.")
    if rule.every is not None and not MINUTE <= rule.every <= LONGEST_INTERVAL:
        raise InvalidRule("every", f"One minute to {LONGEST_INTERVAL.days} days.")
    first = next_after(replace(rule, until=None), now - timedelta.resolution)
    if first is None:
        kind = "every" if rule.every else "cron" if rule.cron is not None else "rrule"
        raise InvalidRule(kind, "It never fires from now on, or only in many years.")
    if rule.until and first > rule.until:
        raise InvalidRule("until", f"Not before the rule's next time, {first:%Y-%m-%dT%H:%M:%SZ}.")


@lru_cache(maxsize=1024)
def interval(days: int | None, hours: int | None, minutes: int | None = None) -> timedelta:
    """If several are given, all must have passed, so the longest one counts."""
    given = (("every_x_days", days, DAY), ("every_x_hours", hours, HOUR), ("every_x_minutes", minutes, MINUTE))
    for name, value, unit in given:
        if value is not None and not 1 <= value <= LONGEST_INTERVAL // unit:
            raise InvalidRule(name, f"1 to {LONGEST_INTERVAL // unit}.")
    longest = max((value or 0) * unit for _, value, unit in given)
    if not longest:
        raise InvalidRule("every_x_days", "every_x_days, every_x_hours, every_x_minutes or several of them.")
    return longest


def next_after(rule: Rule, after: datetime) -> datetime | None:
    """The first time later than `after`, in UTC; None when there is no more."""
    if rule.every:
        moment = _next_of_interval(rule.anchor, rule.every, after)
    elif rule.cron is not None:
        moment = _next_of_cron(rule.cron, rule.timezone, _begin(rule, after))
    else:
        return next(_times(rule, after), None)
    return None if moment is None or (rule.until and moment > rule.until) else moment


def _next_of_interval(anchor: datetime, every: timedelta, after: datetime) -> datetime | None:
    try:
        return _utc(anchor) + (_passed(anchor, every, after) + 1) * every
    except OverflowError:  # the calendar ends with the year 9999
        return None


@lru_cache(maxsize=1024)  # many schedules have the same rule, and are due at the same moment
def _next_of_cron(text: str, timezone: str, after: datetime) -> datetime | None:
    rule = Rule(anchor=after, cron=text, timezone=timezone)
    return next(_increasing(_candidates(rule, after), after), None)


def upcoming(rule: Rule, after: datetime, limit: int) -> list[datetime]:
    return list(islice(_times(rule, after), limit))


def between(rule: Rule, start: datetime, end: datetime, limit: int) -> list[datetime]:
    """The first `limit` times in [start, end)."""
    times = _times(rule, start - timedelta.resolution)
    return list(islice(takewhile(lambda moment: moment < end, times), limit))


def latest(rule: Rule, after: datetime, until: datetime) -> tuple[datetime | None, int]:
    """The newest time in (after, until], and how many there are."""
    if rule.every:
        first = _passed(rule.anchor, rule.every, after) + 1
        last = _passed(rule.anchor, rule.every, min(until, rule.until or until))
        return (_utc(rule.anchor) + last * rule.every, last - first + 1) if first <= last else (None, 0)
    newest, number = None, 0
    for moment in takewhile(lambda moment: moment <= until, _times(rule, after)):
        newest, number = moment, number + 1
    return newest, number


def first_named(rule: Rule, start: datetime, end: datetime) -> datetime | None:
    """The first local time that a rule names in [start, end), at most a day, whether the clock shows it or not.

    All three have no zone. None also for a rule that follows real time.
    """
    walls: Iterator[datetime | None] = iter(())
    if follows_clock(rule) and rule.cron is not None:
        walls = CronSim(_fields(rule.cron), start - SECOND)
    elif follows_clock(rule):
        recurrence, dtstart = parsed_rrule(rule)
        walls = recurrence.walk(dtstart.replace(tzinfo=None), start - SECOND)
    periods = 0
    for wall in walls:
        periods += wall is None
        if wall or periods > 3:  # a day, and the second before it, lie in three periods at most
            return wall if wall and start <= wall < end else None
    return None


def follows_clock(rule: Rule) -> bool:
    """Whether it names local times; if not, it follows real time."""
    if rule.cron is not None:
        return parsed_cron(rule.cron).hours != ALL_HOURS
    return rule.rrule is not None and parsed_rrule(rule)[0].names_times


def check_cron(text: str) -> None:
    """Raises InvalidRule for text that can't be read."""
    parsed_cron(text)


@cache
def zone(name: str) -> ZoneInfo:
    """A zone of the tzdata package, whatever the machine has; raises InvalidRule for any other name."""
    if name not in zone_names():
        raise InvalidRule("timezone", "A name of the IANA time zone database, such as Europe/Bucharest.")
    with resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as file:
        return ZoneInfo.from_file(file, key=name)


@cache
def zone_names() -> frozenset[str]:
    return frozenset(resources.files("tzdata").joinpath("zones").read_text().split())


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


def _passed(anchor: datetime, every: timedelta, moment: datetime) -> int:
    """How many intervals have passed since the anchor; -1 before it."""
    return max((_utc(moment) - _utc(anchor)) // every, -1)


def _times(rule: Rule, after: datetime) -> Iterator[datetime]:
    """The times later than `after`, in order. Each search above uses this."""
    after = _begin(rule, after)
    times = _increasing(_candidates(rule, after), after)
    ends = [end for end in (rule.until, _own_end(rule)) if end]
    return takewhile(lambda moment: moment <= min(ends), times) if ends else times


def _begin(rule: Rule, after: datetime) -> datetime:
    """Where to look from: nothing fires before the anchor."""
    return max(_utc(after), _utc(rule.anchor) - timedelta.resolution)


def _increasing(candidates: Iterator[datetime | None], after: datetime) -> Iterator[datetime]:
    barren = 0
    with suppress(OverflowError):  # the calendar ends with the year 9999
        for moment in candidates:
            barren = 0 if moment else barren + 1
            if barren > BARREN_PERIODS:
                return
            if moment and moment > after:
                yield moment
                after = moment


def _candidates(rule: Rule, after: datetime) -> Iterator[datetime | None]:
    """Times in order; some may repeat or lie before `after`. None stands where a period begins."""
    anchor = _utc(rule.anchor)
    if rule.every:
        for number in count(_passed(anchor, rule.every, after) + 1):
            yield anchor + number * rule.every
    elif rule.cron is not None:
        yield from _cron_candidates(rule.cron, zone(rule.timezone), after)
    else:
        yield from _rrule_candidates(*parsed_rrule(rule), zone(rule.timezone), after)


def _cron_candidates(text: str, local_zone: ZoneInfo, after: datetime) -> Iterator[datetime | None]:
    cron, local = parsed_cron(text), after.astimezone(local_zone)
    if cron.hours != ALL_HOURS:  # as follows_clock says
        return (_moment(wall, local_zone) for wall in CronSim(_fields(text), local.replace(tzinfo=None)))
    base = _utc(local.replace(minute=0, second=0, microsecond=0))
    shown = _Shown(lambda day: day.month in cron.months and cron.match_day(day), ALL_HOURS, cron.minutes)
    return _real_time(base, HOUR, AN_HOUR, shown, local_zone, after)


@lru_cache(maxsize=1024)
def parsed_cron(text: str) -> CronSim:
    fields = " ".join(_fields(text)[: CRON_LENGTH + 1].upper().split())
    if len(text) > CRON_LENGTH or not _CRON.fullmatch(fields) or _STEP_IN_ONE_VALUE.search(fields):
        raise InvalidRule("cron", CRON_ALLOWED)
    try:
        return CronSim(_fields(text), datetime(2000, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        raise InvalidRule("cron", f"{error}. {CRON_ALLOWED}") from None


def _fields(text: str) -> str:
    """The fields that a name stands for; any other text as it is."""
    return CRON_NAMES.get(text.strip().lower(), text)


def _rrule_candidates(
    recurrence: Recurrence, dtstart: datetime, local_zone: ZoneInfo, after: datetime
) -> Iterator[datetime | None]:
    if recurrence.names_times:
        walls = recurrence.walk(dtstart.replace(tzinfo=None), after.astimezone(local_zone).replace(tzinfo=None))
        return (wall and _moment(wall, local_zone) for wall in walls)
    by, step = recurrence.by, HOUR if recurrence.freq == "HOURLY" else MINUTE
    shown = _Shown(recurrence.on_day, by.get("BYHOUR", ALL_HOURS), by.get("BYMINUTE", ALL_MINUTES))
    base, span = dtstart.replace(second=min(by["BYSECOND"])), AT_ONCE
    if step == HOUR and "BYMINUTE" in by:
        base, span = base.replace(minute=0), AN_HOUR
    return _real_time(_utc(base), recurrence.interval * step, span, shown, local_zone, after)


@lru_cache(maxsize=1024)
def parsed_rrule(rule: Rule) -> tuple[Recurrence, datetime]:
    """The RRULE and its DTSTART in local time."""
    dtstart = _utc(rule.anchor) + timedelta(microseconds=-rule.anchor.microsecond % 1_000_000)
    local = dtstart.astimezone(zone(rule.timezone))
    try:
        return rrule.parse(rule.rrule or "").starting(local), local
    except ValueError as error:
        raise InvalidRule("rrule", str(error)) from None


@lru_cache(maxsize=1024)
def _own_end(rule: Rule) -> datetime | None:
    """The last moment that UNTIL or COUNT allow."""
    if rule.rrule is None:
        return None
    recurrence, dtstart = parsed_rrule(rule)
    if recurrence.until:
        return recurrence.until.replace(tzinfo=recurrence.until.tzinfo or dtstart.tzinfo)
    if recurrence.count is None:
        return None
    before = _utc(rule.anchor) - timedelta.resolution
    # Bounded as a whole, from the anchor: a rule that passed once never ends early.
    times = _increasing(islice(_candidates(rule, before), BARREN_PERIODS), before)
    end = next(islice(times, recurrence.count - 1, None), None)
    if end is None:
        bounds = f"{rrule.LOOKAHEAD_YEARS} years and {BARREN_PERIODS} periods"
        raise InvalidRule("rrule", f"COUNT must be reached within {bounds}.")
    return end


class _Shown(NamedTuple):
    """What a local clock must show for a rule to fire."""

    on_day: Callable[[date], bool]
    hours: Collection[int]
    minutes: Collection[int]

    def at(self, local: datetime) -> bool:
        return local.minute in self.minutes and local.hour in self.hours and self.on_day(local)


def _real_time(
    base: datetime, step: timedelta, span: range, shown: _Shown, local_zone: ZoneInfo, after: datetime
) -> Iterator[datetime | None]:
    """The minutes at which the local clock shows it. From `base`, each `step` begins a `span` of minutes to look at."""
    turn = max((after - base) // step, 0)
    while True:
        yield None
        start = base + turn * step
        first, last = start.astimezone(local_zone), (start + span[-1] * MINUTE).astimezone(local_zone)
        turn += 1
        if not shown.on_day(first) and not shown.on_day(last):
            day = last.date() + DAY
            while not shown.on_day(day):
                yield None
                day += DAY
            midnight = _moment(datetime.combine(day, time()), local_zone)
            turn = max(turn, (midnight - base) // step)
        elif first.hour in shown.hours or last.hour in shown.hours:
            minutes: Iterable[int] = span
            if first.utcoffset() == last.utcoffset():  # no change of the clocks: most minutes need no conversion
                minutes = sorted({(minute - first.minute) % 60 for minute in shown.minutes}.intersection(span))
            for minute in minutes:
                moment = start + minute * MINUTE
                if shown.at(moment.astimezone(local_zone)):
                    yield moment
        else:
            turn = max(turn, -((base - _next_hour(start, first)) // step))  # rounded up


def _next_hour(moment: datetime, local: datetime) -> datetime:
    """When the local clock shows the next hour; the moment itself when the clocks change before that."""
    ahead = moment + (60 - local.minute) * MINUTE
    return ahead if (ahead - MINUTE).astimezone(local.tzinfo).utcoffset() == local.utcoffset() else moment


def _moment(wall: datetime, local_zone: ZoneInfo) -> datetime:
    """The first moment at which the local clock shows this time. For a time in a gap, the gap's end."""
    local = wall.replace(tzinfo=local_zone)
    moment = _utc(local)
    if moment.astimezone(local_zone).replace(tzinfo=None) == wall:
        return moment
    # PEP 495: in a gap, fold=0 counts with the offset before it and fold=1 with that after; its end lies between.
    return change_between(_utc(local.replace(fold=1)), moment, local_zone)


def change_between(before: datetime, after: datetime, local_zone: ZoneInfo) -> datetime:
    """The moment between these two at which the clocks change."""
    offset = before.astimezone(local_zone).utcoffset()
    while after - before > SECOND:
        middle = before + (after - before) // SECOND // 2 * SECOND
        before, after = (middle, after) if middle.astimezone(local_zone).utcoffset() == offset else (before, middle)
    return after
