"""Runs the migrations on the application's own engine: `flask --app wsgi db upgrade`."""

import math

from alembic import context
from flask import current_app
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from scheduler_app import access_models, database, models  # noqa: F401  (it has tables, too)
from scheduler_app.database.failures import is_outage
from scheduler_app.extensions import db

LOCK = 7_420_137_001  # any number of ours; if several processes migrate at once, one works and the others wait


def run_migrations() -> None:
    options = current_app.extensions["migrate"].configure_args
    # SQLite takes its lock before the first read, and does all or nothing. The driver begins no transaction here.
    with (
        database.deadline(math.inf),  # a step on a large table may take long
        db.engine.connect().execution_options(sqlite_begin="BEGIN IMMEDIATE") as connection,
    ):
        context.configure(
            connection=connection, target_metadata=models.Base.metadata, transactional_ddl=True, **options
        )
        with context.begin_transaction():
            if connection.dialect.name == "postgresql":
                connection.execute(text("SET LOCAL statement_timeout = 0"))
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
            context.run_migrations()


if context.is_offline_mode():
    raise SystemExit("migrations need a database: leave out --sql")
try:
    run_migrations()
except SQLAlchemyError as error:
    if not is_outage(error):
        raise
    reason = str(getattr(error, "orig", error)).partition("\n")[0]
    raise SystemExit(f"DATABASE_URL: the database does not answer: {reason}") from None
