"""How PostgreSQL chooses among the indexes by which it could find the rows of a statement."""

from sqlalchemy import text

from scheduler_app.extensions import db

# A page costs as much as a row. Each statement is planned for its own values: a group may have two tasks or a million.
BY_ROWS = text(
    "SELECT set_config('random_page_cost', '0.01', true), set_config('seq_page_cost', '0.01', true),"
    " set_config('plan_cache_mode', 'force_custom_plan', true)"
)


def read_few_rows() -> None:
    """Until the transaction ends, PostgreSQL takes the index that leads to the fewest rows, wherever they lie.

    By itself it takes the newest tasks of a group or a status to lie all over the table, when they lie close together.
    So it would rather read all the tasks between them, which may be ten times as many.
    """
    if db.engine.dialect.name == "postgresql":
        db.session.execute(BY_ROWS)
