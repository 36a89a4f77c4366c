"""/workers/ and /queues/"""

from typing import Any

from scheduler_app.api.body import Blueprint
from scheduler_app.database import clock
from scheduler_app.schemas.workers import QueueOut, WorkerOut
from scheduler_app.services import queues, workers

blp = Blueprint("workers", __name__, description="Who works, and what waits.")


@blp.route("/workers/", methods=["GET"])
@blp.response(200, WorkerOut(many=True))
def find_workers() -> Any:
    """List the workers that live, with what they run"""
    return workers.find()


@blp.route("/queues/", methods=["GET"])
@blp.response(200, QueueOut(many=True))
def find_queues() -> Any:
    """List the ten priorities with what waits, runs and has failed"""
    return queues.find(now=clock())
