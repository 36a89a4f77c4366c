"""/tasks/cancel/, /tasks/retry/ and /tasks/delete/"""

from typing import Any

from scheduler_app.access import needs
from scheduler_app.access_models import Scope
from scheduler_app.api import answer_examples as answers
from scheduler_app.api.body import Blueprint
from scheduler_app.database import clock
from scheduler_app.schemas.bulk import ManyTasksOut, TasksToCancel, TasksToDelete, TasksToRetry
from scheduler_app.services import bulk
from scheduler_app.services.bulk import Chosen

LONG_AGO = "2001-01-01T00:00:00Z"  # no task is that old: the examples change nothing when sent as they are

blp = Blueprint("bulk", __name__, url_prefix="/tasks", description="Many tasks at once.")


@blp.route("/cancel/", methods=["POST"])
@needs(Scope.WRITE)
@blp.arguments(TasksToCancel, example={"status": ["PENDING", "RETRYING"], "created_before": LONG_AGO})
@blp.response(202, ManyTasksOut, examples=answers.MANY)
def cancel_tasks(chosen: Chosen) -> dict[str, Any]:
    """Cancel many tasks, the oldest first

    The conditions select among the waiting and running tasks; `"all": true` selects all of them. The oldest, up to
    `limit`, are cancelled as by `POST /tasks/{task_id}/cancel/`. Running tasks that were asked to stop before are left
    out. While `next_cursor` is not null, repeat the call with it as `cursor`.
    """
    return bulk.cancel(chosen, now=clock())


@blp.route("/retry/", methods=["POST"])
@needs(Scope.WRITE)
@blp.arguments(TasksToRetry, example={"status": "ERROR", "created_before": LONG_AGO})
@blp.response(202, ManyTasksOut, examples=answers.MANY)
def retry_tasks(chosen: Chosen) -> dict[str, Any]:
    """Run many tasks again, the oldest first

    The conditions select among the tasks in ERROR, CANCELLED or EXPIRED; `"all": true` selects all of them. The oldest,
    up to `limit`, run again as by `POST /tasks/{task_id}/retry/`. While `next_cursor` is not null, repeat the call with
    it as `cursor`.
    """
    return bulk.retry(chosen, now=clock())


@blp.route("/delete/", methods=["POST"])
@needs(Scope.ADMIN)
@blp.arguments(TasksToDelete, example={"status": "SUCCESS", "created_before": LONG_AGO})
@blp.response(200, ManyTasksOut, examples=answers.MANY)
def delete_tasks(chosen: Chosen) -> dict[str, Any]:
    """Delete many finished tasks, the oldest first

    The conditions select among the tasks in SUCCESS, ERROR, CANCELLED or EXPIRED; `"all": true` selects all of them.
    The oldest, up to `limit`, are deleted with their failures, for good. While `next_cursor` is not null, repeat the
    call with it as `cursor`.
    """
    return bulk.remove(chosen, now=clock())
