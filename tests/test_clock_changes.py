"""What a change of the clocks does to the times of a rule, counted by hand as in test_recurrence.py."""

import time
from datetime import UTC, datetime

import pytest

from scheduler_app import clock_changes
from scheduler_app.recurrence import HOUR, Rule, between, zone

ANCHOR = datetime(2010, 1, 1, tzinfo=UTC)
BUCHAREST, NEW_YORK, LORD_HOWE = "Europe/Bucharest", "America/New_York", "Australia/Lord_Howe"

CASES = [
    # Bucharest: on 29 March 2026 at 03:00 the clock goes to 04:00, on 25 October at 04:00 to 03:00.
    ("15 3 * * *", BUCHAREST, "2026-03-29", ["04:00 gap 03:15 03:00>04:00"]),
    ("15,45 3 * * *", BUCHAREST, "2026-03-29", ["04:00 gap 03:15 03:00>04:00"]),
    ("0 4 * * *", BUCHAREST, "2026-03-29", ["04:00"]),
    ("0 3,4 * * *", BUCHAREST, "2026-03-29", ["04:00 gap 03:00 03:00>04:00"]),
    ("15 3 * * *", BUCHAREST, "2026-10-25", ["03:15 repeated_once 03:15 04:00>03:00"]),
    ("0 4 * * *", BUCHAREST, "2026-10-25", ["04:00"]),
    ("30 2 * * *", BUCHAREST, "2026-10-25", ["02:30"]),
    # Rules that run through the day skip nothing, and have both of what comes twice.
    ("0 * 29 3 *", BUCHAREST, "2026-03-29", [f"{hour:02}:00" for hour in range(24) if hour != 3]),
    (
        "30 * * * *",
        NEW_YORK,
        "2026-11-01",
        [
            "00:30",
            *["01:30 repeated_twice 01:30 02:00>01:00"] * 2,
            *[f"{hour:02}:30" for hour in range(2, 24)],
        ],
    ),
    # Lord Howe moves by half an hour: on 4 October at 02:00 to 02:30, on 5 April at 02:00 to 01:30.
    ("15 2 * * *", LORD_HOWE, "2026-10-04", ["02:30 gap 02:15 02:00>02:30"]),
    ("45 1 * * *", LORD_HOWE, "2026-04-05", ["01:45 repeated_once 01:45 02:00>01:30"]),
    # São Paulo had no midnight on 4 November 2018; Apia had no 30 December 2011.
    ("0 0 * * *", "America/Sao_Paulo", "2018-11-04", ["01:00 gap 00:00 00:00>01:00"]),
    ("0 9 * * *", "Pacific/Apia", "2011-12-31", ["00:00 gap 09:00 00:00>00:00", "09:00"]),
    ("0 9 * * *", "UTC", "2026-03-29", ["09:00"]),
]
CALENDAR = [
    ("FREQ=DAILY;BYHOUR=3;BYMINUTE=30", "2026-03-29", ["04:00 gap 03:30 03:00>04:00"]),
    ("FREQ=DAILY;BYHOUR=3;BYMINUTE=30", "2026-10-25", ["03:30 repeated_once 03:30 04:00>03:00"]),
    ("FREQ=YEARLY;BYMONTH=3;BYDAY=-1SU;BYHOUR=3,4;BYMINUTE=0", "2026-03-29", ["04:00 gap 03:00 03:00>04:00"]),
    ("FREQ=MONTHLY;INTERVAL=2;BYDAY=-1SU;BYHOUR=4;BYMINUTE=0", "2026-03-29", ["04:00"]),
    ("FREQ=HOURLY;INTERVAL=12", "2026-10-25", ["03:00", "14:00"]),
]


def marked(rule: Rule, day: str) -> list[str]:
    first = datetime.fromisoformat(day).replace(tzinfo=zone(rule.timezone))
    start, end = first.astimezone(UTC), (first + 24 * HOUR).astimezone(UTC)
    shown = []
    for moment in between(rule, start, end, 30):
        local, change = moment.astimezone(zone(rule.timezone)), clock_changes.at(rule, moment)
        words = (
            f" {change.kind} {change.named:%H:%M} {change.clock_from:%H:%M}>{change.clock_to:%H:%M}" if change else ""
        )
        shown.append(f"{local:%H:%M}{words}")
    return shown


@pytest.mark.parametrize(("text", "timezone", "day", "expected"), CASES)
def test_times_of_cron(text: str, timezone: str, day: str, expected: list[str]) -> None:
    assert marked(Rule(cron=text, timezone=timezone, anchor=ANCHOR), day) == expected


@pytest.mark.parametrize(("text", "day", "expected"), CALENDAR)
def test_times_of_calendar_rules(text: str, day: str, expected: list[str]) -> None:
    assert marked(Rule(rrule=text, timezone=BUCHAREST, anchor=ANCHOR), day) == expected


def test_intervals_do_not_care_about_clocks() -> None:
    rule = Rule(every=HOUR, timezone=BUCHAREST, anchor=ANCHOR)
    assert not any(clock_changes.at(rule, datetime(2026, 3, 29, hour, tzinfo=UTC)) for hour in range(24))


def test_the_next_change_of_a_zone() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert clock_changes.following(zone(BUCHAREST), now) == datetime(2026, 3, 29, 1, tzinfo=UTC)
    assert clock_changes.following(zone("UTC"), now) is None


@pytest.mark.parametrize(
    "rule",
    [
        {"cron": "0 3 29 2 *"},
        {"cron": "* 3 * * *"},
        {"rrule": "FREQ=YEARLY;INTERVAL=4;BYMONTH=2;BYMONTHDAY=29;BYHOUR=3"},
        {"rrule": "FREQ=DAILY;INTERVAL=1000;BYHOUR=3"},
    ],
)
def test_the_look_into_a_gap_takes_no_time(rule: dict[str, str]) -> None:
    given = Rule(**rule, timezone=BUCHAREST, anchor=ANCHOR)  # type: ignore[arg-type]
    began = time.perf_counter()
    clock_changes.at(given, datetime(2026, 3, 29, 1, tzinfo=UTC))
    assert time.perf_counter() - began < 3, "minute by minute it takes far longer"
