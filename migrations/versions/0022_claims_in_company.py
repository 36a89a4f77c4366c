"""which claims have certainly begun, and which tasks may have ended their worker"""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("task", sa.Column("begun", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("task", sa.Column("suspected", sa.Boolean, nullable=False, server_default=sa.false()))
    op.execute("UPDATE task SET begun = TRUE WHERE status = 'STARTED'")


def downgrade() -> None:
    op.drop_column("task", "suspected")
    op.drop_column("task", "begun")
