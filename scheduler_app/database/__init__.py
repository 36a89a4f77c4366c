"""Everything that differs between PostgreSQL and SQLite."""

from scheduler_app.database.cursors import ThreadCursors, execute_directly
from scheduler_app.database.engines import DIRECT, direct_options, engine_options, prepare
from scheduler_app.database.plans import read_few_rows
from scheduler_app.database.rows import as_table, entries, insert, parameters, sqlite_time
from scheduler_app.database.settled import not_settled, settled
from scheduler_app.database.shared_clock import DatabaseClock, clock, clock_offset, describe_offset, is_off
from scheduler_app.database.sizes import is_longer
from scheduler_app.database.tallies import BOUNDS, SLOT, tally
from scheduler_app.database.transactions import begin_write, tried_again
from scheduler_app.database.waits import deadline, extend, time_left, waits

__all__ = [
    "BOUNDS",
    "DIRECT",
    "SLOT",
    "DatabaseClock",
    "ThreadCursors",
    "as_table",
    "begin_write",
    "clock",
    "clock_offset",
    "deadline",
    "describe_offset",
    "direct_options",
    "engine_options",
    "entries",
    "execute_directly",
    "extend",
    "insert",
    "is_longer",
    "is_off",
    "not_settled",
    "parameters",
    "prepare",
    "read_few_rows",
    "settled",
    "sqlite_time",
    "tally",
    "time_left",
    "tried_again",
    "waits",
]
