"""paused priorities, history"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)
JSON = sa.Text().with_variant(postgresql.JSON(), "postgresql")

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "paused_priority",
        sa.Column("priority", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("note", sa.String(length=500), nullable=True),
        sa.Column("paused_at", TIME, nullable=False),
        sa.Column("paused_by", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("priority", name=op.f("pk_paused_priority")),
    )
    op.create_table(
        "history",
        sa.Column("span", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("begins_at", TIME, nullable=False),
        sa.Column("operation", sa.String(length=64), nullable=False),
        sa.Column("priority", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("status", sa.String(length=9), nullable=False),
        sa.Column("tasks", sa.Integer(), nullable=False),
        sa.Column("waiting", JSON, nullable=False),
        sa.Column("running", JSON, nullable=False),
        sa.PrimaryKeyConstraint("span", "begins_at", "operation", "priority", "status", name=op.f("pk_history")),
    )
    op.create_table(
        "history_mark",
        sa.Column("mark_id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("finished_to", TIME, nullable=False),
        sa.Column("task_id", ID, nullable=False),
        sa.PrimaryKeyConstraint("mark_id", name=op.f("pk_history_mark")),
    )
    op.create_table(
        "history_depth",
        sa.Column("span", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("begins_at", TIME, nullable=False),
        sa.Column("priority", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("waiting", sa.Integer(), nullable=False),
        sa.Column("running", sa.Integer(), nullable=False),
        sa.Column("oldest_seconds", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("span", "begins_at", "priority", name=op.f("pk_history_depth")),
    )


def downgrade() -> None:
    for table in ("history_depth", "history_mark", "history", "paused_priority"):
        op.drop_table(table)
