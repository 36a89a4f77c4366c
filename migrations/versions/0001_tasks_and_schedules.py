"""tasks and schedules"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)
JSON = sa.Text().with_variant(postgresql.JSON(), "postgresql")
UNSENT = sa.text("enqueued_at IS NULL AND status IN ('PENDING', 'RETRYING')")

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "task_schedule",
        sa.Column("task_schedule_id", ID, nullable=False),
        sa.Column("name", sa.String(length=200), nullable=True),
        sa.Column("operation", sa.String(length=64), nullable=False),
        sa.Column("params", JSON, nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("max_retries", sa.SmallInteger(), nullable=False),
        sa.Column("every_x_days", sa.Integer(), nullable=True),
        sa.Column("every_x_hours", sa.Integer(), nullable=True),
        sa.Column("start_at", TIME, nullable=True),
        sa.Column("end_at", TIME, nullable=True),
        sa.Column("anchor_at", TIME, nullable=False),
        sa.Column("schedule_x_times", sa.Integer(), nullable=True),
        sa.Column("times_scheduled", sa.Integer(), nullable=False),
        sa.Column("next_run_at", TIME, nullable=True),
        sa.Column("last_run_at", TIME, nullable=True),
        sa.Column("checked_scheduling_at", TIME, nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.CheckConstraint("priority BETWEEN 0 AND 9", name=op.f("ck_task_schedule_priority")),
        sa.PrimaryKeyConstraint("task_schedule_id", name=op.f("pk_task_schedule")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_task_schedule_next_run_at", "task_schedule", ["next_run_at"], unique=False)

    op.create_table(
        "task",
        sa.Column("task_id", ID, nullable=False),
        sa.Column("operation", sa.String(length=64), nullable=False),
        sa.Column("params", JSON, nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("status", sa.String(length=9), nullable=False),
        sa.Column("result", JSON, nullable=True),
        sa.Column("error", JSON, nullable=True),
        sa.Column("attempts", sa.SmallInteger(), nullable=False),
        sa.Column("max_retries", sa.SmallInteger(), nullable=False),
        sa.Column("claims", sa.Integer(), nullable=False),
        sa.Column("run_at", TIME, nullable=False),
        sa.Column("enqueued_at", TIME, nullable=True),
        sa.Column("task_schedule_id", ID, nullable=True),
        sa.Column("scheduled_for", TIME, nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("started_at", TIME, nullable=True),
        sa.Column("finished_at", TIME, nullable=True),
        sa.CheckConstraint(
            "status IN ('PENDING', 'STARTED', 'RETRYING', 'SUCCESS', 'ERROR', 'CANCELLED')", name=op.f("ck_task_status")
        ),
        sa.CheckConstraint("priority BETWEEN 0 AND 9", name=op.f("ck_task_priority")),
        sa.ForeignKeyConstraint(
            ["task_schedule_id"],
            ["task_schedule.task_schedule_id"],
            name=op.f("fk_task_task_schedule_id"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_task")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_task_status", "task", ["status", "task_id"], unique=False)
    op.create_index(
        "ix_task_unsent", "task", ["priority", "run_at"], unique=False, sqlite_where=UNSENT, postgresql_where=UNSENT
    )
    op.create_index("uq_task_occurrence", "task", ["task_schedule_id", "scheduled_for"], unique=True)

    op.create_table(
        "task_failure",
        sa.Column("task_id", ID, nullable=False),
        sa.Column("claim", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.SmallInteger(), nullable=False),
        sa.Column("type", sa.String(length=200), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("traceback", sa.Text(), nullable=True),
        sa.Column("failed_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["task_id"], ["task.task_id"], name=op.f("fk_task_failure_task_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("task_id", "claim", name=op.f("pk_task_failure")),
    )


def downgrade() -> None:
    for table in ("task_failure", "task", "task_schedule"):
        op.drop_table(table)
