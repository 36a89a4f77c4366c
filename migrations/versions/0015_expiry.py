"""tasks that expire"""

import sqlalchemy as sa
from alembic import op

TIME = sa.DateTime(timezone=True)
EXPIRING = sa.text("expires_at IS NOT NULL AND status IN ('PENDING', 'RETRYING')")
BEFORE = "status IN ('PENDING', 'STARTED', 'RETRYING', 'SUCCESS', 'ERROR', 'CANCELLED')"
AFTER = "status IN ('PENDING', 'STARTED', 'RETRYING', 'SUCCESS', 'ERROR', 'CANCELLED', 'EXPIRED')"

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("task", sa.Column("expires_at", TIME, nullable=True))
    op.add_column("task_schedule", sa.Column("expires_in", sa.Integer(), nullable=True))
    op.create_index("ix_task_expiring", "task", ["expires_at"], sqlite_where=EXPIRING, postgresql_where=EXPIRING)
    replace_check(BEFORE, AFTER)


def downgrade() -> None:
    op.execute("UPDATE task SET status = 'CANCELLED' WHERE status = 'EXPIRED'")
    replace_check(AFTER, BEFORE)
    op.drop_index("ix_task_expiring", "task")
    op.drop_column("task_schedule", "expires_in")
    op.drop_column("task", "expires_at")


def replace_check(old: str, new: str) -> None:
    """Of the status. PostgreSQL reads the whole table for it: a second for some million tasks."""
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":
        op.drop_constraint(op.f("ck_task_status"), "task", type_="check")
        op.create_check_constraint(op.f("ck_task_status"), "task", new)
        return
    # SQLite cannot change a constraint, and to copy the table would take long. Its documentation gives this way for
    # changes that touch no stored row: https://www.sqlite.org/lang_altertable.html#otheralter
    version = connection.exec_driver_sql("PRAGMA schema_version").scalar_one()
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    change = "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE type = 'table' AND name = 'task'"
    connection.exec_driver_sql(change, (old, new))
    connection.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
    connection.exec_driver_sql("PRAGMA writable_schema = OFF")
