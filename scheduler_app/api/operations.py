"""/operations/"""

from typing import Any

from scheduler_app.access import needs
from scheduler_app.access_models import Scope
from scheduler_app.api.body import Blueprint
from scheduler_app.schemas.operations import OperationOut
from scheduler_app.services import workers

blp = Blueprint("operations", __name__, url_prefix="/operations", description="What a task can do.")


@blp.route("/", methods=["GET"])
@needs(Scope.READ)
@blp.response(200, OperationOut(many=True))
def list_operations() -> Any:
    """List operations

    Only those that the key reaches. Each entry says what the operation does, how it is retried, gives the JSON
    Schema of its parameters, and says how many workers know it and which secrets it can use.
    """
    return workers.known_operations()
