"""The application of a web process, and of the `flask` commands. Apart, so that no other process imports all of it."""

from flask import Flask
from flask_migrate import Migrate

from scheduler_app.access import register_access
from scheduler_app.api import register_api
from scheduler_app.application import create_app
from scheduler_app.command_line import keys_cli, schedules_cli
from scheduler_app.config import Settings
from scheduler_app.dashboard import register_dashboard
from scheduler_app.extensions import db


def create_web_app(settings: Settings) -> Flask:
    app = create_app(settings)
    app.cli.add_command(keys_cli)
    app.cli.add_command(schedules_cli)
    Migrate(app, db, directory="migrations", render_as_batch=True)
    register_api(app)
    register_dashboard(app)
    register_access(app)
    return app
