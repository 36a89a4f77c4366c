"""labels, and the kind of error as a column"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.Text().with_variant(postgresql.JSON(), "postgresql")
TYPED = sa.text("error_type IS NOT NULL")

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("task_schedule", sa.Column("labels", JSON, nullable=True))
    op.add_column("task", sa.Column("labels", JSON, nullable=True))
    op.create_table(
        "task_label",
        sa.Column("task_id", ID, autoincrement=False, nullable=False),
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("value", sa.String(length=100), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["task.task_id"], name=op.f("fk_task_label_task_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("task_id", "name", name=op.f("pk_task_label")),
    )
    op.create_index("ix_task_label_value", "task_label", ["name", "value", "task_id"])
    op.add_column("task", sa.Column("error_type", sa.String(length=200), nullable=True))
    # Each task that has failed is written anew: some seconds for a hundred thousand.
    known = "error ->> 'type'" if op.get_bind().dialect.name == "postgresql" else "json_extract(error, '$.type')"
    op.execute(f"UPDATE task SET error_type = substr({known}, 1, 200) WHERE error IS NOT NULL")  # noqa: S608
    op.create_index(
        "ix_task_error_type", "task", ["error_type", "status", "task_id"], sqlite_where=TYPED, postgresql_where=TYPED
    )


def downgrade() -> None:
    op.drop_index("ix_task_error_type", "task")
    op.drop_column("task", "error_type")
    op.drop_table("task_label")
    op.drop_column("task", "labels")
    op.drop_column("task_schedule", "labels")
