"""Who did that? The audit log in plain words."""

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, NamedTuple

from flask import Response, current_app, request, url_for

from scheduler_app.access import PAGES, needs
from scheduler_app.access_models import AuditEntry, Scope
from scheduler_app.dashboard import texts
from scheduler_app.dashboard.frame import blp, page
from scheduler_app.errors import BadRequest
from scheduler_app.schemas.fields import MAX_ID, YEARS
from scheduler_app.services import audit

PAGE = 100  # entries
LONGEST = 300  # characters of details
FIELDS = {"who": "caller", "what": "action", "on": "target", "from": "address"}  # in the URL, and their columns


class Deed(NamedTuple):
    says: str  # the target follows it
    view: str = ""  # the page of the target, where there is one,
    name: str = ""  # and the target's name in its address


TASK, SCHEDULE, PRIORITY = ("task", "task_id"), ("schedule", "task_schedule_id"), ("priority", "priority")
DEEDS = {
    "Tasks": {
        "task.replace": Deed("replaced the parameters of task", *TASK),
        "task.cancel": Deed("cancelled task", *TASK),
        "task.retry": Deed("retried task", *TASK),
        "task.change": Deed("changed task", *TASK),
        "task.delete": Deed("deleted task"),
        "tasks.cancel": Deed("cancelled tasks"),
        "tasks.retry": Deed("retried tasks"),
        "tasks.delete": Deed("deleted finished tasks"),
    },
    "Schedules": {
        "task-schedule.create": Deed("made schedule", *SCHEDULE),
        "task-schedule.change": Deed("changed schedule", *SCHEDULE),
        "task-schedule.delete": Deed("deleted schedule"),
        "task-schedule.pause": Deed("paused schedule", *SCHEDULE),
        "task-schedule.resume": Deed("resumed schedule", *SCHEDULE),
        "task-schedule.trigger": Deed("triggered schedule", *SCHEDULE),
        "task-schedule.backfill": Deed("backfilled schedule", *SCHEDULE),
    },
    "Priorities": {
        "queue.pause": Deed("paused priority", *PRIORITY),
        "queue.resume": Deed("resumed priority", *PRIORITY),
        "queue.purge": Deed("purged priority", *PRIORITY),
    },
    "Limits": {
        "limit.change": Deed("changed limit", "limits"),
        "limit.reset": Deed("took back what was set of limit", "limits"),
    },
    "Keys": {
        "key.create": Deed("made key", "keys"),
        "key.rotate": Deed("rotated key", "keys"),
        "key.revoke": Deed("revoked key", "keys"),
    },
}
ALL_DEEDS = {action: deed for group in DEEDS.values() for action, deed in group.items()}


@blp.get("/log")
@needs(Scope.ADMIN)
def log() -> Response:
    given = {name: request.args.get(name, "").strip()[:100] for name in (*FIELDS, "until")}
    equal = {column: given[name] for name, column in FIELDS.items() if given[name]}
    begin = _cursor() or _end_of(given["until"])
    entries, following = audit.find(limit=PAGE, cursor=begin, **equal)
    query: dict[str, Any] = {name: value for name, value in given.items() if value}
    return page(
        "log.html", here="log", entries=[_told(entry) for entry in entries], deeds=DEEDS, given=given, query=query,
        older=following and url_for("dashboard.log", **query, before=following),
        newest=_cursor() and url_for("dashboard.log", **query),
        searched_to=audit.time_of(following) if following and len(entries) < PAGE else None,
    )  # fmt: skip


def _cursor() -> int | None:
    text = request.args.get("before", "")
    if text and not (text.isascii() and text.isdecimal() and 0 < int(text[:20]) <= MAX_ID):
        raise BadRequest("before: the number of an entry, as the page's own links have it.")
    return int(text) if text else None


def _end_of(day: str) -> int | None:
    try:
        end = date.fromisoformat(day) + timedelta(days=1) if day else None
    except (ValueError, OverflowError):
        raise BadRequest("until: a day such as 2026-11-24.") from None
    if end is None:
        return None
    if end.year not in YEARS:
        raise BadRequest(f"until: a day of the years {YEARS.start} to {YEARS.stop - 1}.")
    return audit.cursor_at(datetime.combine(end, time(), UTC))


def _told(entry: AuditEntry) -> dict[str, Any]:
    deed = ALL_DEEDS.get(entry.action, Deed(entry.action))
    return {
        "id": entry.audit_id,
        "at": entry.at,
        "who": entry.caller,
        "says": deed.says,
        "target": entry.target,
        "url": _address(deed, entry.target),
        "details": _in_words(entry.details or {})[:LONGEST],
        "count": entry.count,
        "from": entry.address,
    }


def _address(deed: Deed, target: str | None) -> str | None:
    endpoint = f"{PAGES}.{deed.view}"
    if target is None or endpoint not in current_app.view_functions:
        return None
    values: dict[str, Any] = {deed.name: target} if deed.name else {}
    return url_for(endpoint, **values)


def _in_words(details: dict[str, Any]) -> str:
    return ", ".join(DETAILS.get(name, _plainly(name))(value) for name, value in details.items() if value is not None)


def _plainly(name: str) -> Callable[[Any], str]:
    return lambda value: f"{name.replace('_', ' ')} {_listed(value)}"


def _listed(value: Any) -> str:
    return " or ".join(map(str, value)) if isinstance(value, list) else str(value)


def _moment(value: Any) -> str:
    return f"{datetime.fromisoformat(value).astimezone(UTC):%Y-%m-%d %H:%M} UTC"


DETAILS: dict[str, Callable[[Any], str]] = {
    "note": lambda note: f"“{note}”",
    "fields": lambda fields: ", ".join(field.replace("_", " ") for field in fields),
    "operations": lambda names: f"only {', '.join(names)}",
    "rate": lambda rate: texts.pace(rate) if isinstance(rate, dict) else f"rate {rate}",
    "overlap_seconds": lambda seconds: f"the secret before works {seconds / 3600:g} h more",
    "expires_at": lambda time: f"till {_moment(time)}",
    "start": lambda time: f"from {_moment(time)}",
    "end": lambda time: f"to {_moment(time)}",
    "created_after": lambda time: f"created after {_moment(time)}",
    "created_before": lambda time: f"created before {_moment(time)}",
    "task_id": lambda ids: "chosen by number",
}
