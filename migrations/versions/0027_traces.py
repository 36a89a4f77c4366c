"""the trace in which a task was posted"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

JSON = sa.Text().with_variant(postgresql.JSON(), "postgresql")

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("task", sa.Column("trace", JSON, nullable=True))


def downgrade() -> None:
    op.drop_column("task", "trace")
