"""All that differs between PostgreSQL and SQLite."""

from scheduler_app.database.cursors import ThreadCursors
from scheduler_app.database.engines import DIRECT, direct_options, engine_options, prepare
from scheduler_app.database.rows import as_table, insert, parameters, sqlite_time
from scheduler_app.database.transactions import begin_write, clock, tried_again
from scheduler_app.database.waits import deadline, time_left, waits

__all__ = [
    "DIRECT",
    "ThreadCursors",
    "as_table",
    "begin_write",
    "clock",
    "deadline",
    "direct_options",
    "engine_options",
    "insert",
    "parameters",
    "prepare",
    "sqlite_time",
    "time_left",
    "tried_again",
    "waits",
]
