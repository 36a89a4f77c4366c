"""Web entry point: `gunicorn wsgi:app`, and `flask --app wsgi db upgrade`."""

from scheduler_app import create_app
from scheduler_app.config import Settings

app = create_app(Settings.load())
