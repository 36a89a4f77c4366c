"""The fields of a schedule's form: from a schedule, and back to what the API's schemas take."""

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from marshmallow import ValidationError
from werkzeug.datastructures import MultiDict

from scheduler_app import operations, recurrence
from scheduler_app.dashboard import calendar_rules, forms
from scheduler_app.models import CatchUp, Overlap, TaskSchedule
from scheduler_app.operations import USUAL_PAUSES
from scheduler_app.recurrence import DAY, HOUR, MINUTE, SECOND, InvalidRule
from scheduler_app.schemas.task_schedules import MAX_JITTER
from scheduler_app.services import task_schedules

INTERVALS = {"minutes": "every_x_minutes", "hours": "every_x_hours", "days": "every_x_days"}
WINDOWS = {"days": DAY, "hours": HOUR, "minutes": MINUTE, "seconds": SECOND}
NAMES = {"schedule_x_times": "at_most", "catch_up_window": "window"} | dict.fromkeys(INTERVALS.values(), "every")
PARAMS = "params."  # begins the names of the operation's parameters
PAUSES = {f"retry.{name}": name for name in USUAL_PAUSES}  # by the names of the form
NEW = {
    **calendar_rules.DEFAULTS,
    "kind": "interval",
    "every": "1",
    "unit": "hours",
    "timezone": "UTC",
    "priority": "5",
    "overlap": Overlap.ALLOW.value,
    "catch_up": CatchUp.LATEST.value,
    "window": "1",
    "window_unit": "days",
}

Typed = MultiDict[str, str]
Errors = dict[str, Any]  # messages by field


def of(schedule: TaskSchedule) -> Typed:
    """The fields that show this schedule, without its parameters."""
    zone = recurrence.zone(schedule.timezone)
    window = timedelta(seconds=schedule.catch_up_window)
    unit = next(name for name, size in WINDOWS.items() if not window % size)
    typed: Typed = MultiDict(NEW)
    for name in ("name", "cron", "rrule", "timezone", "operation", "priority", "max_retries", "overlap", "catch_up"):
        typed[name] = _text(getattr(schedule, name))
    typed["start_at"], typed["end_at"] = (_local(at, zone) for at in (schedule.start_at, schedule.end_at))
    typed["at_most"] = _text(schedule.schedule_x_times)
    typed["expires_in"], typed["overlap_max"] = _text(schedule.expires_in), _text(schedule.overlap_max)
    typed["jitter"] = _text(schedule.jitter or None)
    typed["group"] = _text(schedule.group)
    for name in ("url", "sign_with"):
        typed[f"callback.{name}"] = _text((schedule.callback or {}).get(name))
    typed.setlist("callback.on", (schedule.callback or {}).get("on", []))
    typed["labels"] = "\n".join(map(":".join, (schedule.labels or {}).items()))
    for name, value in (schedule.retry or USUAL_PAUSES).items():
        typed[f"retry.{name}"] = f"{value:g}"
    typed["window"], typed["window_unit"] = str(window // WINDOWS[unit]), unit
    if schedule.pause_on_failure:
        typed["pause_on_failure"] = "on"
    for name, values in _rule_of(schedule, zone).lists():
        typed.setlist(name, values)
    return typed


def _rule_of(schedule: TaskSchedule, zone: ZoneInfo) -> Typed:
    if schedule.cron is not None:
        return MultiDict({"kind": "cron"})
    if schedule.rrule is not None:
        fields = calendar_rules.taken_apart(schedule.rrule, schedule.anchor_at.astimezone(zone))
        return MultiDict({"kind": "rrule"}) if fields is None else fields
    given = [(name, getattr(schedule, column) or 0) for name, column in INTERVALS.items()]
    unit, number = max(given, key=lambda one: one[1] * WINDOWS[one[0]])
    return MultiDict({"kind": "interval", "every": str(number), "unit": unit})


def rule(typed: Typed, schedule: TaskSchedule | None) -> tuple[dict[str, Any], Errors]:
    """What RuleRequest takes, and the errors that it would not find. `schedule` is the one that is changed."""
    body: dict[str, Any] = {name: None for kind in task_schedules.KINDS for name in kind}
    errors: Errors = {}
    kind, zone_name = typed.get("kind", ""), typed.get("timezone", "").strip() or "UTC"
    if kind == "interval":
        body[INTERVALS.get(typed.get("unit", ""), "every_x_hours")] = _whole(typed, "every") or ""
    elif kind == "cron":
        body["cron"] = " ".join(typed.get("cron", "").split())
    elif kind == "calendar":
        try:
            body["rrule"] = _calendar(typed, schedule)
        except ValidationError as error:
            errors |= error.messages_dict
    else:
        body["rrule"] = typed.get("rrule", "").strip()
    try:
        zone = recurrence.zone(zone_name)
    except InvalidRule:  # the schema says so
        zone = recurrence.zone("UTC")
    times = {name: moment(typed.get(name, "").strip(), zone) for name in ("start_at", "end_at")}
    return body | times | {"timezone": zone_name, "schedule_x_times": _whole(typed, "at_most")}, errors


def _calendar(typed: Typed, schedule: TaskSchedule | None) -> str:
    """A rule that means the same stays as it is written, so that the schedule does not count from now."""
    if schedule and schedule.rrule is not None and schedule.timezone == typed.get("timezone"):
        start = schedule.anchor_at.astimezone(recurrence.zone(schedule.timezone))
        if calendar_rules.same(typed, schedule.rrule, start):
            return schedule.rrule
    return calendar_rules.build(typed)


def body(typed: Typed, schedule: TaskSchedule | None) -> tuple[dict[str, Any], Errors]:
    """What TaskScheduleRequest or TaskScheduleChange takes, and the errors that it would not find."""
    fields, errors = rule(typed, schedule)
    window = _whole(typed, "window")
    if isinstance(window, int):
        window = window * WINDOWS.get(typed.get("window_unit", ""), DAY) // SECOND if window < 10**9 else 10**9
    overlap: Any = typed.get("overlap")
    fields |= {
        "name": typed.get("name", "").strip() or None,
        "priority": _whole(typed, "priority"),
        "overlap": {"max": _whole(typed, "overlap_max")} if overlap == Overlap.MAX else overlap,
        "jitter": _whole(typed, "jitter") or 0,
        "catch_up": typed.get("catch_up"),
        "catch_up_window": window,
        "expires_in": _whole(typed, "expires_in"),
        "labels": _labels(typed),
        "group": typed.get("group", "").strip() or None,
        "callback": _callback(typed),
        "pause_on_failure": "pause_on_failure" in typed,
        "retry": {name: value for key, name in PAUSES.items() if (value := _number(typed, key)) is not None} or None,
    }
    retries = _whole(typed, "max_retries")
    fields |= {"max_retries": retries} if retries is not None or not schedule else {}
    name = typed.get("operation", "")
    known = operations.lookup(name)
    if known:
        try:
            fields |= {"params": {}} | {"params": forms.read(known.params, typed, prefix=PARAMS)}
        except forms.Unreadable as error:
            errors |= {"params": error.messages_dict}
            fields |= {"params": {}}
    if known or not (schedule and schedule.operation == name):  # one that is not known here stays as it is
        fields["operation"] = name
    return fields, errors


def jitter(typed: Typed) -> int:
    """In seconds; 0 if there is none that could be saved."""
    seconds = _whole(typed, "jitter")
    return seconds if isinstance(seconds, int) and 0 <= seconds <= MAX_JITTER else 0


def merged(found: Errors, own: Errors) -> Errors:
    """The errors of a schema, and those that were found before. The latter come first where both are."""
    if any(name.startswith("cal.") for name in own):  # the rule is missing only because of them
        found = {name: at for name, at in found.items() if not any(name in kind for kind in task_schedules.KINDS)}
    return found | own


def shown(errors: Errors) -> dict[str, list[str]]:
    """By the names of the form, each message once."""
    by_name: dict[str, list[str]] = {}
    if isinstance(labels := errors.get("labels"), dict):
        errors = errors | {"labels": [f"{name}: {said}" for name, all_said in labels.items() for said in all_said]}
    groups = {group: at for group in ("retry", "callback") if isinstance(at := errors.get(group), dict)}
    inner = {f"{group}.{name}": at for group, below in groups.items() for name, at in below.items()}
    for name, at in (errors | inner).items():
        for message in at if isinstance(at, list) and name != "params" else []:
            said = by_name.setdefault(NAMES.get(name, name), [])
            said += [message] if message not in said else []
    return by_name


def _whole(typed: Typed, name: str) -> int | str | None:
    """A number, or the text that is none, for the schema to refuse."""
    text = typed.get(name, "").strip()
    return int(text) if text.isascii() and text.removeprefix("-").isdecimal() and len(text) < 19 else text[:50] or None


def _labels(typed: Typed) -> dict[str, str] | None:
    lines = typed.get("labels", "")[:4_000].splitlines()
    parts = [line.partition(":") for line in lines if line.strip()]
    return {name.strip(): value.strip() for name, _, value in parts} or None


def _callback(typed: Typed) -> dict[str, Any] | None:
    """Without a chosen status it is told of all."""
    texts = {name: typed.get(f"callback.{name}", "").strip() for name in ("url", "sign_with")}
    given: dict[str, Any] = {name: text for name, text in texts.items() if text}
    return given | ({"on": on} if (on := typed.getlist("callback.on")) else {}) if given else None


def _number(typed: Typed, name: str) -> float | str | None:
    text = typed.get(name, "").strip()
    try:
        return float(text[:50]) if text else None
    except ValueError:
        return text[:50]


def moment(text: str, zone: ZoneInfo) -> str | None:
    """A local time of the zone as one with an offset; other text as it is, for the schema to refuse."""
    try:
        local = datetime.fromisoformat(text[:40])
    except ValueError:
        return text[:40] or None
    return local.replace(tzinfo=local.tzinfo or zone).isoformat()


def _local(at: datetime | None, zone: ZoneInfo) -> str:
    """As an input of type datetime-local takes it."""
    return f"{at.astimezone(zone):%Y-%m-%dT%H:%M{':%S' if at.second else ''}}" if at else ""


def _text(value: Any) -> str:
    return "" if value is None else str(value)
