"""The HTTP API: its specification, its blueprints and what holds for every request."""

from typing import Any

import flask_smorest
import marshmallow as ma
from flask import Flask
from werkzeug.routing import IntegerConverter

from scheduler_app import errors
from scheduler_app.api import health, operations, swagger, task_schedules, tasks
from scheduler_app.api.guard import register_guard

MAX_BODY = 4 * 1024 * 1024  # bytes

DESCRIPTION = """Runs prioritised tasks and recurring schedules.

Times are ISO 8601 with an offset and come back in UTC. Priority 0 is the most urgent, 9 the least. Delivery is at least
once: an operation may be run again after a crash, so it should bear that.
"""


class Problem(ma.Schema):
    """Every error has this shape."""

    code = ma.fields.Integer(metadata={"description": "The HTTP status.", "example": 422})
    status = ma.fields.String(metadata={"example": "Unprocessable Entity"})
    message = ma.fields.String(metadata={"description": "What is wrong.", "example": "The request is not valid."})
    errors = ma.fields.Dict(
        metadata={"description": "By place and field.", "example": {"json": {"priority": ["Not a valid integer."]}}}
    )


class Id(IntegerConverter):
    """As many digits as every database takes; a longer one is found nowhere."""

    regex = r"\d{1,18}"


class Api(flask_smorest.Api):
    ERROR_SCHEMA = Problem

    def _register_error_handlers(self) -> None:
        # flask-smorest's own handler drops headers such as Allow.
        errors.register_error_handlers(self._app)


def register_api(app: Flask) -> None:
    app.url_map.strict_slashes = False
    app.config.update(
        MAX_CONTENT_LENGTH=MAX_BODY,
        API_TITLE="Backbeat",
        API_VERSION="1",
        OPENAPI_VERSION="3.1.0",
        OPENAPI_URL_PREFIX="/",
        OPENAPI_JSON_PATH="openapi.json",
        API_SPEC_OPTIONS={"info": {"description": DESCRIPTION}} | _security(app),
    )
    app.url_map.converters["id"] = Id
    api = Api(app)
    api.register_converter(Id, lambda converter: {"type": "integer", "minimum": 1})
    for resource in (tasks, task_schedules, operations, health):
        api.register_blueprint(resource.blp)
    app.register_blueprint(swagger.blp)
    register_guard(app)


def _security(app: Flask) -> dict[str, Any]:
    if not app.extensions["backbeat.settings"].api_key:
        return {}
    scheme = {"type": "http", "scheme": "bearer"}
    return {"components": {"securitySchemes": {"apiKey": scheme}}, "security": [{"apiKey": []}]}
