"""/workers/"""

from typing import Any

from scheduler_app.access import needs
from scheduler_app.access_models import Scope
from scheduler_app.api import answer_examples as answers
from scheduler_app.api.body import Blueprint
from scheduler_app.schemas.workers import WorkerOut
from scheduler_app.services import workers

blp = Blueprint("workers", __name__, description="The processes that run tasks.")


@blp.route("/workers/", methods=["GET"])
@needs(Scope.READ)
@blp.response(200, WorkerOut(many=True), example=[answers.WORKER])
def list_workers() -> Any:
    """List workers

    All worker processes with a fresh heartbeat, each with the tasks that it is running.
    """
    return workers.find()
