"""jitter, so many tasks at once, and schedules as code"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
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
