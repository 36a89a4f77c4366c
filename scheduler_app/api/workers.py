"""/workers/ and /queues/"""

from typing import Any

from scheduler_app.access import needs
from scheduler_app.api import answer_examples as answers
from scheduler_app.api.body import Blueprint
from scheduler_app.database import clock
from scheduler_app.models import Scope
from scheduler_app.schemas.workers import QueueOut, WorkerOut
from scheduler_app.services import queues, workers

blp = Blueprint("workers", __name__, description="The workers, and the queues that they serve.")


@blp.route("/workers/", methods=["GET"])
@needs(Scope.READ)
@blp.response(200, WorkerOut(many=True), example=[answers.WORKER])
def list_workers() -> Any:
    """List workers

    All worker processes with a fresh heartbeat, each with the tasks that it is running.
    """
    return workers.find()


@blp.route("/queues/", methods=["GET"])
@needs(Scope.READ)
@blp.response(200, QueueOut(many=True))
def list_queues() -> Any:
    """List queues

    One per priority, the most urgent first. Each says how many tasks wait, run and have failed.
    """
    return queues.find(now=clock())
