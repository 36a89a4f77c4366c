"""Example requests: one for each kind of rule, and one for late, overlapping and failed tasks. All can be sent."""

from typing import Any

Examples = dict[str, dict[str, Any]]

RULES: Examples = {
    "interval": {
        "summary": "every hour, twice",
        "description": "Exact hours or days, counted from `start_at`, or from now. They do not drift.",
        "value": {"every_x_hours": 1, "schedule_x_times": 2},
    },
    "interval_from": {
        "summary": "every three days, from a given time on",
        "description": "A day is always 24 h, even when clocks change. Of several intervals the longest counts.",
        "value": {"every_x_days": 3, "start_at": "2040-01-01T06:00:00Z", "end_at": "2040-12-31T00:00:00Z"},
    },
    "interval_minutes": {
        "summary": "every ten minutes",
        "description": "One minute is the shortest interval.",
        "value": {"every_x_minutes": 10},
    },
    "cron": {
        "summary": "working days at 07:30 in Bucharest",
        "description": "Minute, hour, day of month, month, day of week. With both day fields given, a day that matches"
        " either of them counts. The times follow the local clock, also when it changes to or from summer time.",
        "value": {"cron": "30 7 * * MON-FRI", "timezone": "Europe/Bucharest"},
    },
    "cron_name": {
        "summary": "every day at midnight in Tokyo",
        "description": "`@hourly`, `@daily`, `@weekly`, `@monthly` and `@yearly` are short for five fields.",
        "value": {"cron": "@daily", "timezone": "Asia/Tokyo"},
    },
    "cron_minutes": {
        "summary": "every 15 minutes in office hours",
        "description": "`*/15` is a step, `9-17` a range, `1,15` a list.",
        "value": {"cron": "*/15 9-17 * * *", "timezone": "America/New_York"},
    },
    "rrule": {
        "summary": "the last Friday of each month at 17:00",
        "description": "A rule of RFC 5545, for what cron can't say.",
        "value": {"rrule": "FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=17;BYMINUTE=0", "timezone": "Europe/London"},
    },
    "rrule_anchored": {
        "summary": "every second Monday, ten times",
        "description": "`INTERVAL` and `COUNT` are counted from `start_at`, which also gives the time of the day.",
        "value": {
            "rrule": "FREQ=WEEKLY;INTERVAL=2;BYDAY=MO;COUNT=10",
            "start_at": "2040-01-02T08:00:00+01:00",
            "timezone": "Europe/Berlin",
        },
    },
}

CONTROLS: Examples = {
    "careful": {
        "summary": "never two tasks at once, every missed time caught up, paused at the first failure",
        "description": "`overlap`, `catch_up` and `pause_on_failure` in one schedule.",
        "value": {
            "cron": "0 * * * *",
            "overlap": "skip",
            "catch_up": "all",
            "catch_up_window": 3_600,
            "pause_on_failure": True,
        },
    },
}

SCHEDULES: Examples = {
    name: example | {"value": {"operation": "5+10"} | example["value"]} for name, example in (RULES | CONTROLS).items()
}
