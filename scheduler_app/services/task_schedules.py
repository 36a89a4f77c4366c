"""Creates, changes, pauses and deletes schedules."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, select, update
from sqlalchemy.exc import IntegrityError

from scheduler_app import recurrence
from scheduler_app.callback import CALLBACK
from scheduler_app.database import begin_write
from scheduler_app.errors import Invalid, TaskScheduleNotFound
from scheduler_app.extensions import db
from scheduler_app.models import LeftOut, LeftOutTime, Status, Task, TaskSchedule
from scheduler_app.recurrence import InvalidRule, Rule
from scheduler_app.services import audit, callers, left_out, listing, retries
from scheduler_app.services.idempotency import Once
from scheduler_app.services.left_out import Stretch
from scheduler_app.services.listing import Listed
from scheduler_app.services.row_locks import update_tasks

INTERVALS = ("every_x_days", "every_x_hours", "every_x_minutes")
KINDS = (INTERVALS, ("cron",), ("rrule",))  # the kinds of rule, each as the fields that give it
RULE_FIELDS = (*(field for kind in KINDS for field in kind), "timezone", "start_at")
PAUSED_BY = "Task {} ended in ERROR."  # the note of a schedule that pauses on failure
ONE_KIND = f"Needed is exactly one kind of rule: {', '.join(INTERVALS)} or several of these; or cron; or rrule."
LATEST = 10  # tasks, and times without one, that a schedule shows
COUNTED = 1_000  # times that a pause or a change leaves out; more are not counted


def create(*, now: datetime, once: Once[TaskSchedule] | None = None, **fields: Any) -> TaskSchedule:
    """The first task is due at the rule's first time that is neither before `start_at` nor before now.

    An interval without `start_at` begins now.
    """
    _check_reach(fields["operation"], fields)
    schedule = draft(now=now, created_by=callers.name(), **fields)
    schedule.next_run_at = _next_time(schedule, just_before(now))
    db.session.add(schedule)
    with _free_name(schedule.name):
        db.session.flush()
    audit.record("task-schedule.create", schedule.task_schedule_id, now=now)
    if once:
        once.keep(schedule, now=now)
    db.session.commit()
    return schedule


def draft(*, now: datetime, **fields: Any) -> TaskSchedule:
    """A schedule that is not stored. Raises Invalid."""
    known = {"timezone": "UTC"} | fields
    schedule = TaskSchedule(created_at=now, anchor_at=_anchor(known.get("start_at"), now), times_scheduled=0, **known)
    _check_period(schedule)
    _check_rule(schedule, now)
    return schedule


def get(task_schedule_id: int) -> TaskSchedule:
    return _found(db.session.get(TaskSchedule, task_schedule_id), task_schedule_id)


def lock(task_schedule_id: int) -> TaskSchedule:
    """Opens a transaction in which nobody else changes, fires or deletes the schedule."""
    begin_write()
    schedule = db.session.get(TaskSchedule, task_schedule_id, with_for_update=True, populate_existing=True)
    return _found(schedule, task_schedule_id)


def _check_reach(operation: str, fields: dict[str, Any]) -> None:
    """Raises Forbidden when the caller may not have such tasks made."""
    callers.check_reach([operation, *([CALLBACK] if fields.get("callback") else [])])


def _found(schedule: TaskSchedule | None, task_schedule_id: int) -> TaskSchedule:
    """One that the caller does not reach is not found."""
    if schedule is None or callers.wrong_reach(schedule.operation):
        raise TaskScheduleNotFound(task_schedule_id)
    return schedule


def latest_tasks(task_schedule_id: int, *, limit: int) -> list[Listed]:
    """The tasks for the schedule's latest times, newest first."""
    mine = Task.task_schedule_id == task_schedule_id, *callers.within_reach(Task.operation)
    return listing.read(*mine, order=Task.scheduled_for.desc(), limit=limit)


def left_out_times(task_schedule_id: int, *, limit: int = left_out.KEPT) -> Sequence[LeftOutTime]:
    """Its latest times that got no task, the latest first."""
    return left_out.find(get(task_schedule_id).task_schedule_id, limit=limit)


def find(*, limit: int, cursor: int | None = None) -> tuple[Sequence[TaskSchedule], int | None]:
    """A page of schedules, newest first, and the cursor of the next page if there is one."""
    query = select(TaskSchedule).where(*callers.within_reach(TaskSchedule.operation))
    query = query.order_by(TaskSchedule.task_schedule_id.desc()).limit(limit + 1)
    if cursor is not None:
        query = query.where(TaskSchedule.task_schedule_id < cursor)
    schedules = db.session.scalars(query).all()
    return schedules[:limit], schedules[limit - 1].task_schedule_id if len(schedules) > limit else None


def change(task_schedule_id: int, *, now: datetime, **fields: Any) -> TaskSchedule:
    """A changed rule counts from now: it creates no tasks for past times, and fires for no time twice."""
    schedule = lock(task_schedule_id)
    is_new = fields.get("callback") != schedule.callback  # the key may leave what others have set
    _check_reach(fields.get("operation", schedule.operation), fields if is_new else {})
    old_rule = rule_of(schedule)
    rule_changed = _set(schedule, fields, now)
    with _free_name(schedule.name):
        db.session.flush()
    if rule_changed:
        _leave_out(schedule, old_rule, LeftOut.PAUSED if schedule.paused else LeftOut.CHANGED, now)
    if schedule.paused:
        schedule.paused_run_at = _next_time(schedule, now) if rule_changed else schedule.paused_run_at
    elif rule_changed or not _still_due(schedule):
        schedule.next_run_at = _next_time(schedule, now)
    audit.record("task-schedule.change", task_schedule_id, details={"fields": sorted(fields)}, now=now)
    db.session.commit()
    return schedule


def changed(schedule: TaskSchedule, *, now: datetime, **fields: Any) -> TaskSchedule:
    """What the schedule would be after this change; it is not stored. Raises Invalid."""
    columns = TaskSchedule.__table__.c
    copy = TaskSchedule(**{name: getattr(schedule, name) for name in columns.keys()})  # noqa: SIM118
    if _set(copy, fields, now) or not _still_due(copy):
        copy.next_run_at = _next_time(copy, now)
    return copy


@contextmanager
def _free_name(name: str | None) -> Iterator[None]:
    """Raises Invalid when another schedule has the name that is written."""
    try:
        yield
    except IntegrityError as error:
        if "name" not in str(error.orig):
            raise
        db.session.rollback()
        taken = {"json": {"name": [f"Another schedule is called {name!r}."]}}
        raise Invalid("No two schedules have the same name.", taken) from None


def _set(schedule: TaskSchedule, fields: dict[str, Any], now: datetime) -> bool:
    """Returns whether the rule has changed. Raises Invalid."""
    before = [getattr(schedule, name) for name in RULE_FIELDS]
    for name, value in retries.changed(fields.get("operation", schedule.operation), fields).items():
        setattr(schedule, name, value)
    _check_period(schedule)
    if before == [getattr(schedule, name) for name in RULE_FIELDS]:
        return False
    schedule.anchor_at = _anchor(schedule.start_at, now)
    _check_rule(schedule, now)
    return True


def remove(task_schedule_id: int, *, now: datetime) -> None:
    """Its tasks stay, without schedule."""
    schedule = lock(task_schedule_id)
    db.session.execute(update_tasks(Task.task_schedule_id == task_schedule_id).values(task_schedule_id=None))
    db.session.delete(schedule)
    audit.record("task-schedule.delete", task_schedule_id, now=now)
    db.session.commit()


def pause(task_schedule_id: int, *, note: str | None = None, now: datetime) -> TaskSchedule:
    schedule = lock(task_schedule_id)
    if not schedule.paused:
        schedule.paused, schedule.paused_run_at, schedule.next_run_at = True, schedule.next_run_at, None
    schedule.pause_note = note
    audit.record("task-schedule.pause", task_schedule_id, now=now)
    db.session.commit()
    return schedule


def resume(task_schedule_id: int, *, now: datetime) -> TaskSchedule:
    """The schedule goes on from now; times during the pause are not caught up. Does nothing if it is not paused."""
    schedule = lock(task_schedule_id)
    if schedule.paused:
        _leave_out(schedule, rule_of(schedule), LeftOut.PAUSED, now)
        schedule.paused, schedule.pause_note, schedule.paused_run_at = False, None, None
        schedule.next_run_at = _next_time(schedule, now)
        audit.record("task-schedule.resume", task_schedule_id, now=now)
    db.session.commit()
    return schedule


def pause_after_failure(task_id: int) -> None:
    """Pauses the schedule of a task that ends in ERROR, if the schedule asks for it. Part of the caller's transaction.

    Usually the caller has locked the schedule before the task. If not, because the schedule did not ask for it then,
    this does not wait for its lock.
    """
    failed = select(Task.task_schedule_id).where(Task.task_id == task_id, Task.status == Status.ERROR)
    asks = select(TaskSchedule.task_schedule_id).where(
        TaskSchedule.task_schedule_id.in_(failed), TaskSchedule.pause_on_failure, ~TaskSchedule.paused
    )
    db.session.execute(
        update(TaskSchedule)
        .where(TaskSchedule.task_schedule_id.in_(asks.with_for_update(skip_locked=True)))
        .values(
            paused=True,
            pause_note=PAUSED_BY.format(task_id),
            paused_run_at=TaskSchedule.next_run_at,
            next_run_at=None,
        )
        .execution_options(synchronize_session=False)
    )


def _leave_out(schedule: TaskSchedule, rule: Rule, reason: LeftOut, now: datetime) -> None:
    """Records the times that this rule would have had until now, from the next one on that the schedule knew."""
    first, most = schedule.next_run_at or schedule.paused_run_at, remaining(schedule)
    if first is None or first > now:
        return
    most = COUNTED if most is None else min(most, COUNTED)
    times = recurrence.between(rule, first, now + timedelta.resolution, COUNTED + 1)
    omitted = [(moment, reason) for moment in times[:most]]
    found = left_out.stretches(omitted) if len(times) <= COUNTED else [Stretch(first, now, most, reason)]
    left_out.record([(schedule, found)], now=now)
    schedule.left_out_rows += len(found)


def paused_by_failures(*, limit: int) -> Sequence[int]:
    """The ids of schedules that a task in ERROR has paused, and nobody has resumed since."""
    note = TaskSchedule.pause_note.like(PAUSED_BY.format("%"))
    query = select(TaskSchedule.task_schedule_id).where(TaskSchedule.paused, TaskSchedule.pause_on_failure, note)
    return db.session.scalars(query.limit(limit)).all()


def rule_of(schedule: TaskSchedule | Row[Any]) -> Rule:
    return Rule(
        anchor=schedule.anchor_at,
        every=_interval(schedule),
        cron=schedule.cron,
        rrule=schedule.rrule,
        timezone=schedule.timezone,
        until=schedule.end_at,
    )


def _interval(schedule: TaskSchedule | Row[Any]) -> timedelta | None:
    days, hours, minutes = schedule.every_x_days, schedule.every_x_hours, schedule.every_x_minutes
    return recurrence.interval(days, hours, minutes) if days or hours or minutes else None


def remaining(schedule: TaskSchedule | Row[Any]) -> int | None:
    """How many tasks it may still create; None for any number."""
    limit = schedule.schedule_x_times
    return None if limit is None else max(limit - schedule.times_scheduled, 0)


def just_before(now: datetime) -> datetime:
    """A moment such that the rule's time at this very second is still to come."""
    return now.replace(microsecond=0) - timedelta.resolution


def _anchor(start_at: datetime | None, now: datetime) -> datetime:
    # Rules fire at whole seconds. Without rounding down, "at once" would be up to a second away.
    return (start_at or now).replace(microsecond=0)


def _next_time(schedule: TaskSchedule, after: datetime) -> datetime | None:
    if remaining(schedule) == 0:
        return None
    return recurrence.next_after(rule_of(schedule), max(after, schedule.last_run_at or after))


def _still_due(schedule: TaskSchedule) -> bool:
    """Whether `next_run_at` is still right after a change of other fields than the rule's."""
    if schedule.next_run_at is None or remaining(schedule) == 0:
        return False
    return schedule.end_at is None or schedule.next_run_at <= schedule.end_at


def wrong_period(start_at: datetime | None, end_at: datetime | None) -> dict[str, list[str]]:
    """The errors, by field."""
    return {"end_at": ["Must not be before start_at."]} if start_at and end_at and end_at < start_at else {}


def wrong_kind(given: Collection[str | None]) -> dict[str, list[str]]:
    """The errors, by field, of a rule with these fields."""
    named = [name for kind in KINDS for name in kind if name in given]
    kinds = [kind for kind in KINDS if not set(kind).isdisjoint(named)]
    return {} if len(kinds) == 1 else {name: [ONE_KIND] for name in named or ["every_x_hours"]}


def _check_period(schedule: TaskSchedule) -> None:
    if errors := wrong_period(schedule.start_at, schedule.end_at):
        raise Invalid("A schedule ends after it starts.", {"json": errors})


def _check_rule(schedule: TaskSchedule, now: datetime) -> None:
    given = [name for kind in KINDS for name in kind if getattr(schedule, name) is not None]
    if errors := wrong_kind(given):
        raise Invalid("A schedule has one rule.", {"json": errors})
    try:
        recurrence.check(rule_of(schedule), now.replace(microsecond=0))
    except InvalidRule as error:
        names = {"every": given[-1], "anchor": "start_at", "until": "end_at"}
        raise Invalid("The rule is not valid.", {"json": {names.get(error.field, error.field): [str(error)]}}) from None
