"""Scheduler entry point: calls the services that fire schedules, send due tasks and clean up, on an interval."""

import logging
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from queue import SimpleQueue

from apscheduler.events import EVENT_SCHEDULER_STARTED
from apscheduler.schedulers.base import BaseScheduler
from apscheduler.schedulers.blocking import BlockingScheduler
from apscheduler.triggers.base import BaseTrigger
from flask import Flask
from redis import RedisError
from sqlalchemy.exc import SQLAlchemyError

from scheduler_app import database, logs, tracing
from scheduler_app.application import create_app
from scheduler_app.config import Settings
from scheduler_app.database import failures
from scheduler_app.extensions import broker
from scheduler_app.services import (
    alerts,
    depths,
    dispatch,
    expiry,
    firing,
    history,
    limits,
    pauses,
    retention,
    schedulers,
)
from scheduler_app.services.workers import Reaper

log = logging.getLogger("scheduler")

Duty = Callable[..., int]  # takes `now`, does a part of the due work and returns how much; called until it returns 0


def main() -> None:
    settings = Settings.load()
    logs.configure(settings.log_level, settings.log_format, process="scheduler")
    app = create_app(settings)
    tracing.configure(settings, process="scheduler")
    alerts.check(settings)
    scheduler = BlockingScheduler(timezone=UTC)
    all_duties = duties(settings.scan_interval)
    for duty, interval in all_duties:
        scheduler.add_job(
            perform,
            Every(interval),
            args=(app, duty),
            next_run_time=datetime.now(UTC),
            coalesce=True,
            misfire_grace_time=None,
            max_instances=1,
        )
    asked = SimpleQueue[int]()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: asked.put(number))
    stopping = threading.Thread(target=shut_down, args=(scheduler, asked), daemon=True)
    scheduler.add_listener(lambda _: stopping.start(), EVENT_SCHEDULER_STARTED)
    ClockWatch(scheduler, interval=min(interval for _, interval in all_duties) / 2).start()
    logs.announce("scheduler ready", logger=log.name)
    scheduler.start()
    stopping.join()
    with app.app_context(), suppress(SQLAlchemyError):
        schedulers.leave()
    tracing.flush()


def shut_down(scheduler: BaseScheduler, asked: SimpleQueue[int]) -> None:
    """Once it is asked to; waits for the duties that are under way.

    The handler of a signal must not wait for them. It runs in the scheduler's own thread, perhaps between two lines
    where that holds a lock which they need to end.
    """
    asked.get()
    scheduler.shutdown()


def fire(now: datetime) -> int:
    """Fires a batch of the due schedules. Returns how many there were."""
    began = time.perf_counter()
    lags = firing.fire_due(now=now)
    seconds = time.perf_counter() - began
    schedulers.record_scan(now=now, seconds=seconds, lags=lags, clock_offset=database.clock_offset())
    return len(lags)


def duties(scan_interval: float) -> list[tuple[Duty, float]]:
    """The duties of a scheduler process, each with the seconds between two calls."""

    def maintain(now: datetime) -> int:
        broker.maintain()
        return 0

    def prune(now: datetime) -> int:
        retention.prune(now=now)
        return 0  # the rest at the next scan, so that nobody waits for it

    def recheck(now: datetime) -> int:
        dispatch.resync(now=now, thorough=True)
        return 0

    scans: list[Duty] = [fire, expiry.expire, dispatch.relay, dispatch.resync, prune]
    others: list[tuple[Duty, float]] = [
        (Reaper().reap, 1.0),
        (pauses.renew, 1.0),
        (limits.renew, 1.0),
        (maintain, 2.0),
        (history.roll_up, 10.0),
        (depths.sample, 10.0),
        (recheck, 600.0),
        (alerts.Watch().alert, 10.0),
        (alerts.beat, 10.0),
    ]
    return [*((scan, scan_interval) for scan in scans), *others]


failing: dict[Duty, type[Exception]] = {}  # the error that was logged last, until the duty works again


def perform(app: Flask, duty: Duty) -> None:
    try:
        with app.app_context():  # leaving it rolls back, which can fail as well
            while database.tried_again(duty)(now=database.clock()):
                pass
    except Exception as error:
        if failing.get(duty) is type(error):
            return
        failing[duty] = type(error)
        away = isinstance(error, RedisError) or failures.is_outage(error)
        log.warning("%s failed; it is tried again at each scan: %s", duty.__name__, error, exc_info=not away)
    else:
        if duty in failing:
            del failing[duty]
            log.info("%s works again", duty.__name__)


class Every(BaseTrigger):  # type: ignore[misc]
    """Fires so many seconds after it fired last. If the clock was set ahead, the skipped times are not made up for."""

    def __init__(self, seconds: float) -> None:
        self.interval = timedelta(seconds=seconds)

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
        return now + self.interval


class ClockWatch(threading.Thread):
    """Wakes all duties when this machine's clock is set. APScheduler uses that clock: set back, it would wait long."""

    def __init__(self, scheduler: BaseScheduler, *, interval: float) -> None:
        super().__init__(name="clock-watch", daemon=True)
        self.scheduler = scheduler
        self.interval = interval

    def run(self) -> None:
        before = _wall_offset()
        while True:
            time.sleep(self.interval)
            after = _wall_offset()
            if abs(after - before) > self.interval:
                log.warning("this machine's clock was set by %+.1f s", after - before)
                for job in self.scheduler.get_jobs():
                    job.modify(next_run_time=datetime.now(UTC))
            before = after


def _wall_offset() -> float:
    return time.time() - time.monotonic()


if __name__ == "__main__":
    main()
