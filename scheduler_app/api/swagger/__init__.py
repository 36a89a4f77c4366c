"""/swagger/: Swagger UI, with nothing loaded from elsewhere."""

from importlib.resources import files
from pathlib import Path

from flask import Blueprint, Response, send_from_directory

from scheduler_app.access import open_to_all

ASSETS = str(files("flask_swagger_ui") / "dist")
OURS = Path(__file__).parent
OWN_ASSETS = ("start.js", "style.css")

# The page may load, and the tried calls may reach, this server only. Swagger UI sets styles from its script.
POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"

blp = Blueprint("swagger", __name__)


@blp.get("/swagger/", strict_slashes=True)  # its links are relative: without the slash they would lead elsewhere
@open_to_all
def page() -> Response:
    return send_from_directory(OURS, "page.html")


@blp.get("/swagger/<path:name>")
@open_to_all
def asset(name: str) -> Response:
    if name in OWN_ASSETS:
        return send_from_directory(OURS, name)
    return send_from_directory(ASSETS, name, max_age=86_400)


@blp.after_request
def restrict(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = POLICY
    return response
