"""/swagger/: Swagger UI, with nothing loaded from elsewhere."""

from importlib.resources import files

from flask import Blueprint, Response, redirect, send_from_directory, url_for
from werkzeug.wrappers import Response as BaseResponse

ASSETS = str(files("flask_swagger_ui") / "dist")

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Backbeat API</title>
<link rel="stylesheet" href="swagger-ui.css">
<link rel="icon" href="favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="swagger-ui-bundle.js"></script>
<script src="start.js"></script>
</body>
</html>
"""

START = """SwaggerUIBundle({
  url: "../openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null, persistAuthorization: true
})
"""

# The page may load, and the tried calls may reach, this server only. Swagger UI sets styles from its script.
POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"

blp = Blueprint("swagger", __name__)


@blp.get("/")
def root() -> BaseResponse:
    return redirect(url_for("swagger.page"))


@blp.get("/swagger/", strict_slashes=True)  # its links are relative: without the slash they would lead elsewhere
def page() -> Response:
    return Response(PAGE, mimetype="text/html")


@blp.get("/swagger/start.js")
def start() -> Response:
    return Response(START, mimetype="text/javascript")


@blp.get("/swagger/<path:name>")
def asset(name: str) -> Response:
    return send_from_directory(ASSETS, name, max_age=86_400)


@blp.after_request
def restrict(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = POLICY
    return response
