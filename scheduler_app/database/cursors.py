"""The driver's own cursors, for the statements that run once or more per task."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.exc import DBAPIError

from scheduler_app.database.engines import DIRECT
from scheduler_app.extensions import db


class ThreadCursors:
    """One cursor of the driver per thread, kept between uses. It costs a fraction of what a session costs."""

    def __init__(self) -> None:
        self.engine = db.engines[DIRECT]
        self._kept = threading.local()

    @contextmanager
    def current(self) -> Iterator[Any]:
        """This thread's cursor. Raises SQLAlchemy's errors in place of the driver's."""
        driver_error = self.engine.dialect.loaded_dbapi.Error
        kept = self._kept
        try:
            if not hasattr(kept, "cursor"):
                kept.connection = None  # opening a new one may fail
                kept.connection = self.engine.raw_connection()
                kept.cursor = kept.connection.driver_connection.cursor()
            yield kept.cursor
        except driver_error as error:
            if kept.connection and self.engine.dialect.is_disconnect(error, kept.connection, None):
                kept.__dict__.pop("cursor", None)
                kept.connection.invalidate(error)
            raise DBAPIError.instance(None, None, error, driver_error) from error

    def close(self) -> None:
        """Closes this thread's cursor and connection."""
        if hasattr(self._kept, "cursor"):
            del self._kept.cursor
            self._kept.connection.close()
