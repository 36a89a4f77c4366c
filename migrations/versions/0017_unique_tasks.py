"""keys that only one task at a time may have"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

JSON = sa.Text().with_variant(postgresql.JSON(), "postgresql")
HELD = sa.text("unique_key IS NOT NULL")

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("task", sa.Column("unique", JSON, nullable=True))
    op.add_column("task", sa.Column("unique_key", sa.String(length=265), nullable=True))
    op.create_index("uq_task_unique_key", "task", ["unique_key"], unique=True, sqlite_where=HELD, postgresql_where=HELD)


def downgrade() -> None:
    op.drop_index("uq_task_unique_key", "task")
    op.drop_column("task", "unique_key")
    op.drop_column("task", "unique")
