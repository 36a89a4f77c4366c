"""API keys: created, rotated, revoked, and found again by what a request brings.

A key reads `bb_<id>_<secret>`. The id is public and finds the row. Of the secret, 32 random bytes, only the SHA-256 is
kept: that is enough for a random secret, unlike for a password that people choose.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, case, exists, func, select, update
from sqlalchemy.exc import IntegrityError

from scheduler_app.access_models import ApiKey, Scope
from scheduler_app.database import DIRECT, begin_write
from scheduler_app.errors import Invalid, KeyNotFound, WrongState
from scheduler_app.extensions import db
from scheduler_app.services import audit
from scheduler_app.services.callers import RESERVED, Caller

OVERLAP = timedelta(hours=24)  # for which the old secret works after a rotation
TOUCHED = timedelta(minutes=1)  # last_used_at is as exact as that
_FORM = re.compile(r"bb_([a-z0-9]{12})_([A-Za-z0-9_-]{43})")
_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"


def create(
    name: str,
    scope: Scope,
    *,
    now: datetime,
    expires_at: datetime | None = None,
    operations: Sequence[str] | None = None,
    rate: str | None = None,
) -> tuple[ApiKey, str]:
    """The key, and its text, which cannot be had again. Raises Invalid."""
    _check(name, scope, operations)
    secret = secrets.token_urlsafe(32)
    key = ApiKey(
        key_id="".join(secrets.choice(_ALPHABET) for _ in range(12)),
        name=name,
        secret_hash=_hash(secret),
        scope=scope.value,
        operations=list(operations) if operations is not None else None,
        rate=rate,
        created_at=now,
        expires_at=expires_at,
    )
    db.session.add(key)
    try:
        db.session.flush()
    except IntegrityError:
        db.session.rollback()
        raise _invalid("name", "There is or was a key of this name.") from None
    details = {"scope": scope.value, "operations": key.operations, "rate": rate, "expires_at": expires_at}
    audit.record("key.create", name, details=details, now=now)
    db.session.commit()
    return key, _text(key, secret)


def find() -> Sequence[ApiKey]:
    """All that there are or were, by name."""
    return db.session.scalars(select(ApiKey).order_by(ApiKey.name)).all()


def page(*, ended: bool, now: datetime, limit: int, after: str = "") -> tuple[Sequence[ApiKey], str | None]:
    """Keys by name, those that are in use or those that are not any more; and after which the next page begins."""
    query = select(ApiKey).where(_has_ended(now) if ended else ~_has_ended(now), ApiKey.name > after)
    found = db.session.scalars(query.order_by(ApiKey.name).limit(limit + 1)).all()
    return found[:limit], found[limit - 1].name if len(found) > limit else None


def counts(*, now: datetime) -> dict[str, int]:
    """How many are in use, by scope; and how many have `ended`."""
    which = case((_has_ended(now), "ended"), else_=ApiKey.scope).label("which")
    found = db.session.execute(select(which, func.count().label("number")).group_by("which"))
    return {row.which: row.number for row in found}


def get(name: str) -> ApiKey:
    """Raises KeyNotFound."""
    key = db.session.scalar(select(ApiKey).where(ApiKey.name == name))
    if key is None:
        raise KeyNotFound(name)
    return key


def mark(key: ApiKey) -> str:
    """Another one after each rotation. It tells nothing of the secret."""
    return _hash(key.secret_hash)[:16]


def rotate(name: str, *, now: datetime, overlap: timedelta = OVERLAP, seen: str | None = None) -> tuple[ApiKey, str]:
    """A new secret; the one before works for `overlap`. Raises KeyNotFound, and WrongState for a revoked key.

    seen: the key's mark as the caller knows it. WrongState when it has another one: a form that is sent twice would
    otherwise end the secret that is in use.
    """
    key = _lock(name)
    if seen not in (None, mark(key)):
        raise WrongState(f"Key {name!r} was rotated in the meantime. This time nothing was changed.")
    if key.revoked_at is not None:
        raise WrongState(f"Key {name!r} is revoked.")
    secret = secrets.token_urlsafe(32)
    key.previous_hash, key.previous_until = key.secret_hash, now + overlap
    key.secret_hash = _hash(secret)
    audit.record("key.rotate", name, details={"overlap_seconds": int(overlap.total_seconds())}, now=now)
    db.session.commit()
    return key, _text(key, secret)


def revoke(name: str, *, now: datetime) -> None:
    """It is refused from now on, in every process within a second. Raises KeyNotFound."""
    key = _lock(name)
    if key.revoked_at is None:
        key.revoked_at = now
        audit.record("key.revoke", name, now=now)
    db.session.commit()


def exist() -> bool:
    """Whether calls need a key: there is one that is not revoked. One that has only expired opens nothing."""
    with db.engines[DIRECT].connect() as connection:
        return bool(connection.scalar(select(exists().where(ApiKey.revoked_at.is_(None)))))


def verified(text: str, *, now: datetime) -> Caller | None:
    """Who calls with this key; None when it is not valid now."""
    parts = parted(text)
    return parts and holder(*parts, now=now)


def parted(text: str) -> tuple[str, str] | None:
    """The key's id, and the hash of its secret; None when the text is no key at all."""
    form = _FORM.fullmatch(text)
    return (form[1], _hash(form[2])) if form else None


def holder(key_id: str, secret_hash: str, *, now: datetime) -> Caller | None:
    """Who has the secret with this hash; None when the key is not valid now."""
    with db.engines[DIRECT].connect() as connection:
        key = connection.execute(select(*ApiKey.__table__.c).where(ApiKey.key_id == key_id)).one_or_none()
    if key is None or key.revoked_at is not None or not _matches(key, secret_hash, now):
        return None
    if key.expires_at is not None and key.expires_at <= now:
        return None
    operations = None if key.operations is None else tuple(key.operations)
    return Caller(key.name, Scope(key.scope), operations, key.rate, key.key_id)


def touch(key_id: str, *, now: datetime) -> None:
    """Keeps when the key was used, to the minute."""
    stale = (ApiKey.last_used_at < now - TOUCHED) | ApiKey.last_used_at.is_(None)
    db.session.execute(update(ApiKey).where(ApiKey.key_id == key_id, stale).values(last_used_at=now))
    db.session.commit()


def _has_ended(now: datetime) -> ColumnElement[bool]:
    return ApiKey.revoked_at.is_not(None) | (ApiKey.expires_at.is_not(None) & (ApiKey.expires_at <= now))


def _check(name: str, scope: Scope, operations: Sequence[str] | None) -> None:
    if name in RESERVED:
        raise _invalid("name", f"Not {' or '.join(RESERVED)}: they stand for calls without a key of this table.")
    if scope == Scope.ADMIN and operations is not None:
        raise _invalid("operations", "Not with scope admin: who makes keys reaches all operations.")


def _invalid(field: str, message: str) -> Invalid:
    return Invalid("There cannot be such a key.", {"json": {field: [message]}})


def _matches(key: Row[Any], given: str, now: datetime) -> bool:
    """In a time that tells nothing about the secret."""
    current = hmac.compare_digest(given, key.secret_hash)
    previous = hmac.compare_digest(given, key.previous_hash or "")
    return current or (previous and now < key.previous_until)


def _lock(name: str) -> ApiKey:
    begin_write()
    key = db.session.scalar(select(ApiKey).where(ApiKey.name == name).with_for_update())
    if key is None:
        raise KeyNotFound(name)
    return key


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _text(key: ApiKey, secret: str) -> str:
    return f"bb_{key.key_id}_{secret}"
