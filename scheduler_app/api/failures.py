"""/failures/"""

from typing import Any

from scheduler_app.access import needs
from scheduler_app.access_models import Scope
from scheduler_app.api import answer_examples as answers
from scheduler_app.api.body import Blueprint
from scheduler_app.schemas.failures import CauseOut
from scheduler_app.services import causes

blp = Blueprint("failures", __name__, description="What broke, and since when.")


@blp.route("/failures/", methods=["GET"])
@needs(Scope.READ)
@blp.response(200, CauseOut(many=True), example=[answers.CAUSE])
def list_causes() -> Any:
    """List what made tasks fail

    The latest 1,000 tasks in ERROR, grouped by cause; the cause of the latest failure comes first. To run the tasks of
    one cause again, give its `cause` to `POST /tasks/retry/`.
    """
    return causes.latest()
