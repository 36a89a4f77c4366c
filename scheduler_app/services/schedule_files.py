"""Schedules as code: a file names the schedules of an owner, and the table is made to agree with it.

A schedule is known by its name. Each change is a transaction of its own, by the services that the API calls; applying a
file once more does what is left to do.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select

from scheduler_app import operations
from scheduler_app.errors import Invalid
from scheduler_app.extensions import db
from scheduler_app.models import CatchUp, Overlap, TaskSchedule
from scheduler_app.operations import USUAL, USUAL_PAUSES
from scheduler_app.services import task_schedules

PAUSED_BY = "No longer in the file of {}."  # the note of a schedule that a file does not name any more
# What a file sets, with what holds when it does not say.
FIELDS: dict[str, Any] = {
    **dict.fromkeys(name for kind in task_schedules.KINDS for name in kind),
    "timezone": "UTC",
    "start_at": None,
    "end_at": None,
    "schedule_x_times": None,
    "operation": None,
    "params": {},
    "priority": 5,
    "max_retries": None,
    "retry": None,
    "labels": None,
    "group": None,
    "callback": None,
    "expires_in": None,
    "jitter": 0,
    "overlap": Overlap.ALLOW.value,
    "overlap_max": None,
    "catch_up": CatchUp.LATEST.value,
    "catch_up_window": 86_400,
    "pause_on_failure": False,
}


@dataclass(frozen=True)
class Step:
    """What is to be done to one schedule."""

    action: str  # make, change, resume, pause or delete
    name: str
    task_schedule_id: int | None = None
    fields: dict[str, Any] = field(default_factory=dict)  # the new values
    before: dict[str, Any] = field(default_factory=dict)  # the old values of the same


def plan(owner: str, wanted: Sequence[dict[str, Any]], *, delete: bool = False, now: datetime) -> list[Step]:
    """What has to be done so that the schedules of this owner are those that are wanted, which have been checked.

    With `delete`, those that are not wanted any more are deleted instead of paused. Raises Invalid for a name that
    another owner has, and for a rule that never fires; for all of them at once.
    """
    names = [one["name"] for one in wanted]
    query = select(TaskSchedule).where(TaskSchedule.name.in_(names) | (TaskSchedule.owner == owner))
    there = {schedule.name: schedule for schedule in db.session.scalars(query.order_by(TaskSchedule.task_schedule_id))}
    _check(owner, wanted, there, now)
    steps = [step for one in wanted for step in _steps(owner, one, there.get(one["name"]))]
    for name, schedule in there.items():
        if name not in names and (delete or not schedule.paused):
            steps.append(Step("delete" if delete else "pause", name or "", schedule.task_schedule_id))
    db.session.rollback()
    return steps


def do(owner: str, step: Step, *, now: datetime) -> None:
    if step.task_schedule_id is None:
        task_schedules.create(now=now, name=step.name, owner=owner, **step.fields)
    elif step.action == "change":
        # All pauses are named: what is not, the operation would say.
        retry = {"retry": step.fields["retry"] or USUAL_PAUSES} if "retry" in step.fields else {}
        task_schedules.change(step.task_schedule_id, now=now, **step.fields | retry)
    elif step.action == "resume":
        task_schedules.resume(step.task_schedule_id, now=now)
    elif step.action == "pause":
        task_schedules.pause(step.task_schedule_id, note=PAUSED_BY.format(owner), now=now)
    else:
        task_schedules.remove(step.task_schedule_id, now=now)


def export(owner: str) -> tuple[dict[str, Any], int]:
    """A file with the schedules of this owner and those of nobody; and how many are left out for want of a name."""
    query = select(TaskSchedule).where((TaskSchedule.owner == owner) | TaskSchedule.owner.is_(None))
    schedules = db.session.scalars(query.order_by(TaskSchedule.name, TaskSchedule.task_schedule_id)).all()
    named = [_exported(schedule) for schedule in schedules if schedule.name]
    return {"owner": owner, "schedules": named}, len(schedules) - len(named)


def _check(owner: str, wanted: Sequence[dict[str, Any]], there: dict[str | None, TaskSchedule], now: datetime) -> None:
    errors: dict[int, Any] = {}
    for place, one in enumerate(wanted):
        schedule = there.get(one["name"])
        if schedule and schedule.owner not in (None, owner):
            said = f"Schedule {schedule.task_schedule_id} of this name belongs to {schedule.owner}."
            errors[place] = {"name": [said]}
            continue
        try:
            task_schedules.draft(now=now, **{name: one.get(name, usual) for name, usual in FIELDS.items()})
        except Invalid as error:
            errors[place] = (error.errors or {}).get("json", error.message)
    if errors:
        raise Invalid("Nothing was changed.", {"schedules": errors})


def _steps(owner: str, wanted: dict[str, Any], schedule: TaskSchedule | None) -> list[Step]:
    values = {name: wanted.get(name, usual) for name, usual in FIELDS.items()}
    if schedule is None:
        return [Step("make", wanted["name"], None, {name: value for name, value in values.items() if name in wanted})]
    new = {name: value for name, value in (values | {"owner": owner}).items() if getattr(schedule, name) != value}
    steps = []
    if new:
        before = {name: getattr(schedule, name) for name in new}
        steps.append(Step("change", wanted["name"], schedule.task_schedule_id, new, before))
    if schedule.paused and schedule.pause_note == PAUSED_BY.format(owner):
        steps.append(Step("resume", wanted["name"], schedule.task_schedule_id))
    return steps


def _exported(schedule: TaskSchedule) -> dict[str, Any]:
    """As a file names it: what is as usual is left out."""
    told = {name: getattr(schedule, name) for name in FIELDS if name not in ("max_retries", "retry", "overlap_max")}
    told = {name: value for name, value in told.items() if value != FIELDS[name]}
    if schedule.overlap == Overlap.MAX:
        told["overlap"] = {"max": schedule.overlap_max}
    known = operations.lookup(schedule.operation)
    policy = asdict(known.retry if known else USUAL) | {"max_retries": schedule.max_retries}
    policy |= schedule.retry or USUAL_PAUSES
    if known is None or policy != asdict(known.retry):
        told["retry"] = policy
    times = {name: _text(told[name]) for name in ("start_at", "end_at") if name in told}
    return {"name": schedule.name} | told | times


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
