"""jitter, so many tasks at once, schedules as code; and an index for expiry that SQLite uses"""

import sqlalchemy as sa
from alembic import op

WAITING = sa.text("expires_at IS NOT NULL AND status IN ('PENDING', 'RETRYING')")
UNFINISHED = sa.text("expires_at IS NOT NULL AND finished_at IS NULL")

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def index(condition: sa.TextClause) -> None:
    op.drop_index("ix_task_expiring", "task")
    op.create_index("ix_task_expiring", "task", ["expires_at"], sqlite_where=condition, postgresql_where=condition)


def upgrade() -> None:
    index(UNFINISHED)
    op.add_column("task_schedule", sa.Column("jitter", sa.Integer(), server_default="0", nullable=False))
    op.add_column("task_schedule", sa.Column("overlap_max", sa.Integer(), nullable=True))
    op.add_column("task_schedule", sa.Column("owner", sa.String(length=64), nullable=True))
    connection = op.get_bind()
    # Of several schedules with one name the oldest keeps it. A new name may be taken as well: then once more.
    firsts = "SELECT min(task_schedule_id) FROM task_schedule GROUP BY name"
    longer = "substr(name, 1, 170) || ' (' || task_schedule_id || ')'"
    rename = f"UPDATE task_schedule SET name = {longer} WHERE name IS NOT NULL AND task_schedule_id NOT IN ({firsts})"  # noqa: S608
    while connection.execute(sa.text(rename)).rowcount:
        pass
    op.create_index("uq_task_schedule_name", "task_schedule", ["name"], unique=True)


def downgrade() -> None:
    op.drop_index("uq_task_schedule_name", "task_schedule")
    op.drop_column("task_schedule", "owner")
    op.drop_column("task_schedule", "overlap_max")
    op.drop_column("task_schedule", "jitter")
    index(WAITING)
