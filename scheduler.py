"""Scheduler entry point: wakes the services that make what is due happen, on an interval."""

import logging
import signal
from collections.abc import Callable
from datetime import UTC, datetime

from apscheduler.schedulers.blocking import BlockingScheduler

from scheduler_app import create_app
from scheduler_app.config import Settings
from scheduler_app.services import dispatch, task_schedules

log = logging.getLogger("scheduler")
DUTIES: tuple[Callable[..., int], ...] = (task_schedules.fire_due, dispatch.relay)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
    settings = Settings.load()
    app = create_app(settings)
    scheduler = BlockingScheduler(timezone=UTC)

    def perform(duty: Callable[..., int]) -> None:
        with app.app_context():
            try:
                while duty(now=datetime.now(UTC)):
                    pass
            except Exception:
                log.exception("%s failed; it is tried again at the next scan", duty.__name__)

    for duty in DUTIES:
        scheduler.add_job(
            perform,
            "interval",
            args=(duty,),
            seconds=settings.scan_interval,
            next_run_time=datetime.now(UTC),
            coalesce=True,
            misfire_grace_time=None,
            max_instances=1,
        )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: scheduler.shutdown())
    log.info("scheduler ready")
    scheduler.start()


if __name__ == "__main__":
    main()
