"""room on each page for the next versions of its tasks: PostgreSQL then logs less of each change"""

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Only pages that are filled from now on have room."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE task SET (fillfactor = 70)")


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE task RESET (fillfactor)")
