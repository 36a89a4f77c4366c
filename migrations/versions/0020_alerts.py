"""what was told elsewhere of what needs attention"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

JSON = sa.Text().with_variant(postgresql.JSON(), "postgresql")
TIME = sa.DateTime(timezone=True)

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "alert",
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("told", JSON, nullable=False),
        sa.Column("told_at", TIME, nullable=False),
        sa.Column("message_id", sa.String(length=40), nullable=True),
        sa.Column("message", JSON, nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("next_try_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("kind", name=op.f("pk_alert")),
    )


def downgrade() -> None:
    op.drop_table("alert")
