"""The time by the database's clock, which all processes share. Reading it costs no round trip.

The clock is measured every few seconds. In between, this process's monotonic clock carries it on: nobody can set that.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from flask import current_app
from sqlalchemy import Engine

MEASURED_EVERY = 5.0  # seconds
STEP = 0.5  # seconds by which wall and monotonic clock move apart when one was set, or the machine slept
TOLERATED = 5.0  # seconds that this machine's clock may differ from the database's before the process complains

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Measure:
    """Seconds to add to the monotonic clock to get the database's clock and the wall clock."""

    database: float
    wall: float


class DatabaseClock:
    """One per process, for all its threads. SQLite has only one machine, whose clock is the database's."""

    def __init__(
        self,
        engine: Engine,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.engine = engine
        self._wall = wall
        self._monotonic = monotonic
        self._shared = engine.dialect.name == "postgresql"
        self._measure: Measure | None = None
        self._next_measure = float("-inf")
        self._is_off = False

    def now(self) -> datetime:
        """Raises SQLAlchemyError when it has to be measured and the database does not answer."""
        if not self._shared:
            return datetime.now(UTC)
        measure = self._current()  # which may take its time: the moment is read after it
        return datetime.fromtimestamp(self._monotonic() + measure.database, UTC)

    def offset(self) -> float:
        """Seconds by which this machine's clock is ahead of the database's; raises as `now`."""
        if not self._shared:
            return 0.0
        measure = self._current()
        return measure.wall - measure.database

    def _current(self) -> Measure:
        known, monotonic = self._measure, self._monotonic()
        if known and monotonic < self._next_measure and abs(self._wall_offset() - known.wall) < STEP:
            return known
        # One thread measures. The others go on with the last measure, so that a slow answer delays only one thread.
        self._next_measure = monotonic + MEASURED_EVERY
        self._measure = measured = self._ask(known)
        self._tell(measured.wall - measured.database)
        return measured

    def _ask(self, known: Measure | None) -> Measure:
        with self.engine.connect() as connection:
            before = self._monotonic()
            seconds = float(connection.exec_driver_sql("SELECT extract(epoch FROM clock_timestamp())").scalar_one())
            after = self._monotonic()
        earliest, latest = seconds - after, seconds - before
        # The first is the earliest that its answer allows, and the last one is kept if the new answer allows it. So the
        # time runs backwards only with the database's own clock: a better answer can only show that it is later.
        database = min(max(known.database, earliest), latest) if known else earliest
        return Measure(database, self._wall_offset())

    def _wall_offset(self) -> float:
        return self._wall() - self._monotonic()

    def _tell(self, offset: float) -> None:
        was_off, self._is_off = self._is_off, is_off(offset)
        if self._is_off and not was_off:
            log.warning("this machine's clock is %s the database's; the database's counts", describe_offset(offset))
        elif was_off and not self._is_off:
            log.warning("this machine's clock agrees with the database's again")


def clock() -> datetime:
    """The time by the database's clock, for this application."""
    return _application_clock().now()


def clock_offset() -> float:
    """Seconds by which this machine's clock is ahead of the database's; negative when it is behind."""
    return _application_clock().offset()


def is_off(offset: float) -> bool:
    """Whether a clock differs so much from the database's clock that somebody should set it."""
    return abs(offset) > TOLERATED


def describe_offset(offset: float) -> str:
    """As in "its clock is 300 s ahead of" the database's."""
    return f"{abs(offset):.0f} s {'ahead of' if offset > 0 else 'behind'}"


def _application_clock() -> DatabaseClock:
    found: DatabaseClock = current_app.extensions["backbeat.clock"]
    return found
