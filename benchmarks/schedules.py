"""The cost of schedules: python -m benchmarks.schedules [--schedules 1000000] [--due 100000]

Real PostgreSQL, Valkey and scheduler processes, all on this machine. Half of the schedules are intervals, half cron.
"""

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import NoReturn

from flask import Flask
from flask_migrate import upgrade
from sqlalchemy import text

from scheduler import fire as scan
from scheduler_app.config import Settings
from scheduler_app.extensions import db
from scheduler_app.services.firing import fire_due
from scheduler_app.web import create_web_app
from tests.support.processes import Process, eventually
from tests.support.servers import Postgres, Valkey
from tests.support.system import SCHEDULER, SCHEDULER_READY

FIRING = ["-m", "benchmarks.schedules", "--fire"]
HEAD = "| what | schedules | schedulers | figure |\n| --- | ---: | ---: | --- |"
LEAD = timedelta(seconds=15)  # from setting the time until it comes; a large update takes its time
SCANS = 200

MORE = text("""
    INSERT INTO task_schedule (operation, params, priority, max_retries, every_x_hours, cron, anchor_at,
                               times_scheduled, next_run_at, created_at)
    SELECT 'calculate', '{"expression": "4+7"}', 5, 5, CASE WHEN n % 2 = 0 THEN 1 END,
           CASE WHEN n % 2 = 1 THEN '0 * * * *' END, now(), 0, now() + '1 day' + n * '1 s'::interval, now()
    FROM generate_series(1, :count) AS n
""")
MAKE_DUE = text("UPDATE task_schedule SET next_run_at = :due, anchor_at = :due WHERE task_schedule_id <= :count")
LAGS = text("""
    SELECT count(*), extract(epoch FROM max(created_at - scheduled_for)),
           extract(epoch FROM percentile_cont(0.5) WITHIN GROUP (ORDER BY created_at - scheduled_for)) FROM task
""")


def main() -> None:
    parser = argparse.ArgumentParser(description="What schedules cost.")
    parser.add_argument("--schedules", type=int, default=1_000_000)
    parser.add_argument("--due", type=int, default=100_000, help="how many fall due in the same second")
    parser.add_argument("--fire", action="store_true", help="be a process that fires what is due, and does no more")
    options = parser.parse_args()
    if options.fire:
        fire()
    with system() as (app, environ), app.app_context():
        print(HEAD, flush=True)
        add(1_000)
        idle(1_000)
        add(options.schedules - 1_000)
        idle(options.schedules)
        for what, command in (("firing alone", FIRING), ("whole scheduler", SCHEDULER)):
            for schedulers in (1, 2):
                rush(f"{options.due:,} due in one second, {what}", command, options, schedulers, environ)


@contextmanager
def system() -> Iterator[tuple[Flask, dict[str, str]]]:
    postgres, valkey = Postgres(), Valkey()
    try:
        postgres.sql("CREATE DATABASE backbeat")
        environ = {"DATABASE_URL": postgres.url("backbeat"), "REDIS_URL": valkey.url}
        app = create_web_app(Settings.from_env(environ))
        with app.app_context():
            upgrade()
        yield app, environ
        with app.app_context():
            db.engine.dispose()
    finally:
        valkey.close()
        postgres.close()


def add(count: int) -> None:
    if count > 0:
        db.session.execute(MORE, {"count": count})
        db.session.commit()
    vacuum()


def vacuum() -> None:
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM (ANALYZE) task_schedule"))


def idle(schedules: int) -> None:
    """Scans in which nothing is due."""
    times = []
    for _ in range(SCANS):
        began = time.perf_counter()
        assert fire_due(now=datetime.now(UTC)) == []
        times.append(1000 * (time.perf_counter() - began))
    worst = statistics.quantiles(times, n=100)[-1]
    row("scan, none due", schedules, "", f"{statistics.median(times):.2f} ms, p99 {worst:.2f} ms")


def fire() -> NoReturn:
    """What scheduler.py does, without its other duties."""
    app = create_web_app(Settings.load())
    print("scheduler ready", flush=True)
    while True:
        with app.app_context():
            idle = not scan(datetime.now(UTC))
        time.sleep(0.1 if idle else 0)


def rush(
    what: str, command: Sequence[str], options: argparse.Namespace, schedulers: int, environ: dict[str, str]
) -> None:
    """Many fall due in the same second."""
    db.session.execute(text("TRUNCATE task CASCADE"))
    db.session.commit()
    started = [Process(command, environ, SCHEDULER_READY) for _ in range(schedulers)]
    try:
        for process in started:
            process.wait_until_ready()
        make_due(options.due)
        median, last = eventually(lambda: lags(options.due), within=600)
    finally:
        for process in started:
            process.stop()
    figure = f"{options.due / last:,.0f} tasks a second; lag: median {median:.1f} s, highest {last:.1f} s"
    row(what, options.schedules, schedulers, figure)


def make_due(count: int) -> None:
    due = datetime.now(UTC).replace(microsecond=0) + LEAD
    db.session.execute(MAKE_DUE, {"due": due, "count": count})
    db.session.commit()
    assert datetime.now(UTC) < due, "the time came before it was set"


def lags(count: int) -> tuple[float, float] | None:
    """Median and highest in seconds, once all have their task."""
    created, highest, median = db.session.execute(LAGS).one()
    db.session.rollback()
    return (float(median), float(highest)) if created >= count else None


def row(what: str, schedules: int, schedulers: int | str, figure: str) -> None:
    print(f"| {what} | {schedules:,} | {schedulers} | {figure} |", flush=True)


if __name__ == "__main__":
    main()
