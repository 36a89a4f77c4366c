"""what is told elsewhere when a task ends"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

JSON = sa.Text().with_variant(postgresql.JSON(), "postgresql")

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("task", sa.Column("callback", JSON, nullable=True))
    op.add_column("task_schedule", sa.Column("callback", JSON, nullable=True))


def downgrade() -> None:
    op.drop_column("task_schedule", "callback")
    op.drop_column("task", "callback")
