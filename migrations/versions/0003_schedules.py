"""cron and rrule, overlap, catch-up, pauses; schedulers"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

TIME = sa.DateTime(timezone=True)
JSON = sa.Text().with_variant(postgresql.JSON(), "postgresql")
UNFINISHED = sa.text("finished_at IS NULL AND task_schedule_id IS NOT NULL")

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("task_schedule", sa.Column("cron", sa.String(length=200), nullable=True))
    op.add_column("task_schedule", sa.Column("rrule", sa.String(length=500), nullable=True))
    op.add_column("task_schedule", sa.Column("timezone", sa.String(length=64), server_default="UTC", nullable=False))
    op.add_column("task_schedule", sa.Column("overlap", sa.String(length=15), server_default="allow", nullable=False))
    op.add_column("task_schedule", sa.Column("catch_up", sa.String(length=6), server_default="latest", nullable=False))
    op.add_column("task_schedule", sa.Column("catch_up_window", sa.Integer(), server_default="86400", nullable=False))
    op.add_column(
        "task_schedule", sa.Column("pause_on_failure", sa.Boolean(), server_default=sa.false(), nullable=False)
    )
    op.add_column("task_schedule", sa.Column("paused", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("task_schedule", sa.Column("pause_note", sa.String(length=500), nullable=True))
    op.add_column("task_schedule", sa.Column("missed", sa.Integer(), server_default="0", nullable=False))
    op.add_column("task_schedule", sa.Column("skipped", sa.Integer(), server_default="0", nullable=False))
    op.add_column("task_schedule", sa.Column("left_out", JSON, server_default="[]", nullable=False))
    op.create_index(
        "ix_task_unfinished", "task", ["task_schedule_id"], sqlite_where=UNFINISHED, postgresql_where=UNFINISHED
    )
    op.create_table(
        "scheduler",
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("scanned_at", TIME, nullable=False),
        sa.Column("scan_seconds", sa.Float(), nullable=False),
        sa.Column("lag_seconds", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("host", "pid", name=op.f("pk_scheduler")),
    )


def downgrade() -> None:
    op.drop_table("scheduler")
    op.drop_index("ix_task_unfinished", "task")
    for column in (
        "left_out",
        "skipped",
        "missed",
        "pause_note",
        "paused",
        "pause_on_failure",
        "catch_up_window",
        "catch_up",
        "overlap",
        "timezone",
        "rrule",
        "cron",
    ):
        op.drop_column("task_schedule", column)
