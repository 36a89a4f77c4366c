"""Who has to wait for whom? Limits are made, changed, and given back to the code here."""

import re
from dataclasses import replace
from typing import Any

from flask import Response, request, url_for
from marshmallow import ValidationError
from werkzeug.wrappers import Response as BaseResponse

from scheduler_app.access import needs
from scheduler_app.access_models import Scope
from scheduler_app.dashboard import forms
from scheduler_app.dashboard.forms import Input
from scheduler_app.dashboard.frame import blp, latest, page, told
from scheduler_app.dashboard.texts import limited
from scheduler_app.database import clock
from scheduler_app.errors import LimitNotFound, WrongState
from scheduler_app.limits import NAME, OPERATION, PER, default_name
from scheduler_app.operations import registered
from scheduler_app.schemas.limits import LimitRequest
from scheduler_app.services import callers
from scheduler_app.services import limits as service

NUMBERS = LimitRequest(only=("max_running", "rate"))
NEW = LimitRequest(only=("operation", "per", "max_running", "rate"))
PER_WORDS = {"operation": "all its tasks together", "group": "the tasks of each group"}
NAMING = "By it the limit is changed. Without one it is named after its operation."
WRONG_NAME = "A small letter first; then small letters, digits and _ . : - up to 80 characters."
TAKEN = "There is a limit of this name. Change that one, or choose another name."


@blp.get("/limits")
@needs(Scope.READ)
def limits() -> Response:
    found = latest(("limits", callers.bounds()), service.find)
    rows = [one | {"full": is_full(one), "fullest": _fullest(one)} for one in found]
    return page("limits.html", here="limits", limits=rows, away=any(one["used"] is None for one in rows))


@blp.get("/limits/new")
@needs(Scope.ADMIN)
def new_limit() -> Response:
    wanted = request.args.get("operation", "")
    return _new({"operation": wanted} if wanted in _reached() else {})


@blp.post("/limits/new")
@needs(Scope.ADMIN)
def create_limit() -> BaseResponse:
    asked, errors = _read(NEW)
    name = request.form.get("name", "").strip()
    if not name and "operation" in asked:
        name = default_name(asked["operation"], asked.get("per", OPERATION))
    if not errors:
        errors = _wrong_name(name) or _put(name, asked)
    return _new({}, errors) if errors else _told(name)


@blp.get("/limits/<limit_name:name>/change")
@needs(Scope.ADMIN)
def change_of_limit(name: str) -> Response:
    return _change(service.get(name))


@blp.post("/limits/<limit_name:name>/change")
@needs(Scope.ADMIN)
def change_limit(name: str) -> BaseResponse:
    known = service.get(name)
    asked, errors = _read(NUMBERS)
    errors = errors or _put(name, asked)
    return _change(known, errors) if errors else _told(name)


@blp.post("/limits/<limit_name:name>/reset")
@needs(Scope.ADMIN)
def reset_limit(name: str) -> BaseResponse:
    in_code = service.get(name)["code"] is not None
    service.reset(name, now=clock())
    says = "what the code says counts again." if in_code else "it is gone."
    return told(url_for("dashboard.limits"), f"Limit {name}: {says}")


def is_full(one: dict[str, Any]) -> bool:
    """Whether somebody has to wait for a slot."""
    return bool(one["max_running"]) and _fullest(one) >= one["max_running"]


def _fullest(one: dict[str, Any]) -> int:
    """How much is used of max_running, by the group that uses most of it if each group has its own."""
    if one["per"] == OPERATION:
        return one["used"] or 0
    return max((group["used"] for group in one["groups"]), default=0)


def _new(values: dict[str, Any], errors: dict[str, Any] | None = None) -> Response:
    found, wrong = request.form if errors else None, errors or {}
    first, *others = forms.inputs(NEW, {"per": OPERATION} | values, posted=found, errors=wrong)
    first = replace(first, kind="choice", required=True, hint="", choices=[(name, name) for name in _reached()])
    others = [_in_words(one) for one in others]
    typed = request.form.get("name", "") if errors else ""
    name = Input("name", "name", "text", typed[:100], NAMING, errors=wrong.get("name", []))
    return page("limit_new.html", here="limits", status=422 if errors else 200, inputs=[first, *others, name])


def _change(known: dict[str, Any], errors: dict[str, Any] | None = None) -> Response:
    values = {name: known[name] for name in ("max_running", "rate") if known[name]}
    found = forms.inputs(NUMBERS, values, posted=request.form if errors else None, errors=errors)
    return page("limit_change.html", here="limits", status=422 if errors else 200, limit=known, inputs=found)


def _in_words(one: Input) -> Input:
    if one.name != "per":
        return one
    return replace(one, required=True, hint="", choices=[(value, PER_WORDS[value]) for value in PER])


def _read(schema: LimitRequest) -> tuple[dict[str, Any], dict[str, Any]]:
    """The limit that the form asks for, and what is wrong, by field."""
    try:
        asked: dict[str, Any] = schema.load(forms.read(schema, request.form))
    except ValidationError as error:  # also what could not be read
        return {}, error.normalized_messages()  # type: ignore[no-untyped-call]
    missing = schema is NEW and "operation" not in asked
    return asked, {"operation": ["Choose one."]} if missing else {}


def _wrong_name(name: str) -> dict[str, Any]:
    if not re.fullmatch(NAME, name):
        return {"name": [WRONG_NAME]}
    try:
        service.get(name)
    except LimitNotFound:
        return {}
    return {"name": [TAKEN]}


def _put(name: str, asked: dict[str, Any]) -> dict[str, Any]:
    """What is wrong, by field; nothing when it counts now."""
    try:
        service.put(name, asked, now=clock())
    except (LimitNotFound, WrongState) as error:
        if not error.errors:
            raise
        return error.errors
    return {}


def _told(name: str) -> BaseResponse:
    return told(url_for("dashboard.limits"), f"Limit {name} counts: {limited(service.get(name))}.")


def _reached() -> list[str]:
    return [one.name for one in registered() if not callers.wrong_reach(one.name)]
