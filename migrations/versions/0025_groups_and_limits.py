"""groups of tasks, and limits that are set at runtime"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

JSON = sa.Text().with_variant(postgresql.JSON(), "postgresql")
GROUPED = sa.text('"group" IS NOT NULL')

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("task", sa.Column("group", sa.String(length=64), nullable=True))
    op.create_index("ix_task_group", "task", ["group", "task_id"], sqlite_where=GROUPED, postgresql_where=GROUPED)
    op.add_column("task_schedule", sa.Column("group", sa.String(length=64), nullable=True))
    op.create_table(
        "limit_change",
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("operation", sa.String(length=64), nullable=False),
        sa.Column("per", sa.String(length=9), nullable=False),
        sa.Column("max_running", sa.Integer(), nullable=True),
        sa.Column("rate", JSON, nullable=True),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("changed_by", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_limit_change")),
    )
    epoch = op.create_table(
        "limit_epoch",
        sa.Column("epoch_id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("epoch_id", name=op.f("pk_limit_epoch")),
    )
    op.bulk_insert(epoch, [{"epoch_id": 1, "epoch": 1}])


def downgrade() -> None:
    op.drop_table("limit_epoch")
    op.drop_table("limit_change")
    op.drop_column("task_schedule", "group")
    op.drop_index("ix_task_group", "task")
    op.drop_column("task", "group")
