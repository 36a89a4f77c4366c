"""/queues/"""

from typing import Any

from scheduler_app.access import needs
from scheduler_app.access_models import Scope
from scheduler_app.api import answer_examples as answers
from scheduler_app.api.body import Blueprint
from scheduler_app.database import clock
from scheduler_app.schemas.task_schedules import PauseRequest
from scheduler_app.schemas.workers import PauseOut, PurgedOut, QueueOut
from scheduler_app.services import pauses, queues

blp = Blueprint("queues", __name__, url_prefix="/queues", description="One queue per priority.")


@blp.route("/", methods=["GET"])
@needs(Scope.READ)
@blp.response(200, QueueOut(many=True), example=[answers.QUEUE])
def list_queues() -> Any:
    """List queues

    One per priority, the most urgent first. Each says how many tasks wait, run and have failed, and whether it is
    paused.
    """
    return queues.find(now=clock())


@blp.route("/<priority:priority>/pause/", methods=["POST"])
@needs(Scope.ADMIN)
@blp.arguments(PauseRequest, required=False, example={"note": "the partner's API is down"})
@blp.response(200, PauseOut, example=answers.PAUSED_PRIORITY)
def pause_queue(body: dict[str, Any], priority: int) -> Any:
    """Pause a priority

    Within a second no worker begins a task of this priority, until it is resumed. Running tasks finish, and posting
    goes on. A second call changes the note.
    """
    paused = pauses.pause(priority, now=clock(), **body)
    return {"priority": priority, **queues.pause_of(priority, {priority: paused})}


@blp.route("/<priority:priority>/resume/", methods=["POST"])
@needs(Scope.ADMIN)
@blp.response(200, PauseOut, example={"priority": 7, **queues.pause_of(7, {})})
def resume_queue(priority: int) -> Any:
    """Resume a priority

    Workers go on with its tasks at once.
    """
    pauses.resume(priority, now=clock())
    return {"priority": priority, **queues.pause_of(priority, {})}


@blp.route("/<priority:priority>/purge/", methods=["POST"])
@needs(Scope.ADMIN)
@blp.response(200, PurgedOut)
def purge_queue(priority: int) -> Any:
    """Cancel what waits at a priority

    The oldest 1,000 tasks of this priority that are due and wait become CANCELLED. Tasks that run, or whose time has
    not come, stay as they are.
    """
    return pauses.purge(priority, now=clock())
