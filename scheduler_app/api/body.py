"""Reads the body and the query of a request, and refuses JSON that the rest of the program could not handle."""

import json
from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn

import flask_smorest
from flask import Request, request
from marshmallow import Schema
from webargs import core
from webargs.flaskparser import FlaskParser

from scheduler_app.errors import BadRequest, Invalid, UnsupportedMediaType
from scheduler_app.schemas import json_values
from scheduler_app.schemas.base import NoQuery

View = Callable[..., Any]


class BodyParser(FlaskParser):
    """webargs' parser, stricter about bodies."""

    DEFAULT_UNKNOWN_BY_LOCATION = FlaskParser.DEFAULT_UNKNOWN_BY_LOCATION | {"query": "raise"}

    def use_args(self, argmap: Any, *args: Any, **kwargs: Any) -> Callable[[View], View]:
        """The schema is made once, not for each request."""
        schema = argmap() if isinstance(argmap, type) else argmap
        decorator: Callable[[View], View] = super().use_args(schema, *args, **kwargs)
        return decorator

    def _raw_load_json(self, req: Request) -> Any:
        return read_json(req)

    def load_json(self, req: Request, schema: Schema) -> Any:
        body = super().load_json(req, schema)
        if body is core.missing and not getattr(schema, "is_optional", False):
            raise Invalid("The request is not valid.", {"json": {"_schema": ["Needs a body: a JSON object."]}})
        return body


class Blueprint(flask_smorest.Blueprint):
    ARGUMENTS_PARSER = BodyParser()

    def route(self, rule: str, **options: Any) -> Callable[[View], View]:
        """Like Flask's. A call that takes no query parameters refuses a request that has some."""
        register = super().route(rule, **options)
        return lambda view: register(view if _schemas(view, "query") else _without_query(view))


def _schemas(view: View, place: str) -> list[type[Schema]]:
    parameters = getattr(view, "_apidoc", {}).get("arguments", {}).get("parameters", [])
    return [parameter["schema"] for parameter in parameters if parameter["in"] == place]


def _without_query(view: View) -> View:
    none = NoQuery([name for schema in _schemas(view, "json") for name in schema().load_fields])

    @wraps(view)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if request.query_string:
            Blueprint.ARGUMENTS_PARSER.parse(none, request, location="query")
        return view(*args, **kwargs)

    return wrapper


def read_json(request: Request) -> Any:
    """The body's JSON, or webargs' `missing` without a body. Raises errors that are answered with 400, 413 or 415."""
    body = request.get_data(cache=True)
    if not body:
        return core.missing
    if not request.is_json:
        raise UnsupportedMediaType("The body must be JSON: send Content-Type: application/json.")
    try:
        value = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"The body cannot be read as JSON: {error}.") from None
    try:
        json_values.check(value)
    except ValueError as error:
        raise BadRequest(f"The body {error}.") from None
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
