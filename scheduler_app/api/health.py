"""/livez and /readyz"""

from typing import Any

from flask.typing import ResponseReturnValue
from marshmallow import fields

from scheduler_app.access import open_to_all
from scheduler_app.api.body import Blueprint
from scheduler_app.schemas.base import AnswerSchema
from scheduler_app.services import health

blp = Blueprint("health", __name__, description="For probes; they need no key.")


class Liveness(AnswerSchema):
    status = fields.String(metadata={"example": "ok"})


class Readiness(AnswerSchema):
    status = fields.String(
        metadata={
            "enum": ["ok", "degraded", "unavailable"],
            "description": "Degraded: requests are answered, but no scheduler scans, no worker runs, a clock is off or"
            " a priority is paused.",
            "example": "ok",
        }
    )
    checks = fields.Dict(
        metadata={
            "description": "One entry per part: `ok`, or what is wrong with it.",
            "example": dict.fromkeys(
                ("database", "broker", "migrations", "scheduler", "workers", "clocks", "priorities"), "ok"
            ),
        }
    )


@blp.route("/livez", methods=["GET"])
@open_to_all
@blp.response(200, Liveness)
def check_liveness() -> Any:
    """Is this process alive?

    It answers even when the database or Redis does not work.
    """
    return {"status": "ok"}


@blp.route("/readyz", methods=["GET"])
@open_to_all
@blp.response(200, Readiness)
@blp.alt_response(503, schema=Readiness, description="A part that is needed does not work.")
def check_readiness() -> ResponseReturnValue:
    """Can this process do its work?

    Checks each part that it needs.
    """
    checks = health.checks()
    wrong = {name for name, outcome in checks.items() if outcome != "ok"}
    # A silent scheduler is no reason to send requests elsewhere: a task accepted now runs once a scheduler is back.
    # Nor are missing workers or a paused priority, for the same reason, nor a wrong clock: no decision depends on it.
    if wrong - {"scheduler", "workers", "clocks", "priorities"}:
        return {"status": "unavailable", "checks": checks}, 503
    return {"status": "degraded" if wrong else "ok", "checks": checks}
