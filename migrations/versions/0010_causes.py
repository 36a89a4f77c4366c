"""causes of failures"""

import sqlalchemy as sa
from alembic import op

FAILED = sa.text("status = 'ERROR'")
CAUSED = sa.text("cause IS NOT NULL")

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("task", sa.Column("cause", sa.String(length=16), nullable=True))
    op.create_index("ix_task_failed", "task", ["status", "finished_at"], sqlite_where=FAILED, postgresql_where=FAILED)
    op.create_index(
        "ix_task_cause", "task", ["cause", "status", "task_id"], sqlite_where=CAUSED, postgresql_where=CAUSED
    )


def downgrade() -> None:
    op.drop_index("ix_task_cause", "task")
    op.drop_index("ix_task_failed", "task")
    op.drop_column("task", "cause")
