"""/workers/ and /queues/"""

from typing import Any

from scheduler_app.api import answer_examples as answers
from scheduler_app.api.body import Blueprint
from scheduler_app.database import clock
from scheduler_app.schemas.workers import QueueOut, WorkerOut
from scheduler_app.services import queues, workers

blp = Blueprint("workers", __name__, description="Who works, and what waits.")


@blp.route("/workers/", methods=["GET"])
@blp.response(200, WorkerOut(many=True), example=[answers.WORKER])
def list_workers() -> Any:
    """List workers

    Each worker process whose heartbeat is fresh, with the tasks that it runs now.
    """
    return workers.find()


@blp.route("/queues/", methods=["GET"])
@blp.response(200, QueueOut(many=True))
def list_queues() -> Any:
    """List queues

    One for each priority, the most urgent first, with what waits, runs and has failed.
    """
    return queues.find(now=clock())
