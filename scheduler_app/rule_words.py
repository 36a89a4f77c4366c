"""A rule in words, for people: "Every 15 minutes from 09:00 to 17:59 on Monday to Friday".

Pure functions. The numbers of a rule come as sets of at most 60 from its parser, so a hostile rule costs no more than
another one. A rule with parts that have no words here, or with more than LONGEST characters of them, is shown as it was
written.
"""

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from itertools import product

from scheduler_app import recurrence
from scheduler_app.recurrence import ALL_HOURS, ALL_MINUTES, DAY, HOUR, MINUTE, Rule
from scheduler_app.rrule import Recurrence

LONGEST = 200  # characters
FEW = 6  # times of a day that are listed one by one
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
WORKDAYS = frozenset((0, weekday) for weekday in range(5))
UNITS = {"YEARLY": "year", "MONTHLY": "month", "WEEKLY": "week", "DAILY": "day", "HOURLY": "hour", "MINUTELY": "minute"}
ORDINALS = {1: "first", 2: "second", 3: "third", 4: "fourth", 5: "fifth", -1: "last", -2: "last but one"}
SAID = {"BYHOUR", "BYMINUTE", "BYSECOND", "BYMONTH", "BYMONTHDAY", "BYSETPOS"}


class _NoWordsError(Exception):
    """The rule has a part that is not put into words."""


def in_words(rule: Rule) -> str:
    """Without its zone. Raises InvalidRule for a rule that can't be read."""
    if rule.every:
        return f"Every {_duration(rule.every)}"
    words, written = "", rule.cron if rule.cron is not None else rule.rrule or ""
    with suppress(_NoWordsError):
        words = _cron(written) if rule.cron is not None else _rrule(rule)
    return words[0].upper() + words[1:] if 0 < len(words) <= LONGEST else written.strip()


def _duration(every: timedelta) -> str:
    sizes = {"day": DAY, "hour": HOUR, "minute": MINUTE}
    unit = next(name for name, size in sizes.items() if not every % size)
    return _times(every // sizes[unit], unit)


def _cron(text: str) -> str:
    cron = recurrence.parsed_cron(text)
    days = _month_days(cron.days) if len(cron.days) < 31 else ""
    numbers = {(number - 1) % 7 for number in cron.weekdays if isinstance(number, int)}  # 0 and 7 are Sunday
    weekdays = _weekdays(numbers) if len(numbers) < 7 else ""
    if not cron.day_and and not (days and weekdays):  # either may match, and one of them always does
        on = ""
    elif days and weekdays:
        on = f"on {days}{', if it is ' if cron.day_and else ' and on every '}{weekdays}"
    else:
        on = f"on {days or weekdays}" if days or weekdays else ""
    return _sentence(_clock(cron.hours, cron.minutes), on, _months(cron.months))


def _rrule(rule: Rule) -> str:
    parsed, start = recurrence.parsed_rrule(rule)
    if not parsed.by.keys() <= SAID:
        raise _NoWordsError
    by, unit, on = parsed.by, UNITS[parsed.freq], _days(parsed)
    months, every = _months(by.get("BYMONTH", ())), ""
    if parsed.names_times or parsed.interval == 1:
        minutes = ALL_MINUTES if parsed.freq == "MINUTELY" else {start.minute}
        when = _clock(by.get("BYHOUR", ALL_HOURS), by.get("BYMINUTE", minutes))
    elif by.keys() & {"BYHOUR", "BYMINUTE"}:
        raise _NoWordsError
    else:
        when = f"every {_times(parsed.interval, unit)}"
    if parsed.names_times and parsed.interval > 1:
        plain_weekdays = on and "on the " not in on
        unclear = {"DAILY": on or months, "MONTHLY": months or plain_weekdays, "YEARLY": plain_weekdays}
        if unclear.get(parsed.freq):
            raise _NoWordsError
        every = f"{', ' if on or months else ''}every {_times(parsed.interval, unit)}"
    return _sentence(when, on, months, every) + _end(parsed)


def _end(parsed: Recurrence) -> str:
    if parsed.count:
        return f", {_times(parsed.count, 'time')}"
    until = parsed.until
    if until is None:
        return ""
    return f", until {until.day} {MONTHS[until.month - 1]} {until:%Y %H:%M}{' UTC' if until.tzinfo else ''}"


def _sentence(when: str, on: str, months: str, every: str = "") -> str:
    plain_days = on and months and ", if it is" not in on and " and on " not in on
    numbered = any(on.endswith(end) for end in (" of the month", " of the year"))
    if numbered and months:
        on, plain_days = on.rpartition(" of ")[0], True
    of_months = plain_days and on.startswith("on the ")
    months = f"of {months}" if of_months else f"in {months}" if months else ""
    daily = "every day" if not on and not every and when.startswith("at ") and "of every" not in when else ""
    return " ".join(filter(None, (when, on or daily, months, every))).replace(" ,", ",")


def _days(parsed: Recurrence) -> str:
    days = _month_days(parsed.by["BYMONTHDAY"]) if "BYMONTHDAY" in parsed.by else ""
    if "BYSETPOS" in parsed.by:
        return _position(parsed)
    numbered = {day for day in parsed.by_day if day[0]}
    if numbered and (days or numbered != parsed.by_day):
        raise _NoWordsError
    if numbered:
        whole = "year" if parsed.freq == "YEARLY" and "BYMONTH" not in parsed.by else "month"
        in_order = sorted(numbered, key=lambda day: (day[0] < 0, day))
        names = [f"the {_ordinal_word(number)} {WEEKDAYS[day]}" for number, day in in_order]
        return f"on {_listed(names)} of the {whole}"
    weekdays = _weekdays(day for _, day in parsed.by_day) if parsed.by_day and len(parsed.by_day) < 7 else ""
    if days and weekdays:
        return f"on {days}, if it is {weekdays}"
    return f"on {days or weekdays}" if days or weekdays else ""


def _position(parsed: Recurrence) -> str:
    """Of BYSETPOS only the one that people use: a working day, counted from the start or the end of the month."""
    single_time = all(len(parsed.by[key]) == 1 for key in ("BYHOUR", "BYMINUTE"))
    if parsed.freq != "MONTHLY" or parsed.by_day != WORKDAYS or "BYMONTHDAY" in parsed.by or not single_time:
        raise _NoWordsError
    positions = [f"the {_ordinal_word(number)}" for number in sorted(parsed.by["BYSETPOS"], key=lambda n: (n < 0, n))]
    return f"on {_listed(positions)} working day of the month"


def _clock(hours: Collection[int], minutes: Collection[int]) -> str:
    if len(hours) * len(minutes) <= FEW:
        return f"at {_listed([f'{hour:02}:{minute:02}' for hour, minute in product(sorted(hours), sorted(minutes))])}"
    if len(hours) == 24:
        return _minutes_of(minutes, "every hour")
    [first, last], *more = _runs(hours)
    step = _step(minutes, 60)
    if not more and step:
        return f"every {_times(step, 'minute')} from {first:02}:00 to {last:02}:59"
    if len(minutes) == 1:
        [minute] = minutes
        if not more:
            return f"every hour from {first:02}:{minute:02} to {last:02}:{minute:02}"
        if step := _step(hours, 24):
            return f"every {_times(step, 'hour')} from 00:{minute:02}"
    return _minutes_of(minutes, f"the hours {_numbers(hours)}")


def _minutes_of(minutes: Collection[int], hours: str) -> str:
    each_hour = hours == "every hour"
    if step := _step(minutes, 60):
        return f"every {_times(step, 'minute')}" if each_hour else f"every {_times(step, 'minute')} in {hours}"
    if each_hour and set(minutes) == {0}:
        return hours
    return f"at minute{'s' if len(minutes) > 1 else ''} {_numbers(minutes)} of {hours}"


def _step(values: Collection[int], size: int) -> int | None:
    """The distance of values that divide the whole evenly, from 0 on."""
    step = size // len(values)
    return step if set(values) == set(range(0, size, step)) and size % step == 0 and step < size else None


def _weekdays(numbers: Iterable[int]) -> str:
    return _listed([_run(WEEKDAYS[first], WEEKDAYS[last], last - first) for first, last in _runs(set(numbers))])


def _months(numbers: Collection[int]) -> str:
    runs = _runs(numbers) if 0 < len(numbers) < 12 else []
    return _listed([_run(MONTHS[first - 1], MONTHS[last - 1], last - first) for first, last in runs])


def _month_days(numbers: Collection[int]) -> str:
    runs = _runs({number for number in numbers if number > 0})
    days = [_run(f"the {_ordinal(first)}", f"the {_ordinal(last)}", last - first) for first, last in runs]
    return _listed(days + [f"the {_ordinal_word(number)} day" for number in sorted(numbers) if number < 0])


def _numbers(values: Collection[int]) -> str:
    return _listed([_run(str(first), str(last), last - first) for first, last in _runs(values)])


def _runs(values: Collection[int]) -> list[tuple[int, int]]:
    """The first and last of each row of three or more; others are rows of one."""
    runs: list[tuple[int, int]] = []
    for value in sorted(values):
        if runs and runs[-1][1] == value - 1:
            runs[-1] = runs[-1][0], value
        else:
            runs.append((value, value))
    pairs = ([(first, first), (last, last)] if last - first == 1 else [(first, last)] for first, last in runs)
    return [run for pair in pairs for run in pair]


def _run(first: str, last: str, distance: int) -> str:
    return f"{first} to {last}" if distance else first


def _listed(parts: Sequence[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else "".join(parts)


def _times(number: int, unit: str) -> str:
    if unit == "time":
        return "once" if number == 1 else f"{number} times"
    return unit if number == 1 else f"{number} {unit}s"


def _ordinal(number: int) -> str:
    ending = "th" if 10 < number % 100 < 14 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _ordinal_word(number: int) -> str:
    if number in ORDINALS:
        return ORDINALS[number]
    return _ordinal(number) if number > 0 else f"{_ordinal(-number)} last"
