"""/tasks/"""

import json
from collections.abc import Iterable
from typing import Any

from flask import request, url_for
from marshmallow import ValidationError
from webargs import core

from scheduler_app.access import needs
from scheduler_app.access_models import Scope
from scheduler_app.api import answer_examples as answers
from scheduler_app.api.body import Blueprint, read_json
from scheduler_app.api.idempotency import PARAMETER, MakeOnce, idempotent
from scheduler_app.api.pages import next_page
from scheduler_app.api.wait import HEADER, WaitQuery, then_wait, wait
from scheduler_app.callback import CALLBACK
from scheduler_app.database import clock
from scheduler_app.errors import Invalid
from scheduler_app.schemas.tasks import (
    BatchOut,
    BatchQuery,
    ListedTaskOut,
    TaskChange,
    TaskDetailOut,
    TaskOut,
    TaskQuery,
    TaskRequest,
)
from scheduler_app.services import callbacks, callers, control, listing, tasks, waiting
from scheduler_app.services.unique import Refusal

MAX_BATCH = 1_000
MAX_ERRORS = 262_144  # characters of JSON that a batch reports in all: it is kept to be repeated
NOT_SHOWN = {"_schema": ["Not valid. The errors of this batch are too long to be shown from here on."]}

TASK_REQUEST, BATCH_OUT = TaskRequest(), BatchOut()

blp = Blueprint("tasks", __name__, url_prefix="/tasks", description="Units of work, and their outcomes.")

LOCATION = {"Location": {"description": "The task.", "schema": {"type": "string"}}}
LIST_OF_REQUESTS = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {"type": "array", "maxItems": MAX_BATCH, "items": {"$ref": "#/components/schemas/TaskRequest"}},
            "example": [{"operation": "4+7", "priority": 9}, {"operation": "4+9", "priority": 1}],
        }
    },
}


@blp.route("/", methods=["POST"])
@needs(Scope.WRITE)
@blp.arguments(WaitQuery, location="query")
@blp.arguments(TaskRequest)  # its examples are made with the application, see task_examples
@blp.doc(parameters=[PARAMETER])
@blp.response(202, TaskOut, example=answers.PENDING, headers=LOCATION | HEADER)
@blp.alt_response(
    200,
    schema=TaskOut,
    examples=answers.THERE,
    headers=LOCATION,
    description="It has ended while you waited, or it was there already and has the key of `unique`.",
)
@blp.alt_response(409, description="The task that has the key of `unique` has begun, and cannot be replaced.")
@then_wait
@idempotent
def submit_task(body: dict[str, Any], once: MakeOnce) -> tuple[Any, int, dict[str, str]]:
    """Post a task

    When the answer comes, the task is committed. It runs as soon as it is due and a worker is free. With `wait` the
    answer comes when the task has ended, or shows its state after so many seconds. With `unique` it may be a task that
    was there already: then the answer is 200.
    """
    [task] = tasks.submit([body], now=clock(), once=once(_answer))
    return task, _status(task), _location(task)


@blp.route("/batch-request/", methods=["POST"])
@needs(Scope.WRITE)
@blp.doc(requestBody=LIST_OF_REQUESTS, parameters=[PARAMETER])
@blp.arguments(BatchQuery, location="query")
@blp.response(202, BatchOut, example=answers.BATCH)
@blp.alt_response(409, description="With `atomic`: a task that has a key of `unique` has begun.")
@blp.alt_response(422, description="No task is valid, or `atomic` is set and one is not valid. Nothing was created.")
@idempotent
def submit_tasks(query: dict[str, Any], once: MakeOnce) -> dict[str, Any]:
    """Post up to 1,000 tasks

    The valid tasks are created in one transaction, and the others are reported. With `atomic`, all are created or none.
    A task in the answer may have been there before, see `existing`.
    """
    valid, errors = _load_batch(read_json(request))
    if errors and (query["atomic"] or not valid):
        raise _nothing(errors)
    partly = not query["atomic"]

    def answer(created: Any) -> dict[str, Any]:
        return {"body": BATCH_OUT.dump(_told(created, valid, errors)), "status": 202, "headers": {}}

    created = tasks.submit([*valid.values()], now=clock(), once=once(answer), partly=partly)
    return _told(created, valid, errors)


@blp.route("/", methods=["GET"])
@needs(Scope.READ)
@blp.arguments(TaskQuery, location="query")
@blp.response(
    200,
    ListedTaskOut(many=True),
    example=[answers.LISTED],
    headers={"Link": {"description": 'The next page, `rel="next"`.', "schema": {"type": "string"}}},
)
def list_tasks(query: dict[str, Any]) -> tuple[Any, dict[str, str]]:
    """List tasks, newest first

    To read all of them, follow the `Link` header from page to page. One call looks through at most 20,000 tasks, unless
    `status` or `task_schedule_id` is the only filter. So a page may be short, or even empty, and still have a next one.
    Values above 1 KiB are left out, see `truncated`.
    """
    limit, cursor = query.pop("limit"), query.pop("cursor", None)
    found, following = tasks.find(query, limit=limit, cursor=cursor)
    return found, next_page(following)


@blp.route("/<id:task_id>/", methods=["GET"])
@needs(Scope.READ)
@blp.arguments(WaitQuery, location="query")
@blp.response(200, TaskDetailOut, examples=answers.DETAILS, headers=HEADER)
def get_task(query: dict[str, int], task_id: int) -> tuple[Any, dict[str, str]]:
    """Read a task

    `failures` lists the latest failed attempts, at most 20. `waiting_for` says why a waiting task does not run yet.
    `delivery` is the task that tells its `callback` of the end.
    """
    headers = wait(task_id, query["wait"])
    task = tasks.get(task_id)
    failures, failure_count = listing.failures(task_id)
    waiting_for = waiting.reason(task, now=clock())
    detail = {"failures": failures, "failure_count": failure_count, "waiting_for": waiting_for}
    return detail | {"delivery": callbacks.latest(task)} | vars(task), headers


@blp.route("/<id:task_id>/", methods=["DELETE"])
@needs(Scope.WRITE)
@blp.response(204)
@blp.alt_response(409, description="It is no longer PENDING.")
def delete_task(task_id: int) -> None:
    """Delete a task that has not started

    Only a PENDING task can be deleted. A task that has started is kept; it can be cancelled instead.
    """
    tasks.remove(task_id, now=clock())


@blp.route("/<id:task_id>/", methods=["PATCH"])
@needs(Scope.WRITE)
@blp.arguments(TaskChange, example={"priority": 0, "run_at": answers.LATER["run_at"]})
@blp.response(200, TaskOut, example=answers.LATER)
@blp.alt_response(409, description="It is neither PENDING nor RETRYING.")
def change_task(body: dict[str, Any], task_id: int) -> Any:
    """Change a waiting task

    A changed `run_at` or `priority` puts the task at the end of its queue.
    """
    return control.change(task_id, now=clock(), **body)


@blp.route("/<id:task_id>/cancel/", methods=["POST"])
@needs(Scope.WRITE)
@blp.response(200, TaskOut, example=answers.CANCELLED)
@blp.alt_response(409, description="It has finished.")
def cancel_task(task_id: int) -> Any:
    """Cancel a task

    A waiting task becomes CANCELLED at once. A running task is asked to stop, and is interrupted if it does not. If it
    still succeeds, it becomes SUCCESS; if it fails, it becomes CANCELLED.
    """
    return control.cancel(task_id, now=clock())


@blp.route("/<id:task_id>/retry/", methods=["POST"])
@needs(Scope.WRITE)
@blp.response(202, TaskOut, example=answers.PENDING)
@blp.alt_response(409, description="It is not in ERROR, CANCELLED or EXPIRED, or another task has its `unique` key.")
def retry_task(task_id: int) -> Any:
    """Run a task in ERROR, CANCELLED or EXPIRED again

    It becomes PENDING, and its retries are counted from zero. The list of its failures is kept. A time to expire that
    has passed does not count again.
    """
    return control.retry(task_id, now=clock())


def _answer(created: Any) -> dict[str, Any]:
    return {"body": TaskOut().dump(created[0]), "status": _status(created[0]), "headers": _location(created[0])}


def _status(task: Any) -> int:
    return 200 if task.met else 202


def _location(task: Any) -> dict[str, str]:
    return {"Location": url_for("tasks.get_task", task_id=task.task_id)}


def _nothing(errors: list[dict[str, Any]]) -> Invalid:
    return Invalid("Nothing was created.", {"json": {error["index"]: error["errors"] for error in errors}})


def _told(created: Any, places: Iterable[int], errors: list[dict[str, Any]]) -> dict[str, Any]:
    """What a batch answers; `places` are those of the created tasks in the batch."""
    refusals = [
        {"index": place, "errors": {"unique": [one.message]}}
        for place, one in zip(places, created, strict=True)
        if isinstance(one, Refusal)
    ]
    found = [task for task in created if not isinstance(task, Refusal)]
    existing = sorted({task.task_id for task in found if task.met})
    told = {"errors": sorted(errors + refusals, key=lambda one: one["index"]), "existing": existing}
    return {"tasks": listing.briefly(found)} | {name: some for name, some in told.items() if some}


def _load_batch(items: Any) -> tuple[dict[int, dict[str, Any]], list[dict[str, Any]]]:
    """The valid tasks by their place, and the errors of the others."""
    if items is core.missing or not isinstance(items, list):
        raise Invalid("A batch is a list of tasks.", {"json": ["Not a list."]})
    if len(items) > MAX_BATCH:
        raise Invalid("A batch is too long.", {"json": [f"At most {MAX_BATCH} tasks, not {len(items)}."]})
    valid, errors, left = {}, [], MAX_ERRORS
    for index, item in enumerate(items):
        try:
            valid[index] = _reached(TASK_REQUEST.load(item))
        except ValidationError as error:
            left -= len(json.dumps(error.messages))
            errors.append({"index": index, "errors": error.messages if left >= 0 else NOT_SHOWN})
    return valid, errors


def _reached(task: dict[str, Any]) -> dict[str, Any]:
    if message := callers.wrong_reach(task["operation"]):
        raise ValidationError({"operation": [message]})
    if task.get("callback") and (message := callers.wrong_reach(CALLBACK)):
        raise ValidationError({"callback": [message]})
    return task
