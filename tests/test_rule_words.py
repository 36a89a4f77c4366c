"""Rules in words."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from scheduler_app.recurrence import InvalidRule, Rule
from scheduler_app.rule_words import LONGEST, in_words

ANCHOR = datetime(2026, 11, 29, 9, 30, tzinfo=UTC)  # a Sunday
EVERY_MINUTE = ",".join(map(str, range(60)))

INTERVALS = [
    (timedelta(minutes=1), "Every minute"),
    (timedelta(minutes=90), "Every 90 minutes"),
    (timedelta(hours=2), "Every 2 hours"),
    (timedelta(hours=24), "Every day"),
    (timedelta(hours=36), "Every 36 hours"),
    (timedelta(days=7), "Every 7 days"),
]


@pytest.mark.parametrize(("every", "expected"), INTERVALS)
def test_intervals(every: timedelta, expected: str) -> None:
    assert in_words(Rule(every=every, anchor=ANCHOR)) == expected


CRON = [
    ("30 7 * * 1-5", "At 07:30 on Monday to Friday"),
    ("0 0 13 * 5", "At 00:00 on the 13th and on every Friday"),
    ("*/15 * * * *", "Every 15 minutes"),
    ("0 0 1-31 * 5", "At 00:00 every day"),
    ("0 0 13 * 0-6", "At 00:00 every day"),
    ("0 9 * 1 1-5", "At 09:00 on Monday to Friday in January"),
    ("0 0 */10 * 5", "At 00:00 on the 1st, the 11th, the 21st and the 31st, if it is Friday"),
    ("*/15 9-17 * * *", "Every 15 minutes from 09:00 to 17:59"),
    ("0 0 1 1 *", "At 00:00 on the 1st of January"),
    ("0 * * * *", "Every hour"),
    ("30 1,2 * * *", "At 01:30 and 02:30 every day"),
    ("0,15,30 6,18 1,15 * *", "At 06:00, 06:15, 06:30, 18:00, 18:15 and 18:30 on the 1st and the 15th"),
    ("* * * * *", "Every minute"),
    (
        "*/7 */3 * * *",
        "At minutes 0, 7, 14, 21, 28, 35, 42, 49 and 56 of the hours 0, 3, 6, 9, 12, 15, 18 and 21 every day",
    ),
    ("0 0 1-7 * 1", "At 00:00 on the 1st to the 7th and on every Monday"),
    ("0 6 * * 1,3,5", "At 06:00 on Monday, Wednesday and Friday"),
    ("0 0 29 2 *", "At 00:00 on the 29th of February"),
    ("@daily", "At 00:00 every day"),
    ("@hourly", "Every hour"),
    ("5 */2 * * *", "Every 2 hours from 00:05"),
    ("5,35 * * * *", "At minutes 5 and 35 of every hour"),
    ("0 8-18 * * sat,sun", "Every hour from 08:00 to 18:00 on Saturday and Sunday"),
    ("5 1-5,9 * * *", "At 01:05, 02:05, 03:05, 04:05, 05:05 and 09:05 every day"),
    ("0 */5 * * *", "At 00:00, 05:00, 10:00, 15:00 and 20:00 every day"),
    ("0 0 * * 0", "At 00:00 on Sunday"),
    ("0 0 * * 7", "At 00:00 on Sunday"),
    ("* 3 * * *", "Every minute from 03:00 to 03:59"),
    ("15 10 1,15 6-8 *", "At 10:15 on the 1st and the 15th of June to August"),
    ("0 0 1,31 * 5-7", "At 00:00 on the 1st and the 31st and on every Friday to Sunday"),
    ("7 * 1 * *", "At minute 7 of every hour on the 1st"),
    ("0 0 * * *", "At 00:00 every day"),
    ("0 12 * 6 *", "At 12:00 every day in June"),
    (f"{EVERY_MINUTE} * * * *", "Every minute"),
]


@pytest.mark.parametrize(("text", "expected"), CRON)
def test_cron(text: str, expected: str) -> None:
    assert in_words(Rule(cron=text, anchor=ANCHOR)) == expected


RRULE = [
    ("FREQ=DAILY", "At 09:30 every day"),
    ("FREQ=DAILY;INTERVAL=2", "At 09:30 every 2 days"),
    ("FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=17;BYMINUTE=0", "At 17:00 on the last Friday of the month"),
    ("FREQ=WEEKLY;INTERVAL=2;BYDAY=MO;COUNT=10", "At 09:30 on Monday, every 2 weeks, 10 times"),
    (
        "FREQ=YEARLY;BYMONTH=1,3,5,7,10,12;BYDAY=-1SU;BYHOUR=3;BYMINUTE=30",
        "At 03:30 on the last Sunday of January, March, May, July, October and December",
    ),
    ("FREQ=HOURLY", "At minute 30 of every hour"),
    ("FREQ=HOURLY;INTERVAL=3", "Every 3 hours"),
    ("FREQ=MINUTELY;INTERVAL=90", "Every 90 minutes"),
    ("FREQ=MINUTELY", "Every minute"),
    ("FREQ=HOURLY;BYMINUTE=0,30;BYHOUR=9,10,11", "At 09:00, 09:30, 10:00, 10:30, 11:00 and 11:30 every day"),
    ("FREQ=YEARLY", "At 09:30 on the 29th of November"),
    ("FREQ=MONTHLY", "At 09:30 on the 29th"),
    ("FREQ=MONTHLY;BYMONTHDAY=1,15,-1", "At 09:30 on the 1st, the 15th and the last day"),
    ("FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1", "At 09:30 on the last working day of the month"),
    ("FREQ=MONTHLY;INTERVAL=2;BYDAY=MO", "FREQ=MONTHLY;INTERVAL=2;BYDAY=MO"),
    ("FREQ=DAILY;INTERVAL=2;BYDAY=MO", "FREQ=DAILY;INTERVAL=2;BYDAY=MO"),
    ("FREQ=YEARLY;BYWEEKNO=20", "FREQ=YEARLY;BYWEEKNO=20"),
    ("FREQ=WEEKLY;UNTIL=20301231T235959Z", "At 09:30 on Sunday, until 31 December 2030 23:59 UTC"),
    ("FREQ=MONTHLY;BYMONTHDAY=13;BYDAY=FR", "At 09:30 on the 13th, if it is Friday"),
    ("FREQ=MONTHLY;INTERVAL=3;BYMONTHDAY=1", "At 09:30 on the 1st, every 3 months"),
    ("FREQ=YEARLY;BYDAY=-1SU", "At 09:30 on the last Sunday of the year"),
    ("FREQ=YEARLY;INTERVAL=2;BYMONTH=2;BYMONTHDAY=28", "At 09:30 on the 28th of February, every 2 years"),
    ("FREQ=WEEKLY;BYDAY=MO,TU,WE,TH,FR;COUNT=1", "At 09:30 on Monday to Friday, once"),
    ("FREQ=MONTHLY;BYDAY=1MO,-1FR", "At 09:30 on the first Monday and the last Friday of the month"),
    ("FREQ=MONTHLY;BYMONTHDAY=-3", "At 09:30 on the 3rd last day"),
]


@pytest.mark.parametrize(("text", "expected"), RRULE)
def test_rrule(text: str, expected: str) -> None:
    assert in_words(Rule(rrule=text, anchor=ANCHOR)) == expected


def test_an_rrule_takes_its_time_from_its_start_in_its_zone() -> None:
    rule = Rule(rrule="FREQ=DAILY", anchor=ANCHOR, timezone="Europe/Bucharest")
    assert in_words(rule) == "At 11:30 every day"


HOSTILE = [
    "1,3,9,17,28,43,51,59 1,3,7,11,15,19,23 1,3,7,9,13,17,21,28,31 1,3,5,8,11 1,3,5",
    f"{EVERY_MINUTE[:90]} {','.join(map(str, range(0, 24, 3)))} 1,3,5,7,9,11,13,15,17,19 1,3,5,7 1,3,5",
    "*/7,*/5,*/3,*/11,*/13 */5,*/7,*/9 */3,*/4,*/5 */5,*/7 */2,*/3",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_rule_with_too_many_words_is_shown_as_it_is_written(text: str) -> None:
    began = time.perf_counter()
    words = in_words(Rule(cron=text, anchor=ANCHOR))
    assert words == text or len(words) <= LONGEST
    assert time.perf_counter() - began < 3, "in full it takes minutes and gigabytes"


def test_a_rule_that_cannot_be_read_has_no_words() -> None:
    with pytest.raises(InvalidRule):
        in_words(Rule(cron="* * * *", anchor=ANCHOR))
    with pytest.raises(InvalidRule):
        in_words(Rule(rrule="FREQ=SOMETIMES", anchor=ANCHOR))
