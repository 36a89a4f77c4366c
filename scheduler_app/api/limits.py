"""/limits/"""

from typing import Any

from scheduler_app.access import needs
from scheduler_app.access_models import Scope
from scheduler_app.api import answer_examples as answers
from scheduler_app.api.body import Blueprint
from scheduler_app.database import clock
from scheduler_app.schemas.limits import LimitOut, LimitRequest
from scheduler_app.services import limits

blp = Blueprint("limits", __name__, url_prefix="/limits", description="How many tasks of an operation run at once.")

CHANGE = {"operation": "http_request", "per": "group", "max_running": 4, "rate": {"count": 10, "seconds": 1}}


@blp.route("/", methods=["GET"])
@needs(Scope.READ)
@blp.response(200, LimitOut(many=True), example=[answers.LIMIT])
def list_limits() -> Any:
    """List limits

    Those of the code and those set at runtime, with what they use and who holds most of them.
    """
    return limits.find()


@blp.route("/<limit_name:name>/", methods=["GET"])
@needs(Scope.READ)
@blp.response(200, LimitOut, example=answers.LIMIT)
def get_limit(name: str) -> Any:
    """Get a limit

    With what it uses, and who holds most of it.
    """
    return limits.get(name)


@blp.route("/<limit_name:name>/", methods=["PUT"])
@needs(Scope.ADMIN)
@blp.arguments(LimitRequest, example=CHANGE)
@blp.response(200, LimitOut, example=answers.LIMIT)
@blp.alt_response(409, description="It would limit nothing, it is given in the code otherwise, or there are too many.")
def put_limit(body: dict[str, Any], name: str) -> Any:
    """Make or change a limit

    It counts in every worker within a second, for tasks that wait already, too. Those that run count as running. What
    is over the limit waits; it spends no attempt. A limit of the code keeps its operation and its `per`.
    """
    return limits.put(name, body, now=clock())


@blp.route("/<limit_name:name>/", methods=["DELETE"])
@needs(Scope.ADMIN)
@blp.response(204)
def reset_limit(name: str) -> None:
    """Take back what was set at runtime

    What the code gives counts again; a limit that is not in the code is gone.
    """
    limits.reset(name, now=clock())
