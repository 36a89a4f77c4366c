"""The error answers in the specification. All have one shape; each operation lists the errors that it can give."""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from apispec import APISpec, BasePlugin
from flask import Flask
from marshmallow import fields
from werkzeug.routing import Rule

from scheduler_app.access import scope_of
from scheduler_app.schemas.base import AnswerSchema

MEANINGS = {
    HTTPStatus.BAD_REQUEST: "The body cannot be read as JSON.",
    HTTPStatus.UNAUTHORIZED: "The key is missing or not valid.",
    HTTPStatus.FORBIDDEN: "The key does not allow that; or there is no key, and the request is not from this machine.",
    HTTPStatus.NOT_FOUND: "Nothing has this id.",
    HTTPStatus.CONFLICT: "Its status does not allow that.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is too large; the message names the limit.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "The body is not sent as application/json.",
    HTTPStatus.UNPROCESSABLE_ENTITY: "The request is not valid; `errors` names what is wrong.",
    HTTPStatus.TOO_MANY_REQUESTS: "Too many requests with this key, or too many wrong keys from this address.",
    HTTPStatus.SERVICE_UNAVAILABLE: "The database or Redis does not work now; the same request can succeed later.",
}
HEADERS = {
    status: {"headers": {name: {"description": meaning, "schema": {"type": "string"}}}}
    for status, name, meaning in (
        (HTTPStatus.UNAUTHORIZED, "WWW-Authenticate", "How to send the key."),
        (HTTPStatus.TOO_MANY_REQUESTS, "Retry-After", "Seconds to wait."),
        (HTTPStatus.SERVICE_UNAVAILABLE, "Retry-After", "Seconds to wait."),
    )
}
OF_BODIES = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
)
ERRORS = {"json": {"priority": ["Must be a whole number from 0 to 9."]}}
OF_ACCESS = (
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.SERVICE_UNAVAILABLE,
)


class Problem(AnswerSchema):
    """Every error has this shape."""

    code = fields.Integer(metadata={"description": "The HTTP status.", "example": 422})
    status = fields.String(metadata={"example": "Unprocessable Entity"})
    message = fields.String(metadata={"description": "What is wrong.", "example": "The request is not valid."})
    errors = fields.Dict(
        metadata={
            "optional": True,
            "description": "All faults of the request, first by place (`json`, `query`, `headers`), then by field.",
            "example": ERRORS,
        }
    )


class ErrorAnswers(BasePlugin):
    """Adds the errors that follow from an operation's inputs. A view only names the errors that are its own."""

    def __init__(self, app: Flask) -> None:
        self.app = app

    def path_helper(
        self,
        path: str | None = None,
        operations: dict[str, Any] | None = None,
        parameters: list[dict[str, Any]] | None = None,
        **_: Any,
    ) -> None:
        for parameter in parameters or ():
            noun = parameter["name"].removesuffix("_id").replace("_", " ")
            parameter.setdefault("description", f"Which {noun}.")

    def operation_helper(
        self, path: str | None = None, operations: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        rule: Rule = kwargs["rule"]
        for operation in (operations or {}).values():
            responses = {HTTPStatus(int(status)): response for status, response in operation["responses"].items()}
            common = {status: status.name for status in self._errors(operation, rule)}
            documented = common | {status: _in_shape(status, response) for status, response in responses.items()}
            operation["responses"] = dict(sorted(documented.items()))
            operation["operationId"] = rule.endpoint.partition(".")[2]  # the name of the view
            if scope := scope_of(self.app, rule.endpoint):
                operation["description"] += f"\n\nFor keys of scope `{scope.value}`."
            else:
                operation["security"] = []

    def _errors(self, operation: dict[str, Any], rule: Rule) -> Iterator[HTTPStatus]:
        yield HTTPStatus.UNPROCESSABLE_ENTITY  # an unknown query parameter, at least
        if "requestBody" in operation:
            yield from OF_BODIES
        if rule.arguments:
            yield HTTPStatus.NOT_FOUND
        if scope_of(self.app, rule.endpoint):
            yield from OF_ACCESS


def register_responses(spec: APISpec) -> None:
    """Registers the responses that operations refer to by the name of their status."""
    spec.components.schema("Problem", schema=Problem)
    for status, meaning in MEANINGS.items():
        response = _in_shape(status, {"description": meaning, **HEADERS.get(status, {})})
        spec.components.response(status.name, response, lazy=True)


def _in_shape(status: HTTPStatus, response: Any) -> Any:
    """Gives an error that has only a description the common shape. A name refers to a response that has it already."""
    if status < HTTPStatus.BAD_REQUEST or isinstance(response, str):
        return response
    example = {"code": status.value, "status": status.phrase, "message": response["description"]}
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        example |= {"message": "The request is not valid.", "errors": ERRORS}
    return {"content": {"application/json": {"schema": "Problem", "example": example}}} | response
