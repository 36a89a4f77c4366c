"""the times of schedules that got no task"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)
JSON = sa.Text().with_variant(postgresql.JSON(), "postgresql")

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# The newest time was the first of the list; the oldest takes slot 0.
COPY = {
    "postgresql": """
        INSERT INTO left_out_time (task_schedule_id, slot, scheduled_for, last_for, times, reason, recorded_at)
        SELECT task_schedule_id, json_array_length(left_out) - place, at, at, 1, one->>'reason', at
        FROM task_schedule, json_array_elements(left_out) WITH ORDINALITY AS listed(one, place),
             CAST(one->>'scheduled_for' AS timestamptz) AS at
    """,
    "sqlite": """
        INSERT INTO left_out_time (task_schedule_id, slot, scheduled_for, last_for, times, reason, recorded_at)
        SELECT task_schedule_id, last - place, at, at, 1, reason, at FROM (
            SELECT task_schedule_id, json_array_length(left_out) - 1 AS last, listed.key AS place,
                   listed.value->>'reason' AS reason,
                   replace(substr(listed.value->>'scheduled_for', 1, 19), 'T', ' ') || '.000000' AS at
            FROM task_schedule, json_each(left_out) AS listed
        )
    """,
}


def upgrade() -> None:
    op.add_column("task_schedule", sa.Column("left_out_rows", sa.Integer(), server_default="0", nullable=False))
    op.add_column("task_schedule", sa.Column("paused_run_at", TIME, nullable=True))
    op.create_table(
        "left_out_time",
        sa.Column("task_schedule_id", ID, autoincrement=False, nullable=False),
        sa.Column("slot", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("scheduled_for", TIME, nullable=False),
        sa.Column("last_for", TIME, nullable=False),
        sa.Column("times", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(length=10), nullable=False),
        sa.Column("recorded_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["task_schedule_id"],
            ["task_schedule.task_schedule_id"],
            name=op.f("fk_left_out_time_task_schedule_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("task_schedule_id", "slot", name=op.f("pk_left_out_time")),
    )
    op.execute(COPY[op.get_bind().dialect.name])
    op.execute("UPDATE task_schedule SET left_out_rows = json_array_length(left_out)")
    op.drop_column("task_schedule", "left_out")


def downgrade() -> None:
    op.add_column("task_schedule", sa.Column("left_out", JSON, server_default="[]", nullable=False))
    op.drop_table("left_out_time")
    op.drop_column("task_schedule", "paused_run_at")
    op.drop_column("task_schedule", "left_out_rows")
