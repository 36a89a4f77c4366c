"""Is this the rule I mean? The form of a schedule, with the next real times of its rule."""

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from flask import Response, render_template, request, url_for
from marshmallow import ValidationError
from werkzeug.datastructures import MultiDict
from werkzeug.wrappers import Response as BaseResponse

from scheduler_app import clock_changes, operations, recurrence, rule_words
from scheduler_app.access import needs
from scheduler_app.access_models import Scope
from scheduler_app.config import PRIORITIES
from scheduler_app.dashboard import calendar_rules, forms
from scheduler_app.dashboard import schedule_fields as fields
from scheduler_app.dashboard.frame import blp, page, told
from scheduler_app.dashboard.schedule_fields import Errors, Typed
from scheduler_app.database import clock
from scheduler_app.errors import Invalid
from scheduler_app.models import CatchUp, Overlap, TaskSchedule
from scheduler_app.operations import USUAL
from scheduler_app.rrule import WEEKDAYS
from scheduler_app.schemas.callbacks import ENDS
from scheduler_app.schemas.task_schedules import RuleRequest, TaskScheduleChange, TaskScheduleRequest
from scheduler_app.services import callers, occurrences, task_schedules
from scheduler_app.services.occurrences import Time

SHOWN = 10  # times of a preview
OVERLAPS = {
    Overlap.ALLOW.value: "create the next one anyway",
    Overlap.SKIP.value: "leave this time out",
    Overlap.CANCEL_PREVIOUS.value: "cancel the task before",
    Overlap.MAX.value: "leave it out from so many on",
}
CATCH_UPS = {
    CatchUp.LATEST.value: "one task for the newest",
    CatchUp.ALL.value: "a task for each",
    CatchUp.NONE.value: "nothing",
}
CHOICES = {
    "kinds": {"interval": "Interval", "cron": "Cron", "calendar": "Calendar", "rrule": "RFC 5545"},
    "intervals": list(fields.INTERVALS),
    "units": list(calendar_rules.UNITS),
    "windows": list(fields.WINDOWS),
    "overlaps": OVERLAPS,
    "catch_ups": CATCH_UPS,
    "positions": calendar_rules.POSITIONS,
    "weekdays": dict(zip(WEEKDAYS, rule_words.WEEKDAYS, strict=True)),
    "months": dict(enumerate(rule_words.MONTHS, 1)),
    "priorities": PRIORITIES,
    "ends": {status: status.capitalize() for status in ENDS},
}


class Preview(NamedTuple):
    words: str = ""
    zone: str = ""
    zone_words: str = ""
    times: list[tuple[Time, str | None]] = []  # noqa: RUF012 (never changed)
    errors: tuple[str, ...] = ()
    jitter: int = 0  # seconds


@blp.get("/schedules/new")
@needs(Scope.WRITE)
def new_schedule() -> BaseResponse:
    typed: Typed = MultiDict(fields.NEW)
    reached, wanted = _reached(), request.args.get("operation", "")
    typed["operation"] = wanted if wanted in reached else next(iter(reached), "")
    return _page(typed, None)


@blp.post("/schedules/new")
@needs(Scope.WRITE)
def create_schedule() -> BaseResponse:
    return _answer(None)


@blp.get("/schedules/<id:task_schedule_id>/edit")
@needs(Scope.WRITE)
def edit_schedule(task_schedule_id: int) -> BaseResponse:
    schedule = task_schedules.get(task_schedule_id)
    return _page(fields.of(schedule), schedule)


@blp.post("/schedules/<id:task_schedule_id>/edit")
@needs(Scope.WRITE)
def change_schedule(task_schedule_id: int) -> BaseResponse:
    return _answer(task_schedules.get(task_schedule_id))


@blp.post("/schedules/preview")
@needs(Scope.WRITE)
def preview_schedule() -> str:
    """The part of the page that changes as one types."""
    number = request.form.get("task_schedule_id", "")
    schedule = task_schedules.get(int(number)) if number.isdecimal() and len(number) < 19 else None
    now = clock()
    return render_template("schedule_preview.html", preview=_preview(request.form, schedule, now), now=now)


def _answer(schedule: TaskSchedule | None) -> BaseResponse:
    if request.form.get("do") != "save":  # it asks for another operation's fields, or for the next times
        return _page(request.form, schedule)
    try:
        saved = _save(request.form, schedule)
    except ValidationError as error:
        return _page(request.form, schedule, error.messages_dict)
    except Invalid as error:
        return _page(request.form, schedule, (error.errors or {}).get("json") or {"_schema": [error.message]})
    return told(
        url_for("dashboard.schedule", task_schedule_id=saved.task_schedule_id),
        "The schedule is changed." if schedule else "The schedule is made.",
    )


def _page(typed: Typed, schedule: TaskSchedule | None, errors: Errors | None = None) -> Response:
    now, known = clock(), operations.lookup(typed.get("operation", ""))
    params = schedule.params if schedule and known and known.name == schedule.operation else {}
    posted, wrong = request.form if request.method == "POST" else None, (errors or {}).get("params")
    return page(
        "schedule_form.html",
        here="schedules",
        status=422 if errors else 200,
        typed=typed,
        schedule=schedule,
        errors=fields.shown(errors or {}),
        preview=_preview(typed, schedule, now),
        operation=known,
        operations=_reached(),
        inputs=forms.inputs(known.params, params, prefix=fields.PARAMS, posted=posted, errors=wrong) if known else [],
        zones=recurrence.zone_names(),
        usual=(known.retry if known else USUAL),
        now=now,
        **CHOICES,
    )


def _save(typed: Typed, schedule: TaskSchedule | None) -> TaskSchedule:
    body, errors = fields.body(typed, schedule)
    schema = TaskScheduleChange() if schedule else TaskScheduleRequest()
    try:
        loaded = schema.load(body)
    except ValidationError as error:
        raise ValidationError(fields.merged(error.messages_dict, errors)) from None
    if errors:
        raise ValidationError(errors)
    if schedule:
        return task_schedules.change(schedule.task_schedule_id, now=clock(), **loaded)
    return task_schedules.create(now=clock(), **loaded)


def _preview(typed: Typed, schedule: TaskSchedule | None, now: datetime) -> Preview:
    body, errors = fields.rule(typed, schedule)
    try:
        rule = RuleRequest().load(body)
        if errors:
            raise ValidationError(errors)
        return _next(rule, schedule, now)._replace(jitter=fields.jitter(typed))
    except ValidationError as error:
        errors = fields.merged(error.messages_dict, errors)
    except Invalid as error:
        errors = (error.errors or {}).get("json", {})
    return Preview(errors=tuple(message for said in fields.shown(errors).values() for message in said))


def _next(rule: dict[str, Any], schedule: TaskSchedule | None, now: datetime) -> Preview:
    if schedule:
        times = occurrences.compare(schedule.task_schedule_id, now=now, limit=SHOWN, **rule)
        meant = task_schedules.changed(schedule, now=now, **rule)
    else:
        times = [(time, None) for time in occurrences.preview(now=now, limit=SHOWN, **rule)]
        meant = task_schedules.draft(now=now, **rule)
    words = rule_words.in_words(task_schedules.rule_of(meant))
    return Preview(words, meant.timezone, zone_words(meant.timezone, now), times)


def zone_words(name: str, now: datetime) -> str:
    """now UTC+2, from 29 March 2027 UTC+3"""
    zone = recurrence.zone(name)
    change = clock_changes.following(zone, now)
    if change is None:
        return _offset(now.astimezone(zone))
    then = change.astimezone(zone)
    day = f"{then.day} {rule_words.MONTHS[then.month - 1]} {then.year}"
    return f"now {_offset(now.astimezone(zone))}, from {day} {_offset(then)}"


@blp.app_template_filter("utc_offset")
def _offset(local: datetime) -> str:
    """UTC, UTC+2, UTC+5:30"""
    offset = local.utcoffset()
    assert offset is not None
    minutes = offset // timedelta(minutes=1)
    hours, rest = divmod(abs(minutes), 60)
    return f"UTC{'+' if minutes > 0 else '-'}{hours}{f':{rest:02}' if rest else ''}" if minutes else "UTC"


def _reached() -> list[str]:
    """The operations that the caller may schedule."""
    return [one.name for one in operations.offered() if not callers.wrong_reach(one.name)]
