"""Web entry point: `gunicorn wsgi:app`, and `flask --app wsgi db upgrade`."""

import sys

from scheduler_app import create_app, logs
from scheduler_app.config import Settings, SettingsError

APP_LOAD_ERROR = 4  # when a worker exits with this code, gunicorn ends; after any other it would start workers for ever

try:
    settings = Settings.load()
    logs.configure(settings.log_level)
    app = create_app(settings)
except SettingsError as error:
    print(error, file=sys.stderr)
    sys.exit(APP_LOAD_ERROR)
