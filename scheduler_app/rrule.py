"""Recurrence rules of RFC 5545, section 3.3.10, on a calendar without zones. `recurrence` applies the zones.

For a rule that never matches, dateutil searches to the year 9999 and can't be stopped. Here each period is a step that
the caller can count.

Left out: FREQ=SECONDLY, BYSECOND other than 0, BYSETPOS below FREQ=DAILY, BYWEEKNO with another WKST than MO, UNTIL
without a time. INTERVAL and COUNT are bounded.
"""

import calendar
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from functools import cached_property, lru_cache
from itertools import product

LENGTH = 500
LOOKAHEAD_YEARS = 30  # times further ahead are ignored
WEEKDAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
FREQUENCIES = ("YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY")
NUMBERS = {  # lowest and highest value; a negative value counts from the end, and then 0 is not allowed
    "INTERVAL": (1, 1000),
    "COUNT": (1, 1000),
    "BYMONTH": (1, 12),
    "BYWEEKNO": (-53, 53),
    "BYYEARDAY": (-366, 366),
    "BYMONTHDAY": (-31, 31),
    "BYHOUR": (0, 23),
    "BYMINUTE": (0, 59),
    "BYSECOND": (0, 0),
    "BYSETPOS": (-366, 366),
}
KEYS = ("FREQ", "UNTIL", "WKST", "BYDAY", *NUMBERS)
NOT_WITH = {  # the RFC's table of BYxxx and FREQ, but for BYSETPOS
    "BYWEEKNO": ("MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY"),
    "BYYEARDAY": ("MONTHLY", "WEEKLY", "DAILY"),
    "BYMONTHDAY": ("WEEKLY",),
    "BYSETPOS": ("HOURLY", "MINUTELY"),
}
DAY_KEYS = ("BYWEEKNO", "BYYEARDAY", "BYMONTHDAY", "BYDAY")


@dataclass(frozen=True)
class Recurrence:
    freq: str
    by: dict[str, frozenset[int]]  # the BYxxx parts of numbers
    by_day: frozenset[tuple[int, int]] = frozenset()  # which one of its month or year, or 0 for each; weekday from 0
    interval: int = 1
    count: int | None = None
    until: datetime | None = None  # aware, or naive for local time
    week_start: int = 0

    @property
    def names_times(self) -> bool:
        """Whether the rule sets times of day. If not, it repeats throughout the day."""
        return self.freq not in ("HOURLY", "MINUTELY")

    def starting(self, dtstart: datetime) -> "Recurrence":
        """Fills in from DTSTART what the rule leaves open (section 3.8.5.3)."""
        by, by_day = {"BYSECOND": frozenset({dtstart.second})} | self.by, self.by_day
        if self.names_times:
            by = {"BYHOUR": frozenset({dtstart.hour}), "BYMINUTE": frozenset({dtstart.minute})} | by
        if by_day or not by.keys().isdisjoint(DAY_KEYS):
            return replace(self, by=by)
        if self.freq == "YEARLY":
            by.setdefault("BYMONTH", frozenset({dtstart.month}))
        if self.freq in ("YEARLY", "MONTHLY"):
            by["BYMONTHDAY"] = frozenset({dtstart.day})
        if self.freq == "WEEKLY":
            by_day = frozenset({(0, dtstart.weekday())})
        return replace(self, by=by, by_day=by_day)

    def walk(self, dtstart: datetime, after: datetime) -> Iterator[datetime | None]:
        """The times later than `after` of a rule that names times; None where a period begins.

        The caller must apply COUNT and UNTIL, and must give an `after` that is not before DTSTART.
        """
        first, today = self._period(dtstart.date()), max(dtstart, after).date()
        begin = first + (self._period(today) - first) // self.interval * self.interval
        end = self._period(date(min(today.year + LOOKAHEAD_YEARS, date.max.year - 1), 12, 31))
        for period in range(begin, end + 1, self.interval):
            yield None
            days = range(self._first_day(period), self._first_day(period + 1))
            for wall in self._times(days, today.toordinal()):
                if wall > after:
                    yield wall

    def _period(self, day: date) -> int:
        """The number of the year, month, week or day, according to FREQ."""
        if self.freq == "YEARLY":
            return day.year
        if self.freq == "MONTHLY":
            return day.year * 12 + day.month - 1
        return (day.toordinal() - 1 - self.week_start) // 7 if self.freq == "WEEKLY" else day.toordinal()

    def _first_day(self, period: int) -> int:
        """The ordinal of a period's first day."""
        if self.freq == "YEARLY":
            return date(period, 1, 1).toordinal()
        if self.freq == "MONTHLY":
            return date(period // 12, period % 12 + 1, 1).toordinal()
        return period * 7 + 1 + self.week_start if self.freq == "WEEKLY" else period

    def _times(self, days: range, today: int) -> Iterator[datetime]:
        if "BYSETPOS" not in self.by:
            for day in map(date.fromordinal, range(max(days.start, today), days.stop)):
                if self.on_day(day):
                    yield from (datetime.combine(day, at) for at in self._clock)
            return
        matching = [day for day in map(date.fromordinal, days) if self.on_day(day)]
        total = len(matching) * len(self._clock)
        for position in sorted(position - 1 if position > 0 else total + position for position in self.by["BYSETPOS"]):
            if 0 <= position < total:
                yield datetime.combine(matching[position // len(self._clock)], self._clock[position % len(self._clock)])

    @cached_property
    def _clock(self) -> list[time]:
        hours, minutes, seconds = (sorted(self.by[key]) for key in ("BYHOUR", "BYMINUTE", "BYSECOND"))
        return [time(*shown) for shown in product(hours, minutes, seconds)]

    def on_day(self, day: date) -> bool:
        """Whether the parts that restrict days allow this one."""
        if "BYMONTH" in self.by and day.month not in self.by["BYMONTH"]:
            return False
        if self.by_day and not self._on_weekday(day):
            return False
        return all(not wanted.isdisjoint(numbers(day)) for wanted, numbers in self._day_parts)

    @cached_property
    def _day_parts(self) -> list[tuple[frozenset[int], Callable[[date], tuple[int, int]]]]:
        parts = {"BYMONTHDAY": _month_days, "BYYEARDAY": _year_days, "BYWEEKNO": _weeks}
        return [(self.by[key], numbers) for key, numbers in parts.items() if key in self.by]

    def _on_weekday(self, day: date) -> bool:
        weekday = day.weekday()
        if (0, weekday) in self.by_day:
            return True
        in_year = self.freq == "YEARLY" and "BYMONTH" not in self.by
        from_start, from_end = _year_days(day) if in_year else _month_days(day)
        numbers = (from_start + 6) // 7, from_end // 7
        return any((number, weekday) in self.by_day for number in numbers)


def _month_days(day: date) -> tuple[int, int]:
    """The day's number from the start and from the end, where the last is -1; so below."""
    return day.day, day.day - calendar.monthrange(day.year, day.month)[1] - 1


def _year_days(day: date) -> tuple[int, int]:
    number = day.timetuple().tm_yday
    return number, number - (366 if calendar.isleap(day.year) else 365) - 1


def _weeks(day: date) -> tuple[int, int]:
    year, week, _ = day.isocalendar()
    return week, week - date(year, 12, 28).isocalendar().week - 1  # 28 December is always in the last week


@lru_cache(maxsize=256)
def parse(text: str) -> Recurrence:
    """Raises ValueError, which says what is allowed."""
    if len(text) > LENGTH:
        raise ValueError(f"At most {LENGTH} characters.")
    parts = [part.partition("=") for part in text.strip().upper().removeprefix("RRULE:").split(";")]
    values = {key: value for key, _, value in parts}
    if "FREQ" not in values or len(values) < len(parts) or not values.keys() <= set(KEYS):
        raise ValueError(f"KEY=VALUE parts, with ';' between, each once: FREQ, and of {', '.join(KEYS[1:])}.")
    numbers = {key: _numbers(key, values[key]) for key in NUMBERS if key in values}
    recurrence = Recurrence(
        freq=_choice("FREQ", values["FREQ"], FREQUENCIES),
        by={key: value for key, value in numbers.items() if key.startswith("BY")},
        by_day=_by_day(values["BYDAY"]) if "BYDAY" in values else frozenset(),
        interval=max(numbers.get("INTERVAL", {1})),
        count=max(numbers["COUNT"]) if "COUNT" in numbers else None,
        until=_until(values["UNTIL"]) if "UNTIL" in values else None,
        week_start=WEEKDAYS.index(_choice("WKST", values.get("WKST", "MO"), WEEKDAYS)),
    )
    _check_parts_together(recurrence)
    return recurrence


def _choice(key: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ValueError(f"{key} is one of {', '.join(allowed)}.")
    return value


def _numbers(key: str, value: str) -> frozenset[int]:
    low, high = NUMBERS[key]
    several = r"(,[+-]?\d{1,4})*" if key.startswith("BY") else ""
    if re.fullmatch(rf"[+-]?\d{{1,4}}{several}", value, re.ASCII):
        numbers = frozenset(map(int, value.split(",")))
        if all(low <= number <= high and (number or low == 0) for number in numbers):
            return numbers
    raise ValueError(f"{key} is {low} to {high}{', but not 0' if low < 0 else ''}.")


def _by_day(value: str) -> frozenset[tuple[int, int]]:
    found = [re.fullmatch(r"([+-]?\d{1,2})?(MO|TU|WE|TH|FR|SA|SU)", day, re.ASCII) for day in value.split(",")]
    days = frozenset((int(day[1] or 0), WEEKDAYS.index(day[2])) for day in found if day)
    if None in found or any(day and day[1] and not 1 <= abs(int(day[1])) <= 53 for day in found):
        raise ValueError(f"BYDAY is {', '.join(WEEKDAYS)}, each with a number from -53 to 53 before it or none.")
    return days


def _until(value: str) -> datetime:
    allowed = "UNTIL is a time such as 20301231T235959Z, without Z for local time."
    if not re.fullmatch(r"\d{8}T\d{6}Z?", value, re.ASCII):
        raise ValueError(allowed)
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(allowed) from None


def _check_parts_together(recurrence: Recurrence) -> None:
    freq, by = recurrence.freq, recurrence.by
    for key in by:
        if freq in NOT_WITH.get(key, ()):
            raise ValueError(f"{key} does not go with FREQ={freq}.")
    if any(number for number, _ in recurrence.by_day) and (freq not in ("YEARLY", "MONTHLY") or "BYWEEKNO" in by):
        raise ValueError("A number in BYDAY needs FREQ=MONTHLY or YEARLY, without BYWEEKNO.")
    if "BYWEEKNO" in by and recurrence.week_start:
        raise ValueError("BYWEEKNO goes with WKST=MO only.")
    if "BYSETPOS" in by and len(by) == 1 and not recurrence.by_day:
        raise ValueError("BYSETPOS needs another BY part.")
    if recurrence.count and recurrence.until:
        raise ValueError("COUNT or UNTIL, not both.")
