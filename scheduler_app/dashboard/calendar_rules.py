"""The small builder of a calendar rule: from its fields to RFC 5545, and back where the fields can say it."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from marshmallow import ValidationError
from werkzeug.datastructures import MultiDict

from scheduler_app import rrule
from scheduler_app.rrule import WEEKDAYS, Recurrence

UNITS = {"days": "DAILY", "weeks": "WEEKLY", "months": "MONTHLY", "years": "YEARLY"}
WORKDAYS = "MO,TU,WE,TH,FR"
WORK = "WORK"  # in place of a weekday: a working day
LAST = "last"  # day of the month
POSITIONS = {"1": "first", "2": "second", "3": "third", "4": "fourth", "5": "fifth", "-1": "last"}
DEFAULTS = {
    "cal.unit": "weeks",
    "cal.every": "1",
    "cal.at": "09:00",
    "cal.by": "days",
    "cal.days": "1",
    "cal.nth": "-1",
}

Fields = MultiDict[str, str]


def build(fields: Fields) -> str:
    """Raises ValidationError, by field."""
    unit, every = fields.get("cal.unit", ""), fields.get("cal.every", "").strip() or "1"
    hour, _, minute = fields.get("cal.at", "").strip().partition(":")
    if unit not in UNITS or not (hour.isdecimal() and minute.isdecimal()):
        raise ValidationError({"cal.at": ["A time of day, such as 09:30."]})
    parts = {"FREQ": UNITS[unit], "INTERVAL": every if every != "1" else ""}
    if unit == "weeks":
        parts["BYDAY"] = ",".join(day for day in WEEKDAYS if day in fields.getlist("cal.weekdays"))
    if unit == "years":
        parts["BYMONTH"] = ",".join(fields.getlist("cal.months")[:12])
        if not parts["BYMONTH"]:
            raise ValidationError({"cal.months": ["Needed is at least one month."]})
    if unit in ("months", "years"):
        parts |= _day_of_month(fields)
    if "BYSETPOS" in parts and unit == "years":
        if every != "1":
            raise ValidationError({"cal.every": ["Working days go with every year only."]})
        parts["FREQ"] = "MONTHLY"  # BYSETPOS would count in the whole year
    parts |= {"BYHOUR": str(int(hour[:4])), "BYMINUTE": str(int(minute[:4])), "BYSECOND": "0"}
    return ";".join(f"{name}={value}" for name, value in parts.items() if value)


def _day_of_month(fields: Fields) -> dict[str, str]:
    if fields.get("cal.by") == "nth":
        nth, day = fields.get("cal.nth", ""), fields.get("cal.weekday", "")
        if nth not in POSITIONS or day not in (*WEEKDAYS, WORK):
            raise ValidationError({"cal.nth": ["Choose which day of the month."]})
        return {"BYDAY": WORKDAYS, "BYSETPOS": nth} if day == WORK else {"BYDAY": f"{nth}{day}"}
    days = fields.get("cal.days", "")[:200].lower().replace(LAST, "-1").replace(" ", "")
    if not days.strip(","):
        raise ValidationError({"cal.days": ["Days from 1 to 31, or last, with commas between."]})
    return {"BYMONTHDAY": days.strip(",")}


def taken_apart(text: str, start: datetime) -> Fields | None:
    """The fields of a rule that begins at `start`, in local time; None when they cannot say it."""
    parsed = rrule.parse(text)
    fields = _fields(parsed.starting(start))
    return fields if fields is not None and same(fields, text, start) else None


def same(fields: Fields, text: str, start: datetime) -> bool:
    """Whether the fields say what the text says, but for the second."""
    try:
        return _minutely(build(fields), start) == _minutely(text, start)
    except (ValidationError, ValueError):
        return False


def _minutely(text: str, start: datetime) -> Recurrence:
    parsed = rrule.parse(text).starting(start)
    return replace(parsed, by=parsed.by | {"BYSECOND": frozenset({0})})


def _fields(parsed: Recurrence) -> Fields | None:
    by: Mapping[str, frozenset[int]] = parsed.by
    hours, minutes = by.get("BYHOUR", frozenset()), by.get("BYMINUTE", frozenset())
    if len(hours) != 1 or len(minutes) != 1:
        return None
    unit = next((name for name, freq in UNITS.items() if freq == parsed.freq), "")
    if parsed.freq == "MONTHLY" and "BYMONTH" in by:
        unit = "years"
    found: dict[str, Any] = {
        **DEFAULTS,
        "kind": "calendar",
        "cal.unit": unit,
        "cal.every": str(parsed.interval),
        "cal.at": f"{min(hours):02}:{min(minutes):02}",
        "cal.weekdays": [WEEKDAYS[day] for _, day in sorted(parsed.by_day)],
        "cal.months": [str(month) for month in sorted(by.get("BYMONTH", ()))],
    }
    if "BYMONTHDAY" in by:
        days = sorted(by["BYMONTHDAY"], key=lambda day: (day < 0, day))
        found |= {"cal.days": ", ".join(LAST if day == -1 else str(day) for day in days)}
    elif "BYSETPOS" in by:
        found |= {"cal.by": "nth", "cal.nth": str(min(by["BYSETPOS"])), "cal.weekday": WORK}
    elif parsed.by_day and parsed.freq in ("MONTHLY", "YEARLY"):
        nth, day = min(parsed.by_day)
        found |= {"cal.by": "nth", "cal.nth": str(nth), "cal.weekday": WEEKDAYS[day]}
    return MultiDict(found)
