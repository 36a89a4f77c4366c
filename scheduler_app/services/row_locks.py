"""The order in which transactions lock rows, so that no two of them wait for each other.

First workers, then schedules, then tasks; each kind in the order of its ids. A transaction that locks a row out of this
order must not wait for it: it skips locked rows.
"""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Update, select, update

from scheduler_app.extensions import db
from scheduler_app.models import Task, TaskSchedule


def update_tasks(*conditions: ColumnElement[bool]) -> Update:
    """An update of the tasks that meet the conditions. It locks them in order; a plain update locks them in any order.

    The new values are computed from the newest version of each row.
    """
    chosen = select(Task.task_id).where(*conditions).order_by(Task.task_id).with_for_update()
    return update(Task).where(Task.task_id.in_(chosen)).execution_options(synchronize_session=False)


def lock_schedules(task_ids: Sequence[int]) -> None:
    """Locks the schedules that a failure of these tasks may pause. Call it before any of the tasks is locked."""
    of_tasks = select(Task.task_schedule_id).where(Task.task_id.in_(task_ids))
    chosen = TaskSchedule.task_schedule_id.in_(of_tasks), TaskSchedule.pause_on_failure
    query = select(TaskSchedule.task_schedule_id).where(*chosen).order_by(TaskSchedule.task_schedule_id)
    db.session.execute(query.with_for_update())
