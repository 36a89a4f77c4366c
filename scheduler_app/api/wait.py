"""The parameter `wait`: an answer that comes as soon as the task has ended."""

import logging
import time
from collections.abc import Callable
from functools import wraps
from http import HTTPStatus
from typing import Any

from flask import Response
from sqlalchemy.exc import SQLAlchemyError

from scheduler_app.access.admission import admission
from scheduler_app.access.quiet import only_waits
from scheduler_app.errors import TaskNotFound, Unavailable
from scheduler_app.schemas.base import QuerySchema
from scheduler_app.schemas.fields import Number
from scheduler_app.services import tasks
from scheduler_app.services.ends import TooManyWait, ends

log = logging.getLogger(__name__)

LONGEST = 60  # seconds
FULL = {"Backbeat-Wait": "full"}
HEADER = {
    "Backbeat-Wait": {
        "description": "`full`: so many requests wait that this one was answered at once.",
        "schema": {"type": "string"},
    }
}


class WaitQuery(QuerySchema):
    wait = Number(
        0,
        LONGEST,
        load_default=0,
        metadata={"description": "Seconds to wait for the task's end. The answer comes as soon as the task has ended."},
    )


def wait(task_id: int, seconds: int) -> dict[str, str]:
    """Returns once the task has ended, or after so many seconds. Returns headers for the answer.

    Meanwhile the request has no connection to the database. It waits no longer when its client has left. Raises
    TaskNotFound.
    """
    if not seconds or tasks.has_ended(task_id):
        return {}
    until = time.monotonic() + seconds
    try:
        with ends.place():
            while not _has_ended(task_id, until):
                pass
    except TooManyWait:
        return FULL
    return {}


def _has_ended(task_id: int, until: float) -> bool:
    """Waits until the task may have ended. Whether it has, or is not to be waited for any longer."""
    with ends.told(task_id) as over:
        if tasks.has_ended(task_id):
            return True
        with admission.outside(), only_waits(over) as given_up:
            over.wait(max(0.0, until - time.monotonic()))
    # The whole row: whoever answers then has it.
    return given_up.is_set() or time.monotonic() >= until or tasks.get(task_id).finished_at is not None


def then_wait(view: Callable[..., Any]) -> Callable[..., Any]:
    """For a view that posts a task. The answer to a repeated request waits, too, and shows the task as it is then."""

    @wraps(view)
    def wrapper(query: dict[str, int], *args: Any, **kwargs: Any) -> Any:
        answer = view(*args, **kwargs)
        if not query["wait"]:
            return answer
        task_id, status, headers = _posted(answer)
        try:
            headers = headers | wait(task_id, query["wait"])
            task = tasks.get(task_id)
        except (TaskNotFound, Unavailable, SQLAlchemyError) as error:
            # The task was accepted, and the answer must say so.
            log.warning("task %d: posted, and cannot be read: %s", task_id, error, extra={"task_id": task_id})
            return answer
        return task, HTTPStatus.OK if task.finished_at else status, headers

    return wrapper


def _posted(answer: Any) -> tuple[int, int, dict[str, str]]:
    """The task of an answer, and the answer's status and headers."""
    if isinstance(answer, Response):
        names = ("Location", "Idempotent-Replayed")
        return answer.get_json()["task_id"], answer.status_code, {name: answer.headers[name] for name in names}
    task, status, headers = answer
    return task.task_id, status, headers
