"""/tasks/{task_id}/logs/"""

import logging
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from flask import Response, stream_with_context
from sqlalchemy.exc import SQLAlchemyError

from scheduler_app.access import needs
from scheduler_app.access.admission import admission
from scheduler_app.access.quiet import only_waits
from scheduler_app.access_models import Scope
from scheduler_app.api import answer_examples as answers
from scheduler_app.api.body import Blueprint
from scheduler_app.errors import Unavailable
from scheduler_app.schemas.attempt_logs import LogOut, LogQuery
from scheduler_app.services import attempt_logs
from scheduler_app.services.attempt_logs import START, Line, Place
from scheduler_app.services.ends import TooManyWait, ends

log = logging.getLogger(__name__)

LOOK = 1.0  # seconds between two looks for new lines
LAST_LINES = 3  # looks after the end: the last lines of an attempt are written a moment later

blp = Blueprint("logs", __name__, url_prefix="/tasks", description="What operations log.")


@blp.route("/<id:task_id>/logs/", methods=["GET"])
@needs(Scope.READ)
@blp.arguments(LogQuery, location="query")
@blp.response(200, LogOut, example=answers.LOG)
@blp.doc(responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}})
def read_log(query: dict[str, Any], task_id: int) -> Any:
    """Read what an attempt has logged

    The first 64 KiB and the last 192 KiB of each attempt are kept; a line in between says how many are left out. What
    has just been logged is there within about a second. With `follow` the answer is text instead.
    """
    places = attempt_logs.attempts(task_id)
    chosen = _chosen(places, query.get("attempt"))
    after = (chosen.claim, query["after"]) if chosen else START
    if query["follow"]:
        only = chosen.claim if chosen and "attempt" in query else None
        follows = "attempt" not in query or chosen  # what has not begun has nothing to follow yet
        stream = _follow(task_id, only, after if query["after"] or only else START) if follows else iter(())
        return Response(stream_with_context(stream), mimetype="text/plain")
    lines = attempt_logs.read(task_id, claim=chosen.claim, after=after) if chosen else []
    return {
        "attempts": sorted({place.attempt for place in places}),
        "attempt": chosen.attempt if chosen else query.get("attempt"),
        "lines": [line._asdict() for line in lines],
        "complete": attempt_logs.is_over(task_id, chosen.claim if chosen else None),
    }


def _chosen(places: list[Place], attempt: int | None) -> Place | None:
    """The latest; after a retry by hand attempts are numbered from 1 again."""
    found = [place for place in places if attempt in (None, place.attempt)]
    return found[-1] if found else None


def _follow(task_id: int, claim: int | None, last: tuple[int, int]) -> Iterator[str]:
    """The lines after the last one. Ends when no more come, the client has left, or at once when too many wait."""
    with suppress(TooManyWait), ends.place(), only_waits(threading.Event()) as given_up:
        looks_left = LAST_LINES
        while looks_left and not given_up.is_set():
            lines, over = _look(task_id, claim, last)
            yield "".join(f"{line.text}\n" for line in lines)
            if lines:
                last = (lines[-1].claim, lines[-1].number)
            if over:
                looks_left -= 1
            given_up.wait(LOOK if looks_left else 0)
        return
    lines, _ = _look(task_id, claim, last)
    yield "".join(f"{line.text}\n" for line in lines)


def _look(task_id: int, claim: int | None, last: tuple[int, int]) -> tuple[list[Line], bool]:
    try:
        with admission.inside():
            over = attempt_logs.is_over(task_id, claim)
            return attempt_logs.read(task_id, claim=claim, after=last), over
    except (Unavailable, SQLAlchemyError) as error:
        log.warning("the log of task %d cannot be read now: %s", task_id, error)
        return [], False
