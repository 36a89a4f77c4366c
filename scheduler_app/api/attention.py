"""/attention/"""

from typing import Any

from scheduler_app.access import needs
from scheduler_app.access_models import Scope
from scheduler_app.api import answer_examples as answers
from scheduler_app.api.body import Blueprint
from scheduler_app.database import clock
from scheduler_app.schemas.attention import AttentionOut
from scheduler_app.services import attention

blp = Blueprint("attention", __name__, description="Does it keep up, and what is wrong?")


@blp.route("/attention/", methods=["GET"])
@needs(Scope.READ)
@blp.response(200, AttentionOut, example=answers.ATTENTION)
def read_attention() -> Any:
    """Ask whether it keeps up

    `verdict` says whether due tasks run in time, and if not, how long it takes. `needs` lists what needs attention:
    parts that do not work, failures, late schedules, pauses. The answer is at most 2 s old.
    """
    return attention.look(now=clock())
