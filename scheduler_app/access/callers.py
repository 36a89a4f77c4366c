"""Finds who calls by the key or the session that the request brings."""

import hashlib
import time
from collections.abc import Callable

from flask import request

from scheduler_app import database
from scheduler_app.errors import Unauthorized
from scheduler_app.extensions import settings
from scheduler_app.services import keys, sessions
from scheduler_app.services.callers import ADMIN, Caller

REMEMBERED = 0.9  # seconds that a verified key is good for, so that a revoked one is refused within a second
Find = Callable[..., Caller | None]  # who has this key or this session, `now`
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
        self._found: dict[tuple[Find, bytes], tuple[Caller, float]] = {}  # each with when it is asked for again
        self._closed = (False, float("-inf"))  # whether a key is needed, and when that is asked again
        self._touched: dict[str, float] = {}  # when this process last wrote down that a key was used

    def identify(self) -> Caller | None:
        """The caller by the key that the request brings; None when no key is needed. Raises Unauthorized."""
        if not self.need_key():
            return None
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        text = given.strip()
        if scheme.lower() != "bearer" or not text:
            message = "Send the key as Authorization: Bearer <key>."
            raise Unauthorized(message, headers={"WWW-Authenticate": 'Bearer realm="Backbeat"'})
        caller = ADMIN if sessions.is_admin_key(text) else self._remembered(keys.verified, text)
        if caller is None:
            raise WrongKey
        return caller

    def signed_in(self, token: str) -> Caller | None:
        """The caller by the token of a session; None when it has ended."""
        return self._remembered(sessions.holder, token)

    def forget(self, token: str) -> None:
        """The session has ended here. Other processes know within a second."""
        self._found.pop(_place(sessions.holder, token), None)

    def need_key(self) -> bool:
        return bool(settings.api_key) or self._is_closed()

    def is_stale(self, key_id: str) -> bool:
        """Whether it is time to write down that the key is used: once a minute in each process."""
        now = time.monotonic()
        if now < self._touched.get(key_id, float("-inf")) + TOUCHED:
            return False
        self._touched[key_id] = now
        return True

    def _remembered(self, find: Find, text: str) -> Caller | None:
        place = _place(find, text)
        began = time.monotonic()
        found, until = self._found.get(place, (None, 0.0))
        if found and began < until:
            return found
        caller = find(text, now=database.clock())
        if caller is None:
            self._found.pop(place, None)
            return None
        if len(self._found) >= MOST_REMEMBERED:
            self._found.clear()
        self._found[place] = caller, began + REMEMBERED
        return caller

    def _is_closed(self) -> bool:
        closed, until = self._closed
        began = time.monotonic()
        if began >= until:
            closed = keys.exist()
            self._closed = closed, began + REMEMBERED
        return closed


def _place(find: Find, text: str) -> tuple[Find, bytes]:
    return find, hashlib.sha256(text.encode()).digest()
