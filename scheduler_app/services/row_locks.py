"""The order in which transactions lock rows, so that no two of them wait for each other.

First workers, then schedules, then tasks; among each, in the order of their ids. Whoever locks a row out of turn must
not wait for it: it skips what is locked.
"""

from sqlalchemy import ColumnElement, Update, select, update

from scheduler_app.models import Task


def update_tasks(*conditions: ColumnElement[bool]) -> Update:
    """An update of the tasks under these conditions, locked in order; on its own, it would lock them as it finds them.

    Its values are evaluated on the newest version of each row.
    """
    chosen = select(Task.task_id).where(*conditions).order_by(Task.task_id).with_for_update()
    return update(Task).where(Task.task_id.in_(chosen)).execution_options(synchronize_session=False)
