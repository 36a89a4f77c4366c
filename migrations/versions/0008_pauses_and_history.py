"""paused priorities"""

import sqlalchemy as sa
from alembic import op

TIME = sa.DateTime(timezone=True)

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "paused_priority",
        sa.Column("priority", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("note", sa.String(length=500), nullable=True),
        sa.Column("paused_at", TIME, nullable=False),
        sa.Column("paused_by", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("priority", name=op.f("pk_paused_priority")),
    )


def downgrade() -> None:
    op.drop_table("paused_priority")
