"""The application as every process needs it; web.py adds what answers requests."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

from flask import Flask
from werkzeug.routing import Rule

from scheduler_app import callback, database, operations, outgoing, tracing
from scheduler_app.broker import PriorityBroker, WorkerBroker
from scheduler_app.config import Settings
from scheduler_app.extensions import db
from scheduler_app.schemas.tasks import TaskOut
from scheduler_app.services import limits, pauses
from scheduler_app.services.backlog import Backlog
from scheduler_app.services.ends import Ends


class LazyRule(Rule):
    """Werkzeug compiles two functions for each rule, which make its URLs. Most are never called."""

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        compiled = cache(partial(super()._compile_builder, append_unknown))
        return lambda rule, /, **values: compiled()(rule, **values)


class Application(Flask):
    url_rule_class = LazyRule

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """No view is async. Flask looks at it a dozen times in each request."""
        return func


def create_app(settings: Settings, *, worker: bool = False) -> Flask:
    app = Application(__package__, static_folder=None)
    app.extensions["backbeat.settings"] = settings
    broker = WorkerBroker if worker else PriorityBroker
    app.extensions["backbeat.broker"] = broker(
        settings.redis_url,
        weights=settings.priority_weights,
        ask_paused=partial(pauses.ask, app),
        ask_limits=partial(limits.ask, app),
    )
    app.config.update(
        SQLALCHEMY_DATABASE_URI=settings.database_url,
        SQLALCHEMY_BINDS={database.DIRECT: database.direct_options(settings)},
        SQLALCHEMY_ENGINE_OPTIONS=database.engine_options(settings),
    )
    db.init_app(app)
    with app.app_context():
        for engine in db.engines.values():
            database.prepare(engine, worker=worker)
        app.extensions["backbeat.clock"] = database.DatabaseClock(db.engines[database.DIRECT])
    app.extensions["backbeat.backlog"] = Backlog(app, most=settings.max_waiting)
    app.extensions["backbeat.ends"] = Ends(app)
    app.extensions["backbeat.shown"] = TaskOut().dump  # what a delivery says, see services/callbacks.py
    outgoing.configure(settings, check=worker, trace=tracing.current)
    operations.load((callback.__name__, *settings.operations))
    return app
