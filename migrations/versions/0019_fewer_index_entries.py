"""fewer entries of indexes for each task

Of a million tasks it reads all, twice, which takes some seconds; on PostgreSQL nothing is posted meanwhile.
"""

import sqlalchemy as sa
from alembic import op

SCHEDULED = sa.text("task_schedule_id IS NOT NULL")
FAILING = sa.text("status IN ('RETRYING', 'ERROR')")
NOT_DONE = sa.text("status IN ('STARTED', 'RETRYING', 'ERROR')")
OCCURRENCE = ["task_schedule_id", "scheduled_for"]

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("uq_task_occurrence", "task")
    op.create_index(
        "uq_task_occurrence", "task", OCCURRENCE, unique=True, sqlite_where=SCHEDULED, postgresql_where=SCHEDULED
    )
    op.drop_index("ix_task_not_done", "task")
    op.create_index("ix_task_failing", "task", ["status", "priority"], sqlite_where=FAILING, postgresql_where=FAILING)


def downgrade() -> None:
    op.drop_index("ix_task_failing", "task")
    op.create_index(
        "ix_task_not_done", "task", ["status", "priority"], sqlite_where=NOT_DONE, postgresql_where=NOT_DONE
    )
    op.drop_index("uq_task_occurrence", "task")
    op.create_index("uq_task_occurrence", "task", OCCURRENCE, unique=True)
