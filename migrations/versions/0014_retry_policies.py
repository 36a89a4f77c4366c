"""pauses between attempts"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    json = sa.Text().with_variant(postgresql.JSON(), "postgresql")
    for table in ("task", "task_schedule"):
        op.add_column(table, sa.Column("retry", json, nullable=True))


def downgrade() -> None:
    for table in ("task", "task_schedule"):
        op.drop_column(table, "retry")
