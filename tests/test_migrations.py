"""Migrations on both databases: up, down, equal to the models, and by several processes at once."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import Flask
from flask_migrate import downgrade, upgrade
from sqlalchemy import inspect, select, text

from scheduler_app.config import Settings
from scheduler_app.extensions import Base, db
from scheduler_app.models import LeftOutTime, TaskSchedule
from scheduler_app.web import create_web_app
from tests.support.servers import Postgres

ROOT = Path(__file__).parent.parent
TABLES = {table.name for table in Base.metadata.sorted_tables}


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/empty.db"
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    postgres.sql("CREATE DATABASE migrations")
    yield postgres.url("migrations")
    postgres.sql("DROP DATABASE migrations WITH (FORCE)")


@pytest.fixture
def app(empty_database: str) -> Iterator[Flask]:
    app = create_web_app(Settings.from_env({"DATABASE_URL": empty_database}))
    with app.app_context():
        yield app
        db.engine.dispose()


def tables() -> set[str]:
    return set(inspect(db.engine).get_table_names()) - {"alembic_version"}


def revision() -> str | None:
    with db.engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


@pytest.mark.usefixtures("app")
def test_upgrade_makes_every_table_and_downgrade_removes_them() -> None:
    upgrade()
    assert tables() == TABLES
    downgrade(revision="base")
    assert (tables(), revision()) == (set(), None)
    upgrade()
    assert tables() == TABLES


def test_each_migration_can_be_undone_and_done_again(app: Flask) -> None:
    directory = ScriptDirectory(str(ROOT / app.extensions["migrate"].directory))
    for script in reversed(list(directory.walk_revisions())):
        upgrade(revision=script.revision)
        downgrade(revision="-1")
        upgrade(revision=script.revision)
    assert revision() == directory.get_current_head()


@pytest.mark.usefixtures("app")
def test_a_second_upgrade_changes_nothing() -> None:
    upgrade()
    before = revision()
    upgrade()
    assert (revision(), tables()) == (before, TABLES)


@pytest.mark.usefixtures("app")
def test_the_migrations_make_what_the_models_say() -> None:
    upgrade()
    with db.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    migrated = reflected()
    downgrade(revision="base")
    Base.metadata.create_all(db.engine)
    assert migrated == reflected()


def reflected() -> dict[str, list[str]]:
    """All that the database knows of each table; sorted, because a later migration adds its columns at the end."""
    inspector = inspect(db.engine)
    looks = (
        inspector.get_columns,
        inspector.get_indexes,
        inspector.get_check_constraints,
        inspector.get_unique_constraints,
        inspector.get_foreign_keys,
        lambda table: [inspector.get_pk_constraint(table)],
    )
    return {
        table: sorted(json.dumps(part, default=str, sort_keys=True) for look in looks for part in look(table))
        for table in TABLES
    }


def test_migrating_at_once_in_several_processes_does_no_harm(app: Flask, empty_database: str) -> None:
    command = (sys.executable, "-m", "flask", "--app", "wsgi", "db", "upgrade")
    environ = os.environ | {"DATABASE_URL": empty_database}
    processes = [
        subprocess.Popen(command, cwd=ROOT, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(3)
    ]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], "\n".join(outputs)
    assert tables() == TABLES


def test_the_times_that_schedules_left_out_move_to_their_table(app: Flask) -> None:
    upgrade(revision="0008")
    listed = [{"scheduled_for": f"2030-07-01T0{hour}:00:00Z", "reason": "overlap"} for hour in (5, 4)]
    names = "operation, params, priority, max_retries, anchor_at, times_scheduled, created_at, left_out"
    values = "'calculate', '{}', 5, 5, '2030-01-01', 0, '2030-01-01', :left_out"
    with db.engine.begin() as connection:
        for left_out in ([], listed):
            insert = text(f"INSERT INTO task_schedule ({names}) VALUES ({values})")  # noqa: S608
            connection.execute(insert, {"left_out": json.dumps(left_out)})
    upgrade()
    written = select(TaskSchedule.left_out_rows).order_by(TaskSchedule.task_schedule_id)
    kept = select(LeftOutTime.task_schedule_id, LeftOutTime.slot, LeftOutTime.scheduled_for, LeftOutTime.reason)
    four = datetime(2030, 7, 1, 4, tzinfo=UTC)
    with db.engine.connect() as connection:
        assert connection.scalars(written).all() == [0, 2]
        moved = connection.execute(kept.order_by(LeftOutTime.slot)).all()
        assert moved == [(2, 0, four, "overlap"), (2, 1, four + timedelta(hours=1), "overlap")]
