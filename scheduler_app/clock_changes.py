"""Which times of a rule a change of the clocks moves or repeats, in terms of local times. `recurrence` says why."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple
from zoneinfo import ZoneInfo

from scheduler_app import recurrence
from scheduler_app.recurrence import DAY, SECOND, Rule

YEAR = 366  # days


class Kind(StrEnum):
    GAP = "gap"  # the clock never shows the time that the rule names; it fires at the gap's end
    REPEATED_ONCE = "repeated_once"  # the clock shows it twice; it fires the first time
    REPEATED_TWICE = "repeated_twice"  # the clock shows it twice; it fires both times


class ClockChange(NamedTuple):
    """The times are local, without zone."""

    kind: Kind
    named: datetime  # what the rule names
    clock_from: datetime  # what the clock would show at its change
    clock_to: datetime  # what it shows instead


def at(rule: Rule, moment: datetime) -> ClockChange | None:
    """What a change of the clocks has done to this time of the rule."""
    if rule.every:
        return None
    zone = recurrence.zone(rule.timezone)
    wall, offset, before = _wall(moment, zone), _offset(moment, zone), _offset(moment - SECOND, zone)
    if offset > before:
        start = wall - (offset - before)
        named = recurrence.first_named(rule, start, wall)
        return ClockChange(Kind.GAP, named, start, wall) if named else None
    first, second = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if first == second or not (recurrence.follows_clock(rule) or _fires(rule, {first, second} - {moment})):
        return None
    change = recurrence.change_between(first, second, zone)
    kind = Kind.REPEATED_ONCE if recurrence.follows_clock(rule) else Kind.REPEATED_TWICE
    back = change.replace(tzinfo=None)
    return ClockChange(kind, wall, back + _offset(first, zone), back + _offset(second, zone))


def following(zone: ZoneInfo, after: datetime) -> datetime | None:
    """When the clocks of a zone change next, within a year."""
    offset = _offset(after, zone)
    for day in range(YEAR):
        start, end = after + day * DAY, after + (day + 1) * DAY
        if _offset(end, zone) != offset:
            return recurrence.change_between(start, end, zone)
    return None


def _fires(rule: Rule, moments: set[datetime]) -> bool:
    return all(recurrence.next_after(rule, moment - timedelta.resolution) == moment for moment in moments)


def _wall(moment: datetime, zone: ZoneInfo) -> datetime:
    return moment.astimezone(zone).replace(tzinfo=None)


def _offset(moment: datetime, zone: ZoneInfo) -> timedelta:
    offset = moment.astimezone(zone).utcoffset()
    assert offset is not None
    return offset
