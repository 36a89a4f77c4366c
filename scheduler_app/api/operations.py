"""/operations/"""

from typing import Any

from scheduler_app import operations
from scheduler_app.api.body import Blueprint
from scheduler_app.schemas.operations import OperationOut

blp = Blueprint("operations", __name__, url_prefix="/operations", description="What a task can do.")


@blp.route("/", methods=["GET"])
@blp.response(200, OperationOut(many=True))
def list_operations() -> Any:
    """List operations

    Each entry says what the operation does, how it is retried, and gives the JSON Schema of its parameters.
    """
    return operations.registered()
