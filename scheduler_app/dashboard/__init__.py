"""The dashboard: pages for people, rendered here, that call the same services as the API.

Every form is a POST and a redirect. All works without a script but liveness and previews.
A page is one file here with its views, one template, and one line in `frame.NAVIGATION`.
"""

from flask import Flask, redirect, url_for
from werkzeug.wrappers import Response

from scheduler_app.access import open_to_all
from scheduler_app.dashboard import (
    errors,
    failures,
    keys,
    limits,
    log,
    many,
    operations,
    overview,
    priorities,
    schedule_form,
    schedules,
    sign_in,
    static,
    task,
    tasks,
    texts,
    values,
    workers,
)
from scheduler_app.dashboard.frame import blp

__all__ = [
    "errors",
    "failures",
    "keys",
    "limits",
    "log",
    "many",
    "operations",
    "overview",
    "priorities",
    "register_dashboard",
    "schedule_form",
    "schedules",
    "sign_in",
    "static",
    "task",
    "tasks",
    "texts",
    "values",
    "workers",
]


@open_to_all
def root() -> Response:
    return redirect(url_for("dashboard.overview"))


def register_dashboard(app: Flask) -> None:
    """To be called when the API has set up its converters, and before `register_access`."""
    app.add_url_rule("/", "root", root)
    app.register_blueprint(blp)
