"""What can it do? And a form that does it."""

import json
import shlex
from dataclasses import replace
from typing import Any

from flask import Response, render_template, request, url_for
from marshmallow import ValidationError
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response as BaseResponse

from scheduler_app.access import guard, needs
from scheduler_app.access_models import Scope
from scheduler_app.dashboard import forms
from scheduler_app.dashboard.frame import blp, page, told
from scheduler_app.dashboard.values import looks_secret
from scheduler_app.database import clock
from scheduler_app.errors import BadRequest, WrongState
from scheduler_app.operations import Operation
from scheduler_app.schemas.fields import MAX_ID
from scheduler_app.schemas.tasks import TaskRequest
from scheduler_app.services import callers, limits, statistics, tasks, unique, workers
from scheduler_app.services.shared import shared
from scheduler_app.services.statistics import Period

# Of a task, beside its parameters.
OPTIONS = ("priority", "run_at", "expires_in", "max_retries", "group", "labels", "callback", "unique", "retry")
ASKED = TaskRequest(only=(*OPTIONS[:-1], "retry.min_seconds", "retry.max_seconds", "retry.factor"))
HOW = {  # by how the post was met
    None: "is posted.",
    unique.KEPT: "has this key, and stays as it is. Nothing new is posted.",
    unique.REPLACED: "has this key, and was given these parameters and times. Nothing new is posted.",
}
PARAMS = "params."  # begins the names of the inputs for parameters
KEY = '-H "Authorization: Bearer $BACKBEAT_API_KEY"'


@blp.get("/operations")
@needs(Scope.READ)
def operations() -> Response:
    asked = request.args.get("period", "")
    period = Period(asked) if asked in list(Period) else Period.HOUR
    found = shared.get(("operations", period, callers.bounds()), lambda: _found(period))
    return page("operations.html", here="operations", found=found, period=period, periods=list(Period))


@blp.get("/operations/<name>")
@needs(Scope.READ)
def operation(name: str) -> Response:
    known = _known(name)
    values, left_out = _from_task(name)
    return _page(known, values, left_out=left_out)


@blp.post("/operations/<name>")
@needs(Scope.WRITE)
def run_operation(name: str) -> BaseResponse:
    known = _known(name)
    asked, errors = _read(known["operation"])
    try:
        fields = TaskRequest().load(asked)
    except ValidationError as error:
        errors = _by_field(error) | errors
    if errors or "show" in request.form:
        return _page(known, {}, posted=asked, errors=errors)
    try:
        [task] = tasks.submit([fields], now=clock())
    except WrongState as error:  # a task with its key has begun
        return _page(known, {}, posted=asked, errors={"unique": {"key": [error.message]}})
    return told(url_for("dashboard.task", task_id=task.task_id), f"Task {task.task_id} {HOW[task.met]}")


@blp.post("/operations/<name>/curl")
@needs(Scope.WRITE)
def operation_as_curl(name: str) -> str:
    asked, errors = _read(_known(name)["operation"])
    return render_template("operation_curl.html", curl=_curl(asked), unread=bool(errors))


def _found(period: Period) -> list[dict[str, Any]]:
    figures, counting = statistics.by_operation(period, now=clock()), limits.by_operation()
    return [
        known | {"figures": figures.get(known["name"]), "limits": counting.get(known["name"], [])}
        for known in workers.known_operations()
    ]


def _known(name: str) -> dict[str, Any]:
    for known in workers.known_operations():
        if known["name"] == name:
            return known
    raise NotFound(f"There is no operation {name[:64]!r} here.")


def _page(
    known: dict[str, Any],
    values: dict[str, Any],
    *,
    posted: dict[str, Any] | None = None,
    errors: dict[str, Any] | None = None,
    left_out: list[str] | None = None,
) -> Response:
    name, typed, wrong = known["name"], None if posted is None else request.form, errors or {}
    figures = shared.get(("operation", name), lambda: statistics.totals(Period.DAY, now=clock(), operation=name))
    # What the form shows is what curl sends.
    given = posted or _body(name, values.get("params", {}), {key: values[key] for key in OPTIONS if key in values})
    return page(
        "operation.html",
        here="operations",
        status=422 if errors else 200,
        known=known,
        figures=figures,
        limits=limits.by_operation().get(name, []),
        params=forms.inputs(
            known["params"], values.get("params"), prefix=PARAMS, posted=typed, errors=wrong.get("params")
        ),
        options=_options(known, values, typed, wrong),
        errors=_elsewhere(wrong, known["operation"]),
        left_out=left_out or [],
        origin=request.args.get("from", "") if posted is None else "",
        curl=_curl(given),
        unread=False,
    )


def _options(known: dict[str, Any], values: dict[str, Any], typed: Any, wrong: dict[str, Any]) -> list[forms.Input]:
    found = forms.inputs(ASKED, values, posted=typed, errors=wrong)
    as_usual = {"run_at": "at once", "expires_in": "never", "max_retries": str(known["max_retries"])}
    return [replace(one, default=as_usual.get(one.label, one.default)) for one in found]


def _read(known: Operation) -> tuple[dict[str, Any], dict[str, Any]]:
    """The task that the form asks for, as the API takes it, and what could not be read, by field."""
    errors: dict[str, Any] = {}
    options, params = {}, {}
    try:
        options = forms.read(ASKED, request.form)
    except forms.Unreadable as error:
        errors |= _by_field(error)
    try:
        params = forms.read(known.params, request.form, prefix=PARAMS)
    except forms.Unreadable as error:
        errors["params"] = _by_field(error)
    return _body(known.name, params, options), errors


def _body(name: str, params: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    return {"operation": name, "params": params} | options


def _by_field(error: ValidationError) -> dict[str, Any]:
    found: dict[str, Any] = error.normalized_messages()  # type: ignore[no-untyped-call]
    return found


def _elsewhere(errors: dict[str, Any], known: Operation) -> list[str]:
    """What is wrong with no field of the form."""
    wrong = errors.get("params", [])
    if isinstance(wrong, dict):
        wrong = [f"{name}: {' '.join(map(str, said))}" for name, said in wrong.items() if name not in known.fields]
    return [said.removeprefix("_schema: ") for said in [*errors.get("operation", []), *wrong]][:10]


def _from_task(name: str) -> tuple[dict[str, Any], list[str]]:
    """What to fill in of the task that `from` names, and what is left out of it because it looks like a secret."""
    text = request.args.get("from", "")
    if not text:
        return {}, []
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:20]) <= MAX_ID):
        raise BadRequest("from: the number of a task.")
    task = tasks.get(int(text))
    if task.operation != name:
        raise BadRequest(f"from: task {task.task_id} is of the operation {task.operation}.")
    left_out: list[str] = []
    params = _without_secrets(task.params, "", left_out)
    values = {"params": params, "priority": task.priority, "max_retries": task.max_retries}
    others = {"retry": task.retry, "labels": task.labels, "group": task.group, "callback": task.callback}
    return values | {name: value for name, value in others.items() if value}, left_out


def _without_secrets(value: Any, at: str, left_out: list[str]) -> Any:
    if isinstance(value, list):
        return [_without_secrets(inner, f"{at}.{place}", left_out) for place, inner in enumerate(value)]
    if not isinstance(value, dict):
        return value
    kept = {}
    for name, inner in value.items():
        here = f"{at}.{name}".removeprefix(".")
        if looks_secret(name, inner):
            left_out.append(here)
        else:
            kept[name] = _without_secrets(inner, here, left_out)
    return kept


def _curl(body: dict[str, Any]) -> str:
    """The same call from a shell. A key is named, and not in it."""
    lines = [f"curl {shlex.quote(url_for('tasks.submit_task', _external=True))}"]
    lines += [KEY] if guard().callers.need_key() else []
    lines += ["-H 'Content-Type: application/json'", f"-d {shlex.quote(_visible(body))}"]
    return " \\\n  ".join(lines)


def _visible(body: dict[str, Any]) -> str:
    """JSON in which no character is unseen or turns the text around it."""
    text = json.dumps(body, ensure_ascii=False)
    return "".join(sign if sign.isprintable() else json.dumps(sign)[1:-1] for sign in text)
