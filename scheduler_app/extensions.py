"""The extension for the database, unbound, and what create_app has made for the application that is current."""

from typing import TYPE_CHECKING, cast

from flask import current_app
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import MetaData
from sqlalchemy.orm import DeclarativeBase
from werkzeug.local import LocalProxy

if TYPE_CHECKING:
    from scheduler_app.broker import PriorityBroker
    from scheduler_app.config import Settings


class Base(DeclarativeBase):
    """Gives constraints names, so that a migration can change them on every database."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


db = SQLAlchemy(metadata=Base.metadata)
broker = cast("PriorityBroker", LocalProxy(lambda: current_app.extensions["backbeat.broker"]))
settings = cast("Settings", LocalProxy(lambda: current_app.extensions["backbeat.settings"]))
