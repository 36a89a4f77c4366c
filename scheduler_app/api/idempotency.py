"""The Idempotency-Key header, on the calls that create."""

import hashlib
import re
from collections.abc import Callable
from functools import wraps
from typing import Any
from urllib.parse import urlencode

from flask import Response, jsonify, request

from scheduler_app.database import clock
from scheduler_app.errors import Invalid, Unavailable
from scheduler_app.services import callers, idempotency
from scheduler_app.services.idempotency import Once, Repeated

Render = Callable[[Any], dict[str, Any]]
MakeOnce = Callable[[Render], Once[Any] | None]

PARAMETER = {
    "in": "header",
    "name": "Idempotency-Key",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
    "description": "Any text that you choose. A repeated request with the same key within 24 hours creates nothing:"
    " it gets the answer of the first one, with `Idempotent-Replayed: true`.",
}


def idempotent(view: Callable[..., Any]) -> Callable[..., Any]:
    """Calls the view with `once`, a function. The view calls it with a function that renders what was created.

    `once` returns a Once, which the service stores together with what it creates. It returns None when the request has
    no key.
    """

    @wraps(view)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        key = request.headers.get("Idempotency-Key")
        if key is None:
            return view(*args, once=_without_key, **kwargs)
        fingerprint = _fingerprint(_checked(key))
        key = _of_caller(key)
        for _ in range(3):
            if answer := idempotency.answered(key, fingerprint, now=clock()):
                return _replay(answer)
            try:
                return view(*args, once=lambda render: Once(key, fingerprint, render), **kwargs)
            except Repeated:
                continue
        raise Unavailable("The Idempotency-Key is in use; try again.")

    return wrapper


def _without_key(render: Render) -> None:
    return None


def _checked(key: str) -> str:
    if not re.fullmatch(r"[\x20-\x7e]{1,255}", key):
        raise Invalid("The request is not valid.", {"headers": {"Idempotency-Key": ["1 to 255 printable characters."]}})
    return key


def _of_caller(key: str) -> str:
    """Keys of the table do not share theirs: an answer is for who may read it."""
    caller = callers.current.get()
    if caller is None or caller.key_id is None:
        return key
    return f"{caller.key_id}:{hashlib.sha256(key.encode()).hexdigest()}"


def _fingerprint(key: str) -> str:
    parts = (request.method.encode(), _address().encode(), request.get_data(cache=True))
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _address() -> str:
    """What a repetition must have in common: how long it waits may differ."""
    if "wait" not in request.args:
        return request.full_path
    others = [(name, value) for name, value in request.args.items(multi=True) if name != "wait"]
    return f"{request.path}?{urlencode(others)}"


def _replay(answer: dict[str, Any]) -> Response:
    response = jsonify(answer["body"])
    response.status_code = answer["status"]
    response.headers.update(answer["headers"] | {"Idempotent-Replayed": "true"})
    return response
