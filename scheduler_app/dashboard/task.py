"""What happened, and why?"""

from typing import Any

from flask import redirect, request, url_for
from marshmallow import ValidationError
from werkzeug.wrappers import Response

from scheduler_app import operations
from scheduler_app.access import needs
from scheduler_app.access.stacks import stack_of
from scheduler_app.access_models import Scope
from scheduler_app.dashboard import forms, tracebacks
from scheduler_app.dashboard.frame import blp, page, told
from scheduler_app.dashboard.way import steps
from scheduler_app.database import clock
from scheduler_app.errors import Invalid
from scheduler_app.models import Status, Task
from scheduler_app.operations import USUAL_PAUSES
from scheduler_app.schemas.tasks import TaskChange
from scheduler_app.services import attempt_logs, callbacks, control, listing, stacks, tasks, waiting
from scheduler_app.tracing.contexts import trace_id

LATEST_RUNS = 6
SHOWN_LINES = 200  # of a log
PAUSES = ("retry.min_seconds", "retry.max_seconds", "retry.factor")
CHANGED = TaskChange(only=("priority", "run_at", "expires_at", "max_retries", *PAUSES))


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
        trace_id=trace_id(one.trace),
        change=forms.inputs(CHANGED, _changeable(one)),
        delivery=callbacks.latest(one),
        told_of=callbacks.told_of(one),
        **_latest_stack(one),
        **_latest_log(task_id),
    )


@blp.get("/tasks/<id:task_id>/log")
@needs(Scope.READ)
def task_log(task_id: int) -> Response:
    """All that one attempt has logged, as text."""
    claim = request.args.get("claim", "")
    known = {str(place.claim): place for place in attempt_logs.attempts(task_id)}
    if claim not in known:
        raise Invalid("There is no such log.")
    lines = attempt_logs.read(task_id, claim=known[claim].claim, after=(known[claim].claim, 0))
    return Response("".join(f"{line.text}\n" for line in lines), mimetype="text/plain")


@blp.post("/tasks/<id:task_id>/stack")
@needs(Scope.READ)
def ask_stack(task_id: int) -> Response:
    """Asks where it stands. The page shows it."""
    stack_of(task_id)
    return redirect(url_for("dashboard.task", task_id=task_id), 303)


def _latest_stack(one: Task) -> dict[str, Any]:
    stack = stacks.latest(one.task_id) if one.status == Status.STARTED else None
    return {"stack": stack, "stack_parts": tracebacks.parts_of_stack(stack) if stack else []}


def _latest_log(task_id: int) -> dict[str, Any]:
    """Of the latest attempt that has logged something: the last lines. The page is read again and again."""
    places = attempt_logs.attempts(task_id)
    lines = attempt_logs.read(task_id, claim=places[-1].claim, after=(places[-1].claim, 0)) if places else []
    return {"logs": places, "log_lines": lines[-SHOWN_LINES:], "log_before": max(0, len(lines) - SHOWN_LINES)}


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
        fields = CHANGED.load(forms.read(CHANGED, request.form))
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


def _changeable(one: Task) -> dict[str, Any]:
    expiry = {"expires_at": one.expires_at.isoformat()} if one.expires_at else {}
    return expiry | {"priority": one.priority, "max_retries": one.max_retries, "retry": one.retry or USUAL_PAUSES}


def _back(task_id: int, message: str) -> Response:
    return told(url_for("dashboard.task", task_id=task_id), message)


def _messages(error: ValidationError) -> dict[str, Any]:
    """By field."""
    found: dict[str, Any] = error.normalized_messages()  # type: ignore[no-untyped-call]
    return found


def _lines(messages: dict[str, Any]) -> list[str]:
    return [f"{name}: {' '.join(map(str, found))}" for name, found in messages.items()]
