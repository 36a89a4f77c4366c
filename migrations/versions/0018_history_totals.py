"""what has ended since counting began"""

import sqlalchemy as sa
from alembic import op

JSON = sa.Text().with_variant(sa.JSON(), "postgresql")

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "history_total",
        sa.Column("operation", sa.String(length=64), nullable=False),
        sa.Column("priority", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("status", sa.String(length=9), nullable=False),
        sa.Column("tasks", sa.BigInteger(), nullable=False),
        sa.Column("waiting", JSON, nullable=False),
        sa.Column("running", JSON, nullable=False),
        sa.PrimaryKeyConstraint("operation", "priority", "status", name=op.f("pk_history_total")),
    )


def downgrade() -> None:
    op.drop_table("history_total")
