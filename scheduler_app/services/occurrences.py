"""The times of a schedule, and the tasks for these times."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import zip_longest
from typing import Any, NamedTuple

from sqlalchemy import Executable, Row, Text, bindparam, cast, literal, select

from scheduler_app import clock_changes, recurrence, tracing
from scheduler_app.clock_changes import ClockChange
from scheduler_app.database import as_table, insert, parameters
from scheduler_app.database.columns import ID, Json, UTCDateTime
from scheduler_app.errors import Invalid
from scheduler_app.extensions import db
from scheduler_app.models import OCCURRENCE, SCHEDULED, Status, Task, TaskSchedule
from scheduler_app.recurrence import Rule
from scheduler_app.services import audit, backlog, dispatch, labels, listing, task_schedules, tasks
from scheduler_app.services.idempotency import Once
from scheduler_app.services.listing import Listed
from scheduler_app.tracing.contexts import Trace

FIRST = datetime(1970, 1, 1, tzinfo=UTC)
GOES, COMES = "goes", "comes"
MORE = 3  # times as many old ones are looked at as new ones
MAX_BACKFILL = 1_000  # tasks per call
MAX_COUNTED = 10_000  # times that are counted, to know when schedule_x_times is used up
Occurrence = tuple[TaskSchedule | Row[Any], datetime]

RETURNED = (Task.task_id, Task.claims, Task.operation, Task.priority, Task.group, Task.task_schedule_id, Task.labels)
CHOSEN = {"id": ID, "moment": UTCDateTime()}
# From schedule to task.
COPIED = ("operation", "params", "priority", "max_retries", "retry", "labels", "group", "callback", "created_by")


class Time(NamedTuple):
    utc: datetime
    local: datetime  # in the rule's zone
    clock_change: ClockChange | None  # how a change of the clocks moves or repeats it
    run_at: datetime  # when its task is due: with the schedule's jitter, later


def upcoming(task_schedule_id: int, *, limit: int, after: datetime | None = None) -> list[Time]:
    """The next times later than `after`. None while it is paused."""
    schedule = task_schedules.get(task_schedule_id)
    if schedule.next_run_at is None:
        return []
    return _next_times(schedule, schedule.next_run_at - timedelta.resolution, after, limit)


def preview(*, now: datetime, limit: int, after: datetime | None = None, **rule: Any) -> list[Time]:
    """The same for a rule without a schedule."""
    return _next_times(task_schedules.draft(now=now, **rule), task_schedules.just_before(now), after, limit)


def compare(task_schedule_id: int, *, now: datetime, limit: int, **fields: Any) -> list[tuple[Time, str | None]]:
    """The next times after a change of these fields, and between them those that go.

    Each time is with GOES, COMES, or None if it stays. Of a paused schedule: as if it were resumed now. Raises Invalid.
    """
    schedule = task_schedules.get(task_schedule_id)
    new = _coming(task_schedules.changed(schedule, now=now, **fields), limit)
    old = _coming(task_schedules.changed(schedule, now=now), MORE * limit)
    if len(new) == limit:
        old = [time for time in old if time.utc <= new[-1].utc]
    kept, wanted = {time.utc for time in new}, {time.utc for time in old}
    times = [(time, None if time.utc in wanted else COMES) for time in new]
    times += [(time, GOES) for time in old if time.utc not in kept][: len(new) or limit]
    return sorted(times, key=lambda one: one[0].utc)


def _coming(schedule: TaskSchedule, limit: int) -> list[Time]:
    first = schedule.next_run_at
    return _next_times(schedule, first - timedelta.resolution, None, limit) if first else []


def trigger(task_schedule_id: int, *, now: datetime, once: Once[Task] | None = None) -> Task:
    """Creates a task now. The schedule's rule, `overlap` and pause do not matter."""
    backlog.check_room()
    schedule = task_schedules.lock(task_schedule_id)
    # Rules fire at whole seconds: a time between two of them is never taken by an occurrence.
    moment = now.replace(microsecond=now.microsecond or 1)
    with tracing.posting([{"priority": schedule.priority}]) as posted:
        while not (created := create_tasks([(schedule, moment)], now=now)):
            moment += timedelta.resolution
        posted.extend(created)
    task = tasks.get(created[0].task_id)
    audit.record("task-schedule.trigger", task_schedule_id, now=now)
    if once:
        once.keep(task, now=now)
    db.session.commit()
    dispatch.publish(created)
    return task


class Gaps(NamedTuple):
    """Past times of a schedule that have no task."""

    times: list[datetime]
    taken: int  # how many times have one
    more: bool  # whether there are more times than one call takes; these are the first


def gaps(task_schedule_id: int, *, start: datetime, end: datetime, now: datetime) -> Gaps:
    """What `backfill` would create. Raises Invalid."""
    _check_past(start, end, now)
    schedule = task_schedules.get(task_schedule_id)
    times = recurrence.between(_unbounded(schedule), start, end, MAX_BACKFILL + 1)
    taken = select(Task.scheduled_for).where(Task.task_schedule_id == task_schedule_id)
    having = set(db.session.scalars(taken.where(Task.scheduled_for.in_(times)))) if times else set()
    return Gaps([moment for moment in times if moment not in having], len(having), len(times) > MAX_BACKFILL)


def backfill(
    task_schedule_id: int,
    *,
    start: datetime,
    end: datetime,
    now: datetime,
    once: Once[list[Listed]] | None = None,
) -> list[Listed]:
    """Creates tasks for the times in [start, end) that have none."""
    _check_past(start, end, now)
    backlog.check_room()
    schedule, times = _locked_with_times(task_schedule_id, start, end)
    if len(times) > MAX_BACKFILL:
        message = f"At most {MAX_BACKFILL} times a call: end at {times[-1]:%Y-%m-%dT%H:%M:%SZ}, then go on from there."
        raise Invalid("That is too much at once.", {"json": {"end": [message]}})
    with tracing.posting([{"priority": schedule.priority}] * len(times)) as posted:
        created = create_tasks([(schedule, moment) for moment in times], now=now)
        posted.extend(created)
    listed = _listed(created)
    audit.record(
        "task-schedule.backfill", task_schedule_id, count=len(listed), details={"start": start, "end": end}, now=now
    )
    if once:
        once.keep(listed, now=now)
    db.session.commit()
    dispatch.publish(created)
    return listed


def _check_past(start: datetime, end: datetime, now: datetime) -> None:
    if not start < end <= now:
        raise Invalid("Backfill is for a stretch of the past.", {"json": {"end": ["After start, not in the future."]}})


def _locked_with_times(
    task_schedule_id: int, start: datetime, end: datetime
) -> tuple[TaskSchedule, Sequence[datetime]]:
    """The times are computed before the lock is taken: a rule that seldom matches takes seconds, and others wait."""
    while True:
        rule = _unbounded(task_schedules.get(task_schedule_id))
        db.session.rollback()
        times = recurrence.between(rule, start, end, MAX_BACKFILL + 1)
        schedule = task_schedules.lock(task_schedule_id)
        if _unbounded(schedule) == rule:
            return schedule, times


def _unbounded(schedule: TaskSchedule) -> Rule:
    """A cron rule without start_at has no beginning: its times may be older than the schedule."""
    rule = task_schedules.rule_of(schedule)
    return replace(rule, anchor=FIRST) if rule.cron and schedule.start_at is None else rule


def _listed(created: Sequence[Row[Any]]) -> list[Listed]:
    ids = [task.task_id for task in created]
    return listing.read(Task.task_id.in_(ids), order=Task.__table__.c.scheduled_for)


def create_tasks(occurrences: Sequence[Occurrence], *, now: datetime, jittered: bool = False) -> Sequence[Row[Any]]:
    """Inserts a task for each time of a schedule that has none yet; the caller commits, then publishes.

    With `jittered` each is due later by the schedule's jitter, and the rows returned have their `run_at`.
    """
    if not occurrences:
        return []
    expiring = any(schedule.expires_in for schedule, _ in occurrences)
    traces = tracing.begin_firing(len(occurrences))
    used = ("run_at", jittered), ("expires_at", expiring), ("trace", traces)
    rare = tuple(name for name, is_used in used if is_used)
    statement, columns = _creation(db.engine.dialect.name, rare)
    rows = (
        _given(schedule, moment, now, rare, trace) for (schedule, moment), trace in zip_longest(occurrences, traces)
    )
    connection = db.session.connection()
    created = connection.execute(statement, parameters(columns, rows) | {"now": now}).all()
    labels.keep(((task.task_id, task.labels) for task in created), db.session.execute)
    tracing.end_firing(traces, created)
    return created


@cache
def _creation(dialect: str, rare: tuple[str, ...]) -> tuple[Executable, dict[str, Any]]:
    """The statement, and what its table of parameters has."""
    columns = CHOSEN | {name: Text() if name == "trace" else UTCDateTime() for name in rare}
    chosen, now = as_table(columns), bindparam("now", type_=UTCDateTime())
    values = {name: getattr(TaskSchedule, name) for name in COPIED} | {
        "task_schedule_id": TaskSchedule.task_schedule_id,
        "scheduled_for": chosen.c.moment,
        "status": literal(Status.PENDING.value),
        "attempts": literal(0),
        "claims": literal(0),
        "run_at": now,
        "created_at": now,
    }
    values |= {name: cast(chosen.c[name], Json) if name == "trace" else chosen.c[name] for name in rare}
    rows = select(*values.values()).where(TaskSchedule.task_schedule_id == chosen.c.id)
    statement = insert(Task.__table__).from_select(list(values), rows)
    unless_there = statement.on_conflict_do_nothing(index_elements=OCCURRENCE, index_where=SCHEDULED)
    returned = *RETURNED, *(getattr(Task, name) for name in ("run_at", "trace") if name in rare)
    return unless_there.returning(*returned), columns


def _given(
    schedule: TaskSchedule | Row[Any], moment: datetime, now: datetime, rare: tuple[str, ...], trace: Trace | None
) -> list[Any]:
    """What the statement gets of an occurrence: its `CHOSEN`, and the rare columns that are used."""
    if not rare:
        return [schedule.task_schedule_id, moment]
    due = max(now, moment + jitter(schedule, moment)) if "run_at" in rare else now
    expires_at = due + timedelta(seconds=schedule.expires_in) if schedule.expires_in else None
    values = {"run_at": due, "expires_at": expires_at, "trace": json.dumps(trace)}
    return [schedule.task_schedule_id, moment, *(values[name] for name in rare)]


def jitter(schedule: TaskSchedule | Row[Any], moment: datetime) -> timedelta:
    """By how much later the task for this time is due: from 0 s to the schedule's jitter, the same in every process."""
    text = f"{schedule.task_schedule_id} {moment.astimezone(UTC).isoformat()}"
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return timedelta(milliseconds=number % (1_000 * schedule.jitter + 1))


def _next_times(schedule: TaskSchedule, begin: datetime, after: datetime | None, limit: int) -> list[Time]:
    rule, zone = task_schedules.rule_of(schedule), recurrence.zone(schedule.timezone)
    times = _times(schedule, begin, max(after or begin, begin), limit)
    is_kept = schedule.task_schedule_id is not None  # the jitter of one that is not cannot be known
    return [
        Time(
            moment,
            moment.astimezone(zone),
            clock_changes.at(rule, moment),
            moment + jitter(schedule, moment) if is_kept else moment,
        )
        for moment in times
    ]


def _times(schedule: TaskSchedule, begin: datetime, after: datetime, limit: int) -> list[datetime]:
    """The first times later than `after`. Times from `begin` on count towards what `schedule_x_times` still allows."""
    rule, left = task_schedules.rule_of(schedule), task_schedules.remaining(schedule)
    if left is None:
        return recurrence.upcoming(rule, after, limit)
    if after == begin:
        return recurrence.upcoming(rule, after, min(left, limit))
    counted = recurrence.upcoming(rule, begin, min(left, MAX_COUNTED))
    if len(counted) == MAX_COUNTED < left and counted[-1] <= after:
        message = f"With schedule_x_times at most {MAX_COUNTED:,} times ahead, {counted[-1]:%Y-%m-%dT%H:%M:%SZ}."
        raise Invalid("That is too far ahead.", {"query": {"after": [message]}})
    return [moment for moment in counted if moment > after][:limit]
