"""Tries again what the database cannot do now."""

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import SQLAlchemyError

from scheduler_app.database import failures

log = logging.getLogger(__name__)
T = TypeVar("T")

LAST_WORD = 10.0  # seconds that a stopping worker still tries to store what it has done
FIRST_DELAY, LONGEST_DELAY = 0.1, 5.0  # seconds


class GaveUp(Exception):
    """The worker stops, and the database has not answered for LAST_WORD seconds of that."""


class Patience:
    """One per worker process. Several threads may be patient at once."""

    def __init__(self) -> None:
        self.stopping = threading.Event()  # set once this worker is asked to stop
        self._ends_at: float | None = None

    def __call__(self, change: Callable[[bool], T]) -> T:
        """Does the change, and does it again until it succeeds: a result may have taken hours.

        The change is told whether it is done again: an earlier try may have succeeded, and only its answer been lost.
        Raises what is wrong with the data itself, since that stays wrong, and GaveUp.
        """
        delay, again = FIRST_DELAY, False
        while True:
            try:
                return change(again)
            except SQLAlchemyError as error:
                if failures.is_of_the_data(error):
                    raise
                log.warning("the database cannot take it now; again in %.1f s: %s", delay, error)
            again = True
            self._wait(delay)
            delay = min(delay * 2, LONGEST_DELAY)

    def _wait(self, delay: float) -> None:
        if self.stopping.wait(delay):
            self._ends_at = self._ends_at or time.monotonic() + LAST_WORD
            if time.monotonic() >= self._ends_at:
                raise GaveUp
            time.sleep(FIRST_DELAY)
