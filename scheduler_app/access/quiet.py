"""Requests that only wait: they hold no connection to the database, and no thread that others need."""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

from flask import request

from scheduler_app.access.admission import admission
from scheduler_app.errors import SOON, Unavailable
from scheduler_app.server.channel import ONLY_WAITS
from scheduler_app.services.ends import TooManyWait, ends

T = TypeVar("T")


def only_waits(over: threading.Event) -> AbstractContextManager[threading.Event]:
    """Other servers than ours do not tell when a client has left."""
    make: Callable[..., AbstractContextManager[threading.Event]] | None = request.environ.get(ONLY_WAITS)
    return make(over) if make else nullcontext(threading.Event())


def look_until(look: Callable[[], T | None], *, within: float, every: float) -> T | None:
    """What a look finds, tried again and again for so many seconds; None when none has found anything.

    Raises Unavailable when as many requests as may wait already do.
    """
    until = time.monotonic() + within
    try:
        with ends.place():
            while (found := look()) is None and time.monotonic() < until:
                with admission.outside(), only_waits(over := threading.Event()):
                    over.wait(every)
            return found
    except TooManyWait:
        raise Unavailable("So many requests wait that this one cannot; try again.", headers=SOON) from None
