"""Sessions of the dashboard: opened with a key, found again by the token that the browser's cookie brings.

A session holds no key. It keeps the hash of the secret that opened it, so that it ends with that secret: when the key
is revoked or has expired, or when the secret was rotated and its overlap is over. Of BACKBEAT_API_KEY, which people
choose, a plain hash could be guessed. So it is hashed together with the token, which only the browser has.
"""

import hashlib
import hmac
import secrets
from datetime import datetime, timedelta

from sqlalchemy import delete, select

from scheduler_app.access_models import Session
from scheduler_app.database import DIRECT
from scheduler_app.extensions import db, settings
from scheduler_app.services import keys
from scheduler_app.services.callers import ADMIN, Caller

LASTS = timedelta(hours=12)


def start(text: str, *, now: datetime) -> str | None:
    """The token of a new session for this key; None when the key is not valid."""
    token = secrets.token_urlsafe(32)
    parts = keys.parted(text)
    if is_admin_key(text):
        key_id, secret_hash = None, _mark(token)
    elif parts and keys.holder(*parts, now=now):
        key_id, secret_hash = parts
    else:
        return None
    times = {"created_at": now, "expires_at": now + LASTS}
    db.session.add(Session(token_hash=_hash(token), key_id=key_id, secret_hash=secret_hash, **times))
    db.session.commit()
    return token


def holder(token: str, *, now: datetime) -> Caller | None:
    """Who is signed in with this token; None when the session has ended."""
    columns = Session.key_id, Session.secret_hash
    query = select(*columns).where(Session.token_hash == _hash(token), Session.expires_at > now)
    with db.engines[DIRECT].connect() as connection:
        session = connection.execute(query).one_or_none()
    if session is None:
        return None
    if session.key_id is not None:
        return keys.holder(session.key_id, session.secret_hash, now=now)
    same = bool(settings.api_key) and hmac.compare_digest(session.secret_hash, _mark(token))
    return ADMIN if same else None


def end(token: str) -> None:
    db.session.execute(delete(Session).where(Session.token_hash == _hash(token)))
    db.session.commit()


def is_admin_key(text: str) -> bool:
    return bool(settings.api_key) and hmac.compare_digest(text.encode(), settings.api_key.encode())


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _mark(token: str) -> str:
    return hmac.new(token.encode(), settings.api_key.encode(), hashlib.sha256).hexdigest()
