"""What happened, and why?"""

from typing import Any

from flask import request, url_for
from marshmallow import ValidationError
from werkzeug.wrappers import Response

from scheduler_app import operations
from scheduler_app.access import needs
from scheduler_app.dashboard import forms, tracebacks
from scheduler_app.dashboard.frame import blp, page, told
from scheduler_app.dashboard.way import steps
from scheduler_app.database import clock
from scheduler_app.errors import Invalid, WrongState
from scheduler_app.models import Scope, Task
from scheduler_app.operations import Operation
from scheduler_app.schemas.tasks import TaskChange, TaskRequest
from scheduler_app.services import control, listing, tasks, waiting

LATEST_RUNS = 6


@blp.get("/tasks/<id:task_id>")
@needs(Scope.READ)
def task(task_id: int) -> Response:
    now = clock()
    one = tasks.get(task_id)
    failures, failure_count = listing.failures(task_id)
    runs, _ = tasks.find({"operation": one.operation}, limit=LATEST_RUNS)
    return page(
        "task.html",
        here="tasks",
        task=one,
        failures=[(failure, tracebacks.parts(failure.traceback or "")) for failure in reversed(failures)],
        failure_count=failure_count,
        why=waiting.reason(one, now=now),
        runs=runs,
        way=steps(one, failures, now),
        operation=operations.lookup(one.operation),
        change=forms.inputs(TaskChange, {"priority": one.priority, "max_retries": one.max_retries}),
    )


@blp.post("/tasks/<id:task_id>/cancel")
@needs(Scope.WRITE)
def cancel_task(task_id: int) -> Response:
    one = control.cancel(task_id, now=clock())
    done = "is asked to stop" if one.cancel_requested else "is cancelled"
    return _back(task_id, f"Task {task_id} {done}.")


@blp.post("/tasks/<id:task_id>/retry")
@needs(Scope.WRITE)
def retry_task(task_id: int) -> Response:
    control.retry(task_id, now=clock())
    return _back(task_id, f"Task {task_id} runs again, with no attempts counted.")


@blp.post("/tasks/<id:task_id>/run-now")
@needs(Scope.WRITE)
def run_task_now(task_id: int) -> Response:
    control.change(task_id, now=clock(), run_at=None)
    return _back(task_id, f"Task {task_id} is due now.")


@blp.post("/tasks/<id:task_id>/change")
@needs(Scope.WRITE)
def change_task(task_id: int) -> Response:
    try:
        fields = TaskChange().load(forms.read(TaskChange, request.form))
    except ValidationError as error:
        raise Invalid("; ".join(_lines(_messages(error)))) from None
    if fields:
        control.change(task_id, now=clock(), **fields)
    return _back(task_id, f"Task {task_id} is changed." if fields else "Nothing was to be changed.")


@blp.post("/tasks/<id:task_id>/delete")
@needs(Scope.WRITE)
def delete_task(task_id: int) -> Response:
    tasks.remove(task_id, now=clock())
    return told(url_for("dashboard.tasks"), f"Task {task_id} is deleted.")


@blp.get("/tasks/<id:task_id>/again")
@needs(Scope.WRITE)
def again(task_id: int) -> Response:
    return _again(tasks.get(task_id))


@blp.post("/tasks/<id:task_id>/again")
@needs(Scope.WRITE)
def run_again(task_id: int) -> Response:
    one = tasks.get(task_id)
    try:
        options = forms.read(TaskChange, request.form)
        params = forms.read(_operation(one).params, request.form, prefix="params.")
        fields = TaskRequest().load({"operation": one.operation, "params": params} | options)
    except ValidationError as error:
        return _again(one, _messages(error))
    [new] = tasks.submit([fields], now=clock())
    return told(url_for("dashboard.task", task_id=new.task_id), f"Task {task_id} runs again as this one.")


def _again(one: Task, errors: dict[str, Any] | None = None) -> Response:
    posted = request.form if errors else None
    values = {"priority": one.priority, "max_retries": one.max_retries}
    options = forms.inputs(TaskChange, values, posted=posted, errors=errors)
    # What a form of the parameters alone has read is named without them.
    wrong = errors.get("params", errors) if errors else None
    params = forms.inputs(_operation(one).params, one.params, prefix="params.", posted=posted, errors=wrong)
    status = 422 if errors else 200
    return page("again.html", here="tasks", status=status, task=one, options=options, params=params)


def _operation(one: Task) -> Operation:
    found = operations.lookup(one.operation)
    if found is None:
        raise WrongState(f"This web process does not know the operation {one.operation}.")
    return found


def _back(task_id: int, message: str) -> Response:
    return told(url_for("dashboard.task", task_id=task_id), message)


def _messages(error: ValidationError) -> dict[str, Any]:
    """By field."""
    found: dict[str, Any] = error.normalized_messages()  # type: ignore[no-untyped-call]
    return found


def _lines(messages: dict[str, Any]) -> list[str]:
    return [f"{name}: {' '.join(map(str, found))}" for name, found in messages.items()]
