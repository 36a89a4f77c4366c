"""Where is that task?"""

import re
from typing import Any

from flask import redirect, request, url_for
from werkzeug.wrappers import Response

from scheduler_app import operations
from scheduler_app.access import needs
from scheduler_app.access_models import Scope
from scheduler_app.dashboard import search
from scheduler_app.dashboard.frame import blp, latest, page
from scheduler_app.models import Status
from scheduler_app.services import callers, task_search
from scheduler_app.services.counts import MOST
from scheduler_app.services.task_search import Page

ROWS = 50  # of a page
NOTHING = Page([], None, {}, None, None)


@blp.get("/tasks")
@needs(Scope.READ)
def tasks() -> Response:
    asked = search.read(request.args.get("q", ""))
    if asked.task_id is not None:
        return redirect(url_for("dashboard.task", task_id=asked.task_id))
    cursor = asked_cursor()
    key = "tasks", asked.text, cursor, callers.bounds()
    found = NOTHING if asked.wrong else latest(key, lambda: _find(asked, cursor))
    shown: dict[str, Any] = {"asked": asked, "cursor": cursor, "found": found, "suggestions": _suggestions()}
    return page("tasks.html", here="tasks", **shown, **_tabs(asked, found))


def asked_cursor() -> int | None:
    text = request.args.get("cursor", "")
    return int(text) if re.fullmatch(r"[1-9]\d{0,17}", text) else None


def _find(asked: search.Search, cursor: int | None) -> Page:
    return task_search.find(asked.conditions, asked.words, limit=ROWS, cursor=cursor)


def _tabs(asked: search.Search, found: Page) -> dict[str, Any]:
    """Each status with the search for it; and what is chosen now."""
    chosen = asked.conditions.get("status", [])
    tabs = [(status.value, asked.with_status(status.lower()), found.by_status.get(status, 0)) for status in Status]
    return {
        "tabs": tabs,
        "chosen": chosen[0] if len(chosen) == 1 else None,
        "everything": min(sum(found.by_status.values()), MOST),
    }


def _suggestions() -> list[str]:
    """For the end of what is typed."""
    names = [f"operation:{one.name}" for one in operations.registered() if not callers.wrong_reach(one.name)]
    return [
        *names[:100],
        *(f"status:{status.lower()}" for status in Status),
        "priority:0-3",
        "schedule:",
        "label:",
        "group:",
        "unique:",
        "error:",
        "by:",
        "after:",
        "ended-after:",
    ]
