"""Many tasks at once: a page that says what will happen to which, before anything does."""

import time
from typing import Any

from flask import request, url_for
from werkzeug.wrappers import Response

from scheduler_app.access import needs
from scheduler_app.access_models import Scope
from scheduler_app.dashboard import search
from scheduler_app.dashboard.frame import blp, page, told
from scheduler_app.dashboard.texts import plural
from scheduler_app.database import clock
from scheduler_app.errors import Invalid
from scheduler_app.models import FINISHED
from scheduler_app.services import bulk
from scheduler_app.services.bulk import Chosen
from scheduler_app.services.control import CANCELLABLE, RETRIABLE

MOST_IDS = 1_000
AT_ONCE = 1_000  # tasks of one transaction
LONGEST = 4.0  # seconds after which no further transaction begins
ACTS = {"retry": (bulk.retry, RETRIABLE), "cancel": (bulk.cancel, CANCELLABLE), "delete": (bulk.remove, FINISHED)}
DONE = {"retry": "retried", "cancel": "cancelled or asked to stop", "delete": "deleted"}


@blp.get("/many")
@needs(Scope.WRITE)
def many() -> Response:
    action = request.args.get("action", "")
    if action not in ACTS:
        raise Invalid("Choose what to do: retry, cancel or delete.")
    conditions, asked, ids = _conditions(action, request.args)
    found: dict[str, Any] = {"remaining": 0, "tasks": [], "next_cursor": None}
    if conditions is not None:
        found = ACTS[action][0](Chosen(conditions, AT_ONCE, dry_run=True), now=clock())
    which = [("chosen by hand:", plural(len(ids), "task"))] if ids else search.in_words(asked)
    shown: dict[str, Any] = {
        "action": action,
        "allowed": ACTS[action][1],
        "which": which,
        "asked": asked,
        "ids": ids,
        "found": found,
    }
    return page("many.html", here="tasks", **shown)


@blp.post("/many/retry")
@needs(Scope.WRITE)
def retry_many() -> Response:
    return _act("retry")


@blp.post("/many/cancel")
@needs(Scope.WRITE)
def cancel_many() -> Response:
    return _act("cancel")


@blp.post("/many/delete")
@needs(Scope.ADMIN)
def delete_many() -> Response:
    return _act("delete")


def _act(action: str) -> Response:
    """One transaction after the other, for some seconds. What is left then takes another press of the button."""
    conditions, asked, ids = _conditions(action, request.form)
    reached, cursor, until = 0, None, time.monotonic() + LONGEST
    while conditions is not None:
        answer = ACTS[action][0](Chosen(conditions, AT_ONCE, cursor), now=clock())
        reached += len(answer["task_ids"])
        cursor = answer["next_cursor"]
        if cursor is None or time.monotonic() > until:
            break
    message = f"{plural(reached, 'task')} {DONE[action]}."
    if cursor is not None:
        more = url_for("dashboard.many", action=action, q=asked.text, id=ids)
        return told(more, f"{message} There are more: press again.")
    return told(url_for("dashboard.tasks", q="" if ids else asked.with_status(None)), message)


def _conditions(action: str, given: Any) -> tuple[dict[str, Any] | None, search.Search, list[int]]:
    """As `tasks.filtered` takes them; None when no task can meet them. Raises Invalid."""
    asked = search.read(given.get("q", ""))
    texts = given.getlist("id")
    if len(texts) > MOST_IDS or not all(text.isdecimal() and text.isascii() and len(text) < 19 for text in texts):
        raise Invalid(f"At most {MOST_IDS:,} tasks, each by its number.")
    if texts:
        return {"task_id": [int(text) for text in texts]}, asked, [int(text) for text in texts]
    if asked.wrong or asked.words:
        raise Invalid(" ".join(asked.wrong) or "Words cannot choose many tasks: tick them instead.")
    wanted = asked.conditions.get("status")
    statuses = [status for status in ACTS[action][1] if wanted is None or status in wanted]
    return (asked.conditions | {"status": statuses} if statuses else None), asked, []
