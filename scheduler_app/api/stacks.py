"""/tasks/{task_id}/stack/"""

from typing import Any

from scheduler_app.access import needs
from scheduler_app.access.stacks import stack_of
from scheduler_app.access_models import Scope
from scheduler_app.api import answer_examples as answers
from scheduler_app.api.body import Blueprint
from scheduler_app.schemas.stacks import StackOut

blp = Blueprint("stacks", __name__, url_prefix="/tasks", description="Where running attempts stand.")


@blp.route("/<id:task_id>/stack/", methods=["GET"])
@needs(Scope.READ)
@blp.response(200, StackOut, example=answers.STACK)
@blp.alt_response(409, description="It does not run.")
@blp.alt_response(503, description="Its worker does not answer within 2 s.")
def read_stack(task_id: int) -> Any:
    """Ask a running task where it stands

    The worker that runs the attempt answers within 2 s, most often within half a second. A worker cannot answer while a
    library that it calls keeps Python from running.
    """
    return stack_of(task_id)
