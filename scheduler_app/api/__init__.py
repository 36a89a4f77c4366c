"""The HTTP API: its specification and its blueprints."""

from threading import RLock
from typing import Any

import flask_smorest
from apispec import BasePlugin
from flask import Flask
from flask_smorest import Blueprint
from werkzeug.routing import BaseConverter, IntegerConverter

from scheduler_app import errors
from scheduler_app.access import open_to_all
from scheduler_app.api import (
    attempt_logs,
    attention,
    bulk,
    failures,
    health,
    keys,
    limits,
    metrics,
    operations,
    queues,
    stacks,
    swagger,
    task_schedules,
    tasks,
    workers,
)
from scheduler_app.api.problems import ErrorAnswers, register_responses
from scheduler_app.api.task_examples import TaskExamples
from scheduler_app.config import Settings
from scheduler_app.limits import NAME as LIMIT_NAME
from scheduler_app.schemas.keys import KEY_NAME

RESOURCES = (
    tasks,
    attempt_logs,
    stacks,
    bulk,
    failures,
    task_schedules,
    operations,
    workers,
    queues,
    limits,
    attention,
    health,
    metrics,
    keys,
)
MAX_BODY = 4 * 1024 * 1024  # bytes

DESCRIPTION = """Runs prioritised tasks and recurring schedules.

Times are ISO 8601 with an offset and come back in UTC. Priority 0 is the most urgent, 9 the least. Delivery is at least
once: after a crash an operation may run a second time, so write it so that a second run does no harm.
"""
INFO = {
    "description": DESCRIPTION,
    "license": {"name": "MIT", "identifier": "MIT"},
    "contact": {"name": "The Backbeat authors"},
}
SERVER = {"url": "/", "description": "The server that this specification comes from."}
SECURITY: dict[str, Any] = {
    "components": {"securitySchemes": {"apiKey": {"type": "http", "scheme": "bearer"}}},
    "security": [{"apiKey": []}, {}],  # none is needed on loopback while there is none
}


class Id(IntegerConverter):
    """At most 18 digits, which every database can hold. A longer number is answered with 404."""

    regex = r"\d{1,18}"


class Priority(Id):
    """The service says that there is no other than 0 to 9."""


class KeyName(BaseConverter):
    regex = KEY_NAME


class LimitName(BaseConverter):
    regex = LIMIT_NAME


class Together(BasePlugin):
    """Says in the specification what a request's checks ask of its fields together."""

    def schema_helper(self, name: str, definition: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        together: dict[str, Any] = getattr(kwargs.get("schema"), "together", {})
        return together


class Api(flask_smorest.Api):
    DEFAULT_ERROR_RESPONSE_NAME = None  # each operation names the errors that it can give

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._undescribed: list[Blueprint] = []
        self._describing = RLock()
        super().__init__(*args, **kwargs)

    def register_blueprint(self, blueprint: Blueprint) -> None:
        """As flask-smorest's own, but it does not describe the views yet, which takes longer than all else."""
        self._app.extensions["flask-smorest"]["blp_name_to_api"][blueprint.name] = self
        self._app.register_blueprint(blueprint)
        self._undescribed.append(blueprint)

    @property
    def spec(self) -> Any:
        """With all views: they are described when somebody first asks for the specification."""
        with self._describing:
            blueprints, self._undescribed = self._undescribed, []
            for blueprint in blueprints:
                blueprint.register_views_in_doc(self, self._app, self._spec, name=blueprint.name, parameters=None)
                self._spec.tag({"name": blueprint.name, "description": blueprint.description})
            return self._spec

    @spec.setter
    def spec(self, spec: Any) -> None:
        self._spec = spec

    @open_to_all
    def _openapi_json(self) -> Any:
        return super()._openapi_json()

    def _register_error_handlers(self) -> None:
        # flask-smorest's own handler drops headers such as Allow.
        errors.register_error_handlers(self._app)

    def _register_responses(self) -> None:
        # flask-smorest's own responses only say the status's name.
        register_responses(self.spec)

    def _register_pagination_header(self) -> None:
        """A Link header leads to the next page. flask-smorest's own header would add a schema that nothing uses."""


def register_api(app: Flask) -> None:
    app.url_map.strict_slashes = False
    settings: Settings = app.extensions["backbeat.settings"]
    app.config.update(
        MAX_CONTENT_LENGTH=MAX_BODY,
        API_TITLE="Backbeat",
        API_VERSION="1",
        OPENAPI_VERSION="3.1.0",
        OPENAPI_URL_PREFIX="/",
        OPENAPI_JSON_PATH="openapi.json",
        API_SPEC_OPTIONS={"info": INFO, "servers": [SERVER]} | SECURITY,
    )
    app.url_map.converters |= {"id": Id, "priority": Priority, "key_name": KeyName, "limit_name": LimitName}
    api = Api(app, spec_kwargs={"extra_plugins": [Together(), ErrorAnswers(app), TaskExamples(port=settings.port)]})
    api.register_converter(Id, lambda converter: {"type": "integer", "minimum": 1})
    api.register_converter(Priority, lambda converter: {"type": "integer", "minimum": 0, "maximum": 9})
    api.register_converter(KeyName, lambda converter: {"type": "string", "pattern": f"^{KEY_NAME}$"})
    api.register_converter(LimitName, lambda converter: {"type": "string", "pattern": f"^{LIMIT_NAME}$"})
    for resource in RESOURCES:
        api.register_blueprint(resource.blp)
    app.register_blueprint(swagger.blp)
