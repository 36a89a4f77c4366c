"""Who may call? Keys are made, rotated and revoked here.

The text of a key is only in the answer to the form that made it: in no address, no cookie and no log.
"""

import re
from datetime import datetime, timedelta
from typing import Any

from flask import Response, request, url_for
from marshmallow import ValidationError
from werkzeug.wrappers import Response as BaseResponse

from scheduler_app.access import guard, needs
from scheduler_app.access_models import ApiKey, Scope
from scheduler_app.dashboard.frame import blp, page, told
from scheduler_app.database import clock
from scheduler_app.errors import Invalid, WrongState
from scheduler_app.extensions import settings
from scheduler_app.operations import registered
from scheduler_app.schemas.keys import KeyRequest
from scheduler_app.services import keys as service

PAGE = 100  # keys
LONGEST = 4_000  # characters of a field
DAYS = {"": "never", "1": "in a day", "7": "in 7 days", "30": "in 30 days", "90": "in 90 days", "365": "in a year"}
HOURS = {"0": "no longer than a second", "1": "an hour", "24": "a day", "168": "7 days", "720": "30 days"}


@blp.get("/keys")
@needs(Scope.ADMIN)
def keys() -> Response:
    now, ended = clock(), request.args.get("show") == "ended"
    found, following = service.page(ended=ended, now=now, limit=PAGE, after=request.args.get("after", "")[:64])
    return page(
        "keys.html", here="keys", keys=found, following=following, ended=ended, counts=service.counts(now=now), now=now,
        needed=guard().callers.need_key(), has_setting=bool(settings.api_key),
    )  # fmt: skip


@blp.get("/keys/new")
@needs(Scope.ADMIN)
def new_key() -> Response:
    return _form({"scope": Scope.READ if guard().callers.need_key() else Scope.ADMIN})


@blp.post("/keys/new")
@needs(Scope.ADMIN)
def create_key() -> Response:
    given = {name: request.form.get(name, "").strip()[:LONGEST] for name in ("name", "scope", "operations", "rate")}
    given["days"] = request.form.get("days", "")
    now = clock()
    try:
        key, text = service.create(**_asked(given, now), now=now)
    except ValidationError as error:
        return _form(given, error.messages_dict)
    except Invalid as error:
        return _form(given, (error.errors or {})["json"])
    return _shown(key, text, made=True)


@blp.get("/keys/<key_name:name>/rotate")
@needs(Scope.ADMIN)
def rotation_of_key(name: str) -> Response:
    return page("key_rotate.html", here="keys", key=_in_use(name), hours=HOURS, mark=service.mark, now=clock())


@blp.post("/keys/<key_name:name>/rotate")
@needs(Scope.ADMIN)
def rotate_key(name: str) -> Response:
    hours = request.form.get("hours", "")
    if hours not in HOURS:
        raise Invalid(f"The secret before works for one of {', '.join(HOURS)} hours.")
    seen = request.form.get("seen", "")
    return _shown(*service.rotate(name, overlap=timedelta(hours=int(hours)), seen=seen, now=clock()), made=False)


@blp.get("/keys/<key_name:name>/revoke")
@needs(Scope.ADMIN)
def revocation_of_key(name: str) -> Response:
    return page("key_revoke.html", here="keys", key=_in_use(name))


@blp.post("/keys/<key_name:name>/revoke")
@needs(Scope.ADMIN)
def revoke_key(name: str) -> BaseResponse:
    service.revoke(name, now=clock())
    return told(url_for("dashboard.keys"), f"Key {name} is revoked: every process refuses it within a second.")


def _in_use(name: str) -> ApiKey:
    key = service.get(name)
    if key.revoked_at is not None:
        raise WrongState(f"Key {name!r} is revoked.")
    return key


def _form(given: dict[str, Any], errors: dict[str, Any] | None = None) -> Response:
    known = [operation.name for operation in registered()]
    return page(
        "key_new.html", here="keys", status=422 if errors else 200, given=given, errors=errors or {}, days=DAYS,
        scopes=list(Scope), known=known[:8], more=len(known) - 8, needed=guard().callers.need_key(),
    )  # fmt: skip


def _shown(key: ApiKey, text: str, *, made: bool) -> Response:
    return page("key_shown.html", here="keys", status=201, key=key, text=text, made=made)


def _asked(given: dict[str, str], now: datetime) -> dict[str, Any]:
    """What `keys.create` takes. Raises ValidationError, by field of the form."""
    names = re.split(r"[\s,]+", given["operations"].strip(", \r\n")) if given["operations"] else None
    wrong: dict[str, Any] = {} if given["days"] in DAYS else {"days": ["Choose one of these."]}
    asked = {"name": given["name"], "scope": given["scope"], "operations": names, "rate": given["rate"] or None}
    try:
        fields: dict[str, Any] = KeyRequest().load(asked)
    except ValidationError as error:
        wrong |= error.messages_dict
        if isinstance(at := wrong.get("operations"), dict) and names:
            wrong["operations"] = [f"{names[place][:80]}: {' '.join(said)}" for place, said in at.items()][:5]
    if wrong:
        raise ValidationError(wrong)
    return fields | {"expires_at": now + timedelta(days=int(given["days"])) if given["days"] else None}
