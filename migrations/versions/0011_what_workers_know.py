"""which operations and secrets a worker knows"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

JSON = sa.Text().with_variant(postgresql.JSON(), "postgresql")

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("worker", sa.Column("operations", JSON, nullable=True))
    op.add_column("worker", sa.Column("secrets", JSON, nullable=True))


def downgrade() -> None:
    op.drop_column("worker", "secrets")
    op.drop_column("worker", "operations")
