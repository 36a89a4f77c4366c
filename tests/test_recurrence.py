import time
from datetime import UTC, datetime, timedelta
from itertools import takewhile

import pytest

from scheduler_app import recurrence
from scheduler_app.recurrence import InvalidRule, Rule, between, check, interval, latest, next_after, upcoming, zone

NOW = datetime(2026, 1, 1, 9, tzinfo=UTC)
DAY = timedelta(days=1)
NEW_YORK = "America/New_York"
EVERY_HOUR = ",".join(map(str, range(24)))
EVERY_MINUTE = ",".join(map(str, range(60)))


def local_times(rule: Rule, after: str, number: int) -> str:
    """The next times as the local clock shows them, with their offset."""
    local = zone(rule.timezone)
    start = datetime.fromisoformat(after).replace(tzinfo=local)
    return ", ".join(f"{moment.astimezone(local):%m-%d %H:%M%z}" for moment in upcoming(rule, start, number))


CRON_BY_HAND = [
    # New York: on 8 March 2026 at 02:00 the clock goes to 03:00, on 1 November at 02:00 to 01:00.
    ("30 2 * * *", NEW_YORK, "2026-03-07 12:00", "03-08 03:00-0400, 03-09 02:30-0400"),
    ("0 3 * * *", NEW_YORK, "2026-03-07 12:00", "03-08 03:00-0400, 03-09 03:00-0400"),
    ("30 1 * * *", NEW_YORK, "2026-10-31 12:00", "11-01 01:30-0400, 11-02 01:30-0500"),
    ("30 1,2 * * *", NEW_YORK, "2026-03-08 00:00", "03-08 01:30-0500, 03-08 03:00-0400, 03-09 01:30-0400"),
    ("30 1,2 * * *", NEW_YORK, "2026-11-01 00:00", "11-01 01:30-0400, 11-01 02:30-0500, 11-02 01:30-0500"),
    ("0 */2 * * *", NEW_YORK, "2026-03-07 23:00", "03-08 00:00-0500, 03-08 03:00-0400, 03-08 04:00-0400"),
    ("0 * * * *", NEW_YORK, "2026-03-08 00:30", "03-08 01:00-0500, 03-08 03:00-0400, 03-08 04:00-0400"),
    ("0 * * * *", NEW_YORK, "2026-11-01 00:30", "11-01 01:00-0400, 11-01 01:00-0500, 11-01 02:00-0500"),
    ("*/30 * * * *", NEW_YORK, "2026-03-08 01:00", "03-08 01:30-0500, 03-08 03:00-0400, 03-08 03:30-0400"),
    ("*/20 2 * * *", NEW_YORK, "2026-03-08 00:00", "03-08 03:00-0400, 03-09 02:00-0400, 03-09 02:20-0400"),
    # Bucharest: on 29 March 2026 at 03:00 the clock goes to 04:00, on 25 October at 04:00 to 03:00.
    ("15 3 * * *", "Europe/Bucharest", "2026-03-28 12:00", "03-29 04:00+0300, 03-30 03:15+0300"),
    ("15 3 * * *", "Europe/Bucharest", "2026-10-24 12:00", "10-25 03:15+0300, 10-26 03:15+0200"),
    # Lord Howe: on 5 April 2026 at 02:00 the clock goes to 01:30, on 4 October at 02:00 to 02:30.
    ("*/15 * * * *", "Australia/Lord_Howe", "2026-10-04 01:40", "10-04 01:45+1030, 10-04 02:30+1100, 10-04 02:45+1100"),
    ("*/30 * * * *", "Australia/Lord_Howe", "2026-04-05 01:15", "04-05 01:30+1100, 04-05 01:30+1030, 04-05 02:00+1030"),
    ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03 12:00", "10-04 02:30+1100, 10-05 02:15+1100"),
    # São Paulo had no midnight on 4 November 2018; Apia had no 30 December 2011.
    ("0 0 * * *", "America/Sao_Paulo", "2018-11-03 12:00", "11-04 01:00-0200, 11-05 00:00-0200"),
    ("0 9 * * *", "Pacific/Apia", "2011-12-29 12:00", "12-31 00:00+1400, 12-31 09:00+1400"),
    # Month ends and leap years.
    ("0 0 31 * *", "UTC", "2026-01-31 12:00", "03-31 00:00+0000, 05-31 00:00+0000"),
    ("0 0 29 2 *", "UTC", "2096-03-01 00:00", "02-29 00:00+0000"),
    # Either day field, when both are restricted; both, when one begins with a star. 1 January 2026 is a Thursday.
    ("0 0 13 * 5", "UTC", "2026-02-01 00:00", "02-06 00:00+0000, 02-13 00:00+0000, 02-20 00:00+0000"),
    ("0 0 */10 * 5", "UTC", "2026-01-01 00:00", "05-01 00:00+0000, 07-31 00:00+0000"),
    ("0 0 * * 0", "UTC", "2026-01-01 00:00", "01-04 00:00+0000, 01-11 00:00+0000"),
    ("0 0 * * 7", "UTC", "2026-01-01 00:00", "01-04 00:00+0000, 01-11 00:00+0000"),
    ("0 9 * jan mon-fri", "UTC", "2026-01-02 12:00", "01-05 09:00+0000, 01-06 09:00+0000"),
    ("45 23 * * *", "Asia/Kathmandu", "2026-01-01 00:00", "01-01 23:45+0545, 01-02 23:45+0545"),
]


@pytest.mark.parametrize(("text", "timezone", "after", "expected"), CRON_BY_HAND)
def test_cron_fires_when_counted_by_hand(text: str, timezone: str, after: str, expected: str) -> None:
    rule = Rule(cron=text, timezone=timezone, anchor=datetime(2000, 1, 1, tzinfo=UTC))
    assert local_times(rule, after, expected.count(",") + 1) == expected


RRULE_BY_HAND = [
    ("FREQ=DAILY", "2026-03-06 02:30", "03-06 02:30-0500, 03-07 02:30-0500, 03-08 03:00-0400, 03-09 02:30-0400"),
    ("FREQ=DAILY", "2026-10-31 01:30", "10-31 01:30-0400, 11-01 01:30-0400, 11-02 01:30-0500"),
    ("FREQ=HOURLY", "2026-03-08 01:15", "03-08 01:15-0500, 03-08 03:15-0400, 03-08 04:15-0400"),
    ("FREQ=HOURLY", "2026-11-01 00:15", "11-01 00:15-0400, 11-01 01:15-0400, 11-01 01:15-0500"),
    ("FREQ=HOURLY;INTERVAL=12", "2026-03-07 20:00", "03-07 20:00-0500, 03-08 09:00-0400, 03-08 21:00-0400"),
    (
        "FREQ=HOURLY;INTERVAL=2;BYMINUTE=0,30",
        "2026-01-01 10:20",
        "01-01 10:30-0500, 01-01 12:00-0500, 01-01 12:30-0500",
    ),
    ("FREQ=MINUTELY;INTERVAL=90", "2026-01-01 23:00", "01-01 23:00-0500, 01-02 00:30-0500"),
    ("FREQ=MONTHLY", "2026-01-31 09:00", "01-31 09:00-0500, 03-31 09:00-0400, 05-31 09:00-0400"),
    ("FREQ=MONTHLY;BYMONTHDAY=-1", "2026-01-31 09:00", "01-31 09:00-0500, 02-28 09:00-0500, 03-31 09:00-0400"),
    ("FREQ=MONTHLY;BYDAY=-1FR", "2026-01-01 09:00", "01-30 09:00-0500, 02-27 09:00-0500"),
    ("FREQ=MONTHLY;BYDAY=-1SA", "2026-01-01 09:00", "01-31 09:00-0500, 02-28 09:00-0500"),
    ("FREQ=MONTHLY;BYDAY=-2SU", "2026-01-01 09:00", "01-18 09:00-0500, 02-15 09:00-0500"),
    ("FREQ=YEARLY;BYDAY=-1TH", "2026-01-01 09:00", "12-31 09:00-0500, 12-30 09:00-0500"),
    ("FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1", "2026-01-01 09:00", "01-30 09:00-0500, 02-27 09:00-0500"),
    ("FREQ=MONTHLY;BYDAY=FR;BYMONTHDAY=13", "2026-01-01 09:00", "02-13 09:00-0500, 03-13 09:00-0400"),
    ("FREQ=YEARLY", "2024-02-29 09:00", "02-29 09:00-0500, 02-29 09:00-0500"),
    ("FREQ=YEARLY;BYDAY=20MO", "1997-05-19 09:00", "05-19 09:00-0400, 05-18 09:00-0400, 05-17 09:00-0400"),
    ("FREQ=YEARLY;BYWEEKNO=20;BYDAY=MO", "1997-05-12 09:00", "05-12 09:00-0400, 05-11 09:00-0400"),
    ("FREQ=YEARLY;BYYEARDAY=-1", "2026-01-01 09:00", "12-31 09:00-0500, 12-31 09:00-0500"),
    (
        "FREQ=WEEKLY;INTERVAL=2;BYDAY=TU,SU;WKST=MO",
        "1997-08-05 09:00",
        "08-05 09:00-0400, 08-10 09:00-0400, 08-19 09:00-0400",
    ),
    (
        "FREQ=WEEKLY;INTERVAL=2;BYDAY=TU,SU;WKST=SU",
        "1997-08-05 09:00",
        "08-05 09:00-0400, 08-17 09:00-0400, 08-19 09:00-0400",
    ),
    ("RRULE:FREQ=DAILY;COUNT=2", "2026-01-01 09:00", "01-01 09:00-0500, 01-02 09:00-0500"),
    ("freq=daily;until=20260102T140000z", "2026-01-01 09:00", "01-01 09:00-0500, 01-02 09:00-0500"),
    ("FREQ=DAILY;UNTIL=20260102T090000", "2026-01-01 09:00", "01-01 09:00-0500, 01-02 09:00-0500"),
    ("FREQ=DAILY;BYHOUR=8,20;BYMINUTE=0;BYSECOND=0", "2026-01-01 09:00", "01-01 20:00-0500, 01-02 08:00-0500"),
]


@pytest.mark.parametrize(("text", "dtstart", "expected"), RRULE_BY_HAND)
def test_rrule_fires_when_counted_by_hand(text: str, dtstart: str, expected: str) -> None:
    anchor = datetime.fromisoformat(dtstart).replace(tzinfo=zone(NEW_YORK))
    rule = Rule(rrule=text, timezone=NEW_YORK, anchor=anchor)
    number = expected.count(",") + 1 + (1 if "COUNT" in text or "until" in text.lower() else 0)
    assert local_times(rule, "1990-01-01", number) == expected


@pytest.mark.parametrize(
    ("text", "after", "expected"),
    [
        ("BYMINUTE=45", "2026-10-04 01:40", "10-04 01:45+1030, 10-04 02:45+1100, 10-04 03:45+1100"),
        ("BYMINUTE=0,45;BYMONTHDAY=10", "2026-04-09 00:00", "04-10 00:00+1030, 04-10 00:45+1030, 04-10 01:00+1030"),
    ],
)
def test_hours_counted_from_before_a_shift_by_half_an_hour_lose_no_minute(text: str, after: str, expected: str) -> None:
    anchor = datetime(2026, 3, 1, tzinfo=UTC)  # 11:00 there; later the hours counted from it begin at half past
    rule = Rule(rrule=f"FREQ=HOURLY;{text}", timezone="Australia/Lord_Howe", anchor=anchor)
    assert local_times(rule, after, 3) == expected


REFUSED = [
    ("cron", "0 0 30 2 *"),
    ("cron", "0 0 31 4,6 *"),
    ("cron", "0 * * * * *"),
    ("cron", "* * * *"),
    ("cron", ""),
    ("cron", "60 * * * *"),
    ("cron", "0 24 * * *"),
    ("cron", "*/0 * * * *"),
    ("cron", "9-5 * * * *"),
    ("cron", "5/10 * * * *"),
    ("cron", "5-5/10 * * * *"),
    ("cron", "0 0 L * *"),
    ("cron", "0 0 * * 5#2"),
    ("cron", "0 0 15W * *"),
    ("cron", "@reboot"),
    ("cron", "@daily * * * *"),
    ("cron", "\u0665 * * * *"),
    ("cron", f"{EVERY_MINUTE},{EVERY_MINUTE} * * * *"),
    ("cron", "* " * 1_000_000),
    ("rrule", ""),
    ("rrule", "DAILY"),
    ("rrule", "FREQ=SECONDLY"),
    ("rrule", "FREQ=DAILY;INTERVAL=0"),
    ("rrule", "FREQ=DAILY;INTERVAL=1,2"),
    ("rrule", "FREQ=DAILY;INTERVAL=1001"),
    ("rrule", "FREQ=DAILY;COUNT=0"),
    ("rrule", "FREQ=DAILY;COUNT=1000000"),
    ("rrule", "FREQ=DAILY;COUNT=3;UNTIL=20300101T000000Z"),
    ("rrule", "FREQ=DAILY;UNTIL=20300101"),
    ("rrule", "FREQ=DAILY;UNTIL=20301301T000000Z"),
    ("rrule", "FREQ=DAILY;UNTIL=20200101T000000Z"),
    ("rrule", "FREQ=DAILY;FREQ=WEEKLY"),
    ("rrule", "FREQ=DAILY;BYEASTER=1"),
    ("rrule", "FREQ=MINUTELY;BYSECOND=0,30"),
    ("rrule", "FREQ=MONTHLY;BYMONTHDAY=0"),
    ("rrule", "FREQ=MONTHLY;BYDAY=0MO"),
    ("rrule", "FREQ=WEEKLY;BYDAY=1MO"),
    ("rrule", "FREQ=WEEKLY;BYMONTHDAY=3"),
    ("rrule", "FREQ=MONTHLY;BYSETPOS=1"),
    ("rrule", "FREQ=YEARLY;BYWEEKNO=1;WKST=SU"),
    ("rrule", "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30"),
    ("rrule", f"FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30;BYHOUR={EVERY_HOUR};BYMINUTE={EVERY_MINUTE}"),
    ("rrule", f"FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30;BYHOUR={EVERY_HOUR};BYMINUTE={EVERY_MINUTE};BYSETPOS=-1"),
    ("rrule", "FREQ=DAILY;INTERVAL=7;BYDAY=MO"),
    ("rrule", "FREQ=HOURLY;INTERVAL=2;BYHOUR=2;BYMINUTE=7"),
    ("rrule", "FREQ=MINUTELY;BYMONTH=2;BYMONTHDAY=30"),
    ("rrule", "FREQ=MINUTELY;INTERVAL=2;BYMINUTE=7"),
    ("rrule", "FREQ=YEARLY;COUNT=1000"),
    ("rrule", "FREQ=DAILY;BYMONTH=1;BYMONTHDAY=1;COUNT=1000"),
    ("rrule", "FREQ=DAILY\nDTSTART:20260101T000000Z"),
    ("rrule", "FREQ=DAILY;" * 100_000),
    ("timezone", "../../etc/passwd"),
    ("timezone", "/etc/localtime"),
    ("timezone", "localtime"),
    ("timezone", "posixrules"),
    ("timezone", "europe/bucharest"),
    ("timezone", ""),
    ("timezone", "x" * 1_000_000),
    ("every", timedelta(0)),
    ("every", timedelta(seconds=59)),
    ("every", timedelta(days=40_000)),
    ("anchor", datetime(9999, 12, 31, tzinfo=UTC)),
    ("anchor", datetime(1, 1, 1, tzinfo=UTC)),
    ("until", NOW - DAY),
]


@pytest.mark.parametrize(("field", "value"), REFUSED)
def test_a_rule_that_cannot_be_kept_is_refused_in_bounded_time(field: str, value: object) -> None:
    other = {} if field in ("cron", "rrule", "every") else {"every": DAY}
    rule = Rule(**({"anchor": NOW} | other | {field: value}))  # type: ignore[arg-type]
    started = time.process_time()
    with pytest.raises(InvalidRule) as refused:
        check(rule, NOW)
    assert time.process_time() - started < 1  # of a search without end
    assert refused.value.field == field
    assert 0 < len(str(refused.value)) < 400


@pytest.mark.parametrize("rule", [Rule(anchor=NOW), Rule(anchor=NOW, every=DAY, cron="* * * * *")])
def test_a_rule_is_of_exactly_one_kind(rule: Rule) -> None:
    with pytest.raises(InvalidRule, match="Exactly one"):
        check(rule, NOW)


@pytest.mark.parametrize(
    ("field", "text"), [("cron", "0 0 29 2 *"), ("rrule", "FREQ=MINUTELY"), ("rrule", "FREQ=YEARLY;INTERVAL=10")]
)
def test_a_rule_that_fires_at_times_is_accepted(field: str, text: str) -> None:
    check(Rule(anchor=NOW, **{field: text}), NOW)  # type: ignore[arg-type]


def test_the_longest_of_days_hours_and_minutes_counts() -> None:
    assert interval(2, None) == timedelta(days=2)
    assert interval(None, 3) == timedelta(hours=3)
    assert interval(1, 30) == timedelta(hours=30)
    assert interval(1, 6) == timedelta(days=1)
    assert interval(None, None, 7) == timedelta(minutes=7)
    assert interval(1, 2, 2_000) == timedelta(minutes=2_000)


@pytest.mark.parametrize(
    ("days", "hours", "field"),
    [
        (None, None, "every_x_days"),
        (0, None, "every_x_days"),
        (1, 0, "every_x_hours"),
        (10**12, None, "every_x_days"),
        (None, -1, "every_x_hours"),
    ],
)
def test_an_interval_out_of_range_names_its_field(days: int | None, hours: int | None, field: str) -> None:
    with pytest.raises(InvalidRule) as refused:
        interval(days, hours)
    assert refused.value.field == field


def test_an_interval_fires_at_its_anchor_and_takes_no_notice_of_the_zone() -> None:
    rule = Rule(every=DAY, anchor=datetime(2026, 3, 7, 17, tzinfo=UTC), timezone=NEW_YORK)
    assert local_times(rule, "2026-03-01", 2) == "03-07 12:00-0500, 03-08 13:00-0400"


@pytest.mark.parametrize("kind", [{"every": DAY}, {"cron": "0 9 * * *"}, {"rrule": "FREQ=DAILY"}])
class TestEachKind:
    def test_fires_at_the_anchor_and_not_before(self, kind: dict[str, object]) -> None:
        rule = Rule(anchor=NOW, **kind)  # type: ignore[arg-type]
        assert next_after(rule, NOW - 400 * DAY) == NOW
        assert next_after(rule, NOW) == NOW + DAY

    def test_fires_for_the_last_time_at_until(self, kind: dict[str, object]) -> None:
        rule = Rule(anchor=NOW, until=NOW + DAY, **kind)  # type: ignore[arg-type]
        assert upcoming(rule, NOW - DAY, 10) == [NOW, NOW + DAY]
        assert latest(rule, NOW - DAY, NOW + 10 * DAY) == (NOW + DAY, 2)
        assert next_after(rule, NOW + DAY) is None

    def test_between_has_its_start_and_not_its_end(self, kind: dict[str, object]) -> None:
        rule = Rule(anchor=NOW, **kind)  # type: ignore[arg-type]
        assert between(rule, NOW + DAY, NOW + 3 * DAY, 10) == [NOW + DAY, NOW + 2 * DAY]
        assert between(rule, NOW + DAY, NOW + 30 * DAY, 1) == [NOW + DAY]

    def test_latest_has_its_end_and_not_its_start(self, kind: dict[str, object]) -> None:
        rule = Rule(anchor=NOW, **kind)  # type: ignore[arg-type]
        assert latest(rule, NOW, NOW + 3 * DAY) == (NOW + 3 * DAY, 3)
        assert latest(rule, NOW, NOW + DAY / 2) == (None, 0)

    @pytest.mark.parametrize("timezone", ["UTC", "America/New_York", "Asia/Kathmandu"])
    def test_ends_with_the_calendar(self, kind: dict[str, object], timezone: str) -> None:
        rule = Rule(anchor=datetime(9990, 1, 1, tzinfo=UTC), timezone=timezone, **kind)  # type: ignore[arg-type]
        check(rule, NOW)
        assert next_after(rule, datetime(9999, 12, 31, 23, 59, tzinfo=UTC)) is None

    def test_an_anchor_long_ago_costs_nothing(self, kind: dict[str, object]) -> None:
        rule = Rule(anchor=datetime(1970, 1, 1, 9, tzinfo=UTC), **kind)  # type: ignore[arg-type]
        started = time.process_time()
        assert next_after(rule, NOW) == NOW + DAY
        assert time.process_time() - started < 0.5


def test_a_fraction_of_a_second_in_the_anchor_is_rounded_up_for_rrule() -> None:
    rule = Rule(rrule="FREQ=DAILY", anchor=NOW + timedelta(microseconds=1))
    assert next_after(rule, NOW) == NOW + timedelta(seconds=1)


def test_a_month_of_missed_minutes_is_counted_in_bounded_time() -> None:
    rule = Rule(cron="* * * * *", anchor=NOW, timezone="Europe/Bucharest")
    started = time.process_time()
    assert latest(rule, NOW, NOW + 31 * DAY) == (NOW + 31 * DAY, 44_640)
    assert time.process_time() - started < 5


@pytest.mark.parametrize("every", ["FREQ=MINUTELY", "FREQ=MINUTELY;INTERVAL=7"])
def test_the_hours_that_a_rule_by_minutes_leaves_out_cost_a_step_each(every: str) -> None:
    rule = Rule(rrule=f"{every};BYHOUR=2", timezone=NEW_YORK, anchor=NOW)
    day = list(takewhile(lambda moment: moment is None or moment < NOW + DAY, recurrence._candidates(rule, NOW)))
    assert day.count(None) < 24 + 60 + 24  # the last ones until the time after the day
    assert len(day) - day.count(None) == len(between(rule, NOW, NOW + DAY, 100)) > 0
