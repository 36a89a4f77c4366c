"""Finds who calls by the key that the request brings."""

import hashlib
import hmac
import time

from flask import request

from scheduler_app import database
from scheduler_app.errors import Unauthorized
from scheduler_app.extensions import settings
from scheduler_app.services import keys
from scheduler_app.services.callers import ADMIN, Caller

REMEMBERED = 0.9  # seconds that a verified key is good for, so that a revoked one is refused within a second
TOUCHED = 60.0  # seconds between two notes that a key was used
MOST_REMEMBERED = 1_000  # keys


class WrongKey(Unauthorized):
    """Unknown, expired and revoked are not told apart: that would help to guess."""

    def __init__(self) -> None:
        header = 'Bearer realm="Backbeat", error="invalid_token"'
        super().__init__("The key is not valid.", headers={"WWW-Authenticate": header})


class Callers:
    """Of one process. It remembers for a moment whom it found, so that a key costs a request next to nothing."""

    def __init__(self) -> None:
        self._found: dict[bytes, tuple[Caller, float]] = {}  # by the key's hash; each with when it is asked for again
        self._closed = (False, float("-inf"))  # whether a key is needed, and when that is asked again
        self._touched: dict[str, float] = {}  # when this process last wrote down that a key was used

    def identify(self) -> Caller | None:
        """The caller by the key that the request brings; None when no key is needed. Raises Unauthorized."""
        if not settings.api_key and not self._is_closed():
            return None
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        text = given.strip()
        if scheme.lower() != "bearer" or not text:
            message = "Send the key as Authorization: Bearer <key>."
            raise Unauthorized(message, headers={"WWW-Authenticate": 'Bearer realm="Backbeat"'})
        if settings.api_key and hmac.compare_digest(text.encode(), settings.api_key.encode()):
            return ADMIN
        return self._verified(text)

    def is_stale(self, key_id: str) -> bool:
        """Whether it is time to write down that the key is used: once a minute in each process."""
        now = time.monotonic()
        if now < self._touched.get(key_id, float("-inf")) + TOUCHED:
            return False
        self._touched[key_id] = now
        return True

    def _verified(self, text: str) -> Caller:
        digest = hashlib.sha256(text.encode()).digest()
        began = time.monotonic()
        found, until = self._found.get(digest, (None, 0.0))
        if found and began < until:
            return found
        caller = keys.verified(text, now=database.clock())
        if caller is None:
            self._found.pop(digest, None)
            raise WrongKey
        if len(self._found) >= MOST_REMEMBERED:
            self._found.clear()
        self._found[digest] = caller, began + REMEMBERED
        return caller

    def _is_closed(self) -> bool:
        closed, until = self._closed
        began = time.monotonic()
        if began >= until:
            closed = keys.exist()
            self._closed = closed, began + REMEMBERED
        return closed
