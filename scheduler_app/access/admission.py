"""Limits how many requests may use the database at once, and for how long.

A database that hangs must not block every thread. A web server with more than SLOTS threads then still has some for the
calls that need no database. The limit is the same under every web server.
"""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from flask import Flask, current_app, request
from werkzeug.local import LocalProxy

from scheduler_app.access.views import takes_database
from scheduler_app.database import deadline, extend, time_left, waits
from scheduler_app.errors import SOON, Unavailable
from scheduler_app.extensions import db

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

SLOTS = 6  # requests of one process inside the database
LONGEST = 9.0  # seconds that a request waits for a slot and for PostgreSQL, together
LOOK = 0.05  # seconds between two looks at those inside
HELD = "backbeat.slot"


class Admission:
    """Wraps the whole application, because a request may still use the database after its answer is made."""

    def __init__(self, app: Flask) -> None:
        self.wsgi_app: WSGIApplication = app.wsgi_app
        self.slots = threading.BoundedSemaphore(SLOTS)
        self.app = app
        app.before_request(self.enter)
        app.extensions["backbeat.admission"] = self

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        with deadline(LONGEST):
            try:
                return self.wsgi_app(environ, start_response)
            finally:
                if environ.get(HELD):
                    self.slots.release()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """For an answer that is made piece by piece, after its view has returned: a slot, and time, for one look.

        Raises Unavailable.
        """
        with deadline(LONGEST):
            self.enter()
            try:
                yield
            finally:
                db.session.remove()
                if request.environ.pop(HELD, False):
                    self.slots.release()

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Here the request holds neither a slot nor a connection. Afterwards it has time of its own again.

        Raises Unavailable when it does not get a slot again.
        """
        db.session.remove()
        if request.environ.pop(HELD, False):
            self.slots.release()
        try:
            yield
        finally:
            extend(LONGEST)
            self.enter()

    def enter(self) -> None:
        """Under load a request waits for its turn. It is refused when every request inside waits for the database."""
        if not takes_database(self.app, request.endpoint):
            return
        while not self.slots.acquire(blocking=False):
            if waits.stuck() >= SLOTS or not time_left():
                raise Unavailable("The database does not answer; try again.", headers=SOON)
            if self.slots.acquire(timeout=LOOK):
                break
        request.environ[HELD] = True


def register_admission(app: Flask) -> None:
    app.wsgi_app = Admission(app)  # type: ignore[method-assign]


# Of this process.
admission = cast(Admission, LocalProxy(lambda: current_app.extensions["backbeat.admission"]))
