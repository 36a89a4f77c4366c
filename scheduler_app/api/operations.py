"""/operations/"""

from typing import Any

from scheduler_app import operations
from scheduler_app.api.body import Blueprint
from scheduler_app.schemas.operations import OperationOut

blp = Blueprint("operations", __name__, url_prefix="/operations", description="What a task can do.")


@blp.route("/", methods=["GET"])
@blp.response(200, OperationOut(many=True))
def find() -> Any:
    """List operations with the JSON Schema of their parameters"""
    return operations.registered()
