"""what operations log"""

import sqlalchemy as sa
from alembic import op

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "task_log",
        sa.Column("task_id", ID, nullable=False),
        sa.Column("claim", sa.Integer(), nullable=False),
        sa.Column("chunk", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.SmallInteger(), nullable=False),
        sa.Column("first_line", sa.Integer(), nullable=False),
        sa.Column("lines", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("written_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["task.task_id"], name=op.f("fk_task_log_task_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("task_id", "claim", "chunk", name=op.f("pk_task_log")),
    )
    op.create_index("ix_task_log_written_at", "task_log", ["written_at"])


def downgrade() -> None:
    op.drop_table("task_log")
