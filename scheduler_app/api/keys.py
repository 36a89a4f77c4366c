"""/keys/ and /audit/"""

from datetime import timedelta
from typing import Any

from scheduler_app.access import needs
from scheduler_app.access_models import ApiKey, Scope
from scheduler_app.api import answer_examples as answers
from scheduler_app.api.body import Blueprint
from scheduler_app.api.pages import next_page
from scheduler_app.database import clock
from scheduler_app.schemas.fields import PageQuery
from scheduler_app.schemas.keys import AuditOut, KeyOut, KeyRequest, NewKeyOut, RotateRequest
from scheduler_app.services import audit, keys

blp = Blueprint("keys", __name__, description="Who may call, and who changed what.")


@blp.route("/keys/", methods=["GET"])
@needs(Scope.ADMIN)
@blp.response(200, KeyOut(many=True), example=[answers.KEY])
def list_keys() -> Any:
    """List keys

    With those that have expired or are revoked.
    """
    return keys.find()


@blp.route("/keys/", methods=["POST"])
@needs(Scope.ADMIN)
@blp.arguments(KeyRequest, example={"name": "shop", "scope": "write", "operations": ["http_request"], "rate": "100/s"})
@blp.response(201, NewKeyOut, example=answers.NEW_KEY)
def create_key(body: dict[str, Any]) -> Any:
    """Make a key

    `key` is in this answer only. From the first key on, every call but probes and documentation needs one.
    """
    return _shown(*keys.create(now=clock(), **body))


@blp.route("/keys/<key_name:name>/rotate/", methods=["POST"])
@needs(Scope.ADMIN)
@blp.arguments(RotateRequest, required=False, example={"overlap_hours": 24})
@blp.response(200, NewKeyOut, example=answers.NEW_KEY)
@blp.alt_response(409, description="It is revoked.")
def rotate_key(body: dict[str, Any], name: str) -> Any:
    """Give a key a new secret

    The one before works for a while, too: with `overlap_hours: 0` no longer than a second.
    """
    return _shown(*keys.rotate(name, overlap=timedelta(hours=body["overlap_hours"]), now=clock()))


@blp.route("/keys/<key_name:name>/", methods=["DELETE"])
@needs(Scope.ADMIN)
@blp.response(204)
def revoke_key(name: str) -> None:
    """Revoke a key

    It is refused from now on, in every process within a second. It stays in the list, and its name is not free again.
    """
    keys.revoke(name, now=clock())


@blp.route("/audit/", methods=["GET"])
@needs(Scope.ADMIN)
@blp.arguments(PageQuery, location="query")
@blp.response(
    200,
    AuditOut(many=True),
    example=[answers.AUDIT_ENTRY],
    headers={"Link": {"description": 'The next page, `rel="next"`.', "schema": {"type": "string"}}},
)
def list_audit_entries(query: dict[str, Any]) -> tuple[Any, dict[str, str]]:
    """List who changed what, newest first

    Every change but posting tasks: a task names its poster itself. Follow `Link` for all of them.
    """
    entries, following = audit.find(**query)
    return list(entries), next_page(following)


def _shown(key: ApiKey, text: str) -> dict[str, Any]:
    columns: dict[str, Any] = {column: getattr(key, column) for column in KeyOut().fields}
    return columns | {"key": text}
