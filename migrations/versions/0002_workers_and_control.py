"""workers, cancellation, progress, idempotency"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

TIME = sa.DateTime(timezone=True)
JSON = sa.Text().with_variant(postgresql.JSON(), "postgresql")
NOT_DONE = sa.text("status IN ('STARTED', 'RETRYING', 'ERROR')")
ENDED = sa.text("finished_at IS NOT NULL")

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("task", sa.Column("progress", JSON, nullable=True))
    op.add_column("task", sa.Column("cancel_requested", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("task", sa.Column("worker_id", sa.String(length=36), nullable=True))
    op.create_index(
        "ix_task_not_done", "task", ["status", "priority"], sqlite_where=NOT_DONE, postgresql_where=NOT_DONE
    )
    op.create_index("ix_task_finished_at", "task", ["finished_at"], sqlite_where=ENDED, postgresql_where=ENDED)
    op.create_table(
        "worker",
        sa.Column("worker_id", sa.String(length=36), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("threads", sa.Integer(), nullable=False),
        sa.Column("queues", JSON, nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("seen_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("worker_id", name=op.f("pk_worker")),
    )
    op.create_table(
        "idempotency_key",
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("answer", JSON, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_idempotency_key")),
    )
    op.create_index("ix_idempotency_key_created_at", "idempotency_key", ["created_at"])


def downgrade() -> None:
    op.drop_table("idempotency_key")
    op.drop_table("worker")
    op.drop_index("ix_task_finished_at", "task")
    op.drop_index("ix_task_not_done", "task")
    for column in ("worker_id", "cancel_requested", "progress"):
        op.drop_column("task", column)
