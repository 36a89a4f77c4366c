"""schedules of every so many minutes"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("task_schedule", sa.Column("every_x_minutes", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("task_schedule", "every_x_minutes")
