"""The time of a model, and what belongs to one process of it: it has several in one interpreter.

Time passes only when the model says so, for services, workers and the scheduler alike.
"""

import importlib
import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask

from scheduler_app.broker import priority_broker
from scheduler_app.database import connections
from scheduler_app.worker import exchange, execution, pulse, running, work_queue
from tests.support.stage import current

BEGINNING = datetime(2040, 6, 1, 12, tzinfo=UTC)
LONG = 600  # seconds
TICK = 0.001  # seconds that each look at the monotonic clock takes, so that what waits for a moment goes on


class Clock:
    """In place of DatabaseClock, and of the module `time` where one process waits for itself."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.seconds = 0.0
        self._looks = itertools.count()

    def now(self) -> datetime:
        return BEGINNING + timedelta(seconds=self.seconds)

    def offset(self) -> float:
        return 0.0

    def monotonic(self) -> float:
        return 1000 + self.seconds + TICK * next(self._looks)

    def install(self, app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(app.extensions, "backbeat.clock", self)
        for module in (priority_broker, exchange, execution, pulse, running, work_queue):
            monkeypatch.setattr(module, "time", self)
        # Those who wait in the database wait for the model, which takes long on a busy machine.
        monkeypatch.setattr(importlib.import_module("scheduler_app.database.waits"), "PATIENCE", LONG)
        for name in ("IDLE_TIMEOUT", "STATEMENT_TIMEOUT"):
            monkeypatch.setattr(connections, name, LONG)


class OfProcess:
    """Stands for the global dictionary of running tasks: it is that of the process whose thread looks at it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mine(), name)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._mine()[key] = value

    def __delitem__(self, key: Any) -> None:
        del self._mine()[key]

    def _mine(self) -> Any:
        actor = current()
        assert actor
        return actor.process.running


def keep_processes_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_running", OfProcess())
