"""by how much the clocks of workers and schedulers differ from the database's"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("worker", "scheduler"):
        op.add_column(table, sa.Column("clock_offset", sa.Float(), nullable=True))


def downgrade() -> None:
    for table in ("worker", "scheduler"):
        op.drop_column(table, "clock_offset")
