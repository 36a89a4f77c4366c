"""Reading over HTTP while a million tasks stand in the table."""

import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from flask import Flask
from sqlalchemy import String, case, cast, event, func, insert, literal, select
from sqlalchemy.engine import Connection

from benchmarks import ours
from benchmarks.client import Client
from benchmarks.harness import Environ, Options, Servers, application, progress
from benchmarks.ours import N
from benchmarks.sqlite import database
from benchmarks.table import Row, milliseconds, percentile
from scheduler_app.database.columns import Json
from scheduler_app.extensions import db
from scheduler_app.models import Status, Task, TaskLabel, TaskSchedule
from scheduler_app.services.shared import FRESH
from tests.support.system import System

GOAL = 0.02  # seconds
PAGE_GOALS = {"PostgreSQL": 0.1, "SQLite": 0.2}  # seconds, for a page of the dashboard
CAUSES = 20_000  # that all failures together have; each has 5 digits when 10,000 is added
ERROR = {"type": "ConnectTimeoutError", "message": "Connection to 192.0.2.7 timed out."}
SCHEDULES = 1_000
RUNS = 100  # of each schedule; besides the other tasks
OTHER_PAGES = ("failures", "priorities", "workers", "operations", "log", "keys")
PARTS = 20  # with a time each
LOOKS = 4  # at each page
LONGEST = 3.0  # seconds that one kind of request is tried


def run(servers: Servers, options: Options) -> Iterable[Row]:
    count = options.size(1_000_000, 50_000)
    with servers.fresh() as environ:
        yield from read(environ, count, "PostgreSQL", options)
    with database(servers) as environ:
        yield from read(environ, count, "SQLite", options)


def read(environ: Environ, count: int, name: str, options: Options) -> Iterable[Row]:
    with application(environ) as app:
        load(count)
        with System(environ, workers=0, schedulers=0) as system:
            for goal, works, look in ((GOAL, requests(count), trials), (PAGE_GOALS[name], pages(count), first_looks)):
                for work, paths in works.items():
                    times = {path: look(Client(system.port), path) for path in paths}
                    slow = [path for path, some in times.items() if percentile(some, 95) > goal]
                    for path in slow if options.explain else []:
                        explain(app, path)
                    yield row(f"{name}, {count:,} tasks: {work}", times, goal)


def load(count: int) -> None:
    """Over ten days; one in ten failed, one in a thousand of the newest wait, all the others are done.

    Half of them are of one group, a quarter of 250 groups, and the rest of none. Each has a key.
    """
    add_schedules()
    for hours in range(240, 0, -240 // PARTS):
        created = datetime.now(UTC) - timedelta(hours=hours)
        ours.insert_tasks(
            count // PARTS,
            operation=case((N % 100 == 0, "http_request"), else_="calculate"),
            priority=N % 10,
            status=case((N % 10 == 0, Status.ERROR), else_=Status.SUCCESS),
            error=case((N % 10 == 0, literal(ERROR, Json()))),
            error_type=case((N % 10 == 0, ERROR["type"])),
            cause=case((N % 10 == 0, literal("00000000000") + cast(10_000 + N // 10 % CAUSES, String))),
            created_at=created,
            finished_at=created,
            group=case((N % 2 == 0, "large"), (N % 4 == 1, literal("customer-") + cast(N % 1_000, String))),
            unique_key=literal("calculate report-") + cast(hours * count + N, String),
        )
        label_newest(count // PARTS)
    ours.insert_tasks(count // 1000, priority=N % 10)
    ours.publish_all()
    ours.vacuum()


def label_newest(count: int) -> None:
    """Each has four labels: one of its own, one of 1,000 tasks, one of half of them, and one that all have."""
    newest = db.session.scalar(select(func.max(Task.task_id))) or 0
    values = {"order": Task.task_id, "batch": Task.task_id % 1_000, "half": Task.task_id % 2, "all": literal("yes")}
    for name, value in values.items():
        rows = select(Task.task_id, literal(name), cast(value, String)).where(Task.task_id > newest - count)
        db.session.execute(insert(TaskLabel).from_select(["task_id", "name", "value"], rows))
    db.session.commit()


def add_schedules() -> None:
    """Half of them at intervals, half by cron."""
    now = datetime.now(UTC)
    same = {"params": {"expression": "4+7"}, "priority": 5, "max_retries": 5, "operation": "calculate"}
    same |= {"times_scheduled": RUNS, "anchor_at": now, "created_at": now}
    rules = {"every_x_hours": 1, "cron": None}, {"every_x_hours": None, "cron": "30 7 * * MON-FRI"}
    rows = [
        same | rules[number % 2] | {"name": f"report {number}", "next_run_at": now + timedelta(hours=1, seconds=number)}
        for number in range(SCHEDULES)
    ]
    db.session.execute(insert(TaskSchedule.__table__), rows)  # type: ignore[arg-type]
    for run in range(RUNS):
        at = now - timedelta(hours=run + 1)
        done = {"status": Status.SUCCESS, "created_at": at, "started_at": at, "finished_at": at}
        ours.insert_tasks(SCHEDULES, task_schedule_id=N, scheduled_for=at, **done)


def requests(count: int) -> dict[str, list[str]]:
    middle = quote((datetime.now(UTC) - timedelta(days=5, hours=1)).isoformat(timespec="seconds"))
    filters = [f"priority={priority}" for priority in (0, 9)]
    filters += ["operation=calculate", "operation=http_request", "operation=none", "task_schedule_id=1"]
    filters += [f"created_after={middle}", f"created_before={middle}"]
    filters += ["status=ERROR&priority=0", "status=SUCCESS&operation=http_request&priority=1"]
    labels = [f"label={some}" for some in (f"order:{count // 2}", "batch:3", "all:yes", "none:0")]
    labels += ["label=batch:3&label=half:1", "label=all:yes&status=ERROR", "label=batch:3&status=PENDING"]
    groups = [f"group={some}" for some in ("large", "customer-1", "none", "large&status=ERROR", "large&status=PENDING")]
    groups += ["group=customer-1&status=ERROR"]
    in_group = ["group=large&priority=1", "group=large&label=batch:3", "group=large&status=SUCCESS&operation=none"]
    keys = [f"unique_key={key}" for key in (f"report-{24 * count + 7}&operation=calculate", "report-0")]
    hour, day = (quote((datetime.now(UTC) - timedelta(hours=some)).isoformat(timespec="seconds")) for some in (13, 37))
    errors = ["error_type=ConnectTimeoutError", "error_type=ConnectTimeoutError&status=SUCCESS", "error_type=None"]
    ended = [f"finished_after={hour}", f"finished_after={day}&finished_before={hour}", f"finished_before={middle}"]
    ended += [f"finished_after={day}&finished_before={hour}&status=ERROR&priority=0"]
    return {
        "the first page": ["/tasks/"],
        "a page of 200": ["/tasks/?limit=200"],
        "a page by cursor": [f"/tasks/?cursor={count // 2}"],
        "a page by status": [f"/tasks/?status={status}" for status in Status],
        "a page by another filter": [f"/tasks/?{some}" for some in filters],
        "a page by label": [f"/tasks/?{some}" for some in labels],
        "a page by group": [f"/tasks/?{some}" for some in groups],
        "a page by group and another filter": [f"/tasks/?{some}" for some in in_group],
        "a page by a key of unique": [f"/tasks/?{some}" for some in keys],
        "a page by the type of error": [f"/tasks/?{some}" for some in errors],
        "a page by when they ended": [f"/tasks/?{some}" for some in ended],
        "one task": [f"/tasks/{count // 2}/"],
        "all queues": ["/queues/"],
    }


def pages(count: int) -> dict[str, list[str]]:
    searches = [
        "",
        "group:large",
        "group:large status:error",
        "group:customer-1",
        "status:error",
        "operation:calculate",
        "operation:none",
        "priority:0-3 status:success",
        "timed+out",
    ]
    return {
        "the overview": ["/dashboard/", *(f"/dashboard/?period={period}" for period in ("day", "month"))],
        "a page of tasks": [f"/dashboard/tasks?q={quote(search, safe='+')}" for search in searches],
        "a task's page": [f"/dashboard/tasks/{count // 2}"],
        "a page of schedules": [f"/dashboard/schedules{query}" for query in ("", "?q=report+99", "?state=late")],
        "a schedule's page": ["/dashboard/schedules/7"],
        "another page": [f"/dashboard/{name}" for name in OTHER_PAGES],
    }


def trials(client: Client, path: str) -> list[float]:
    """Seconds of each request, after the first."""
    client.get(path)
    times: list[float] = []
    while len(times) < 100 and sum(times) < LONGEST:
        began = time.perf_counter()
        client.get(path)
        times.append(time.perf_counter() - began)
    return times


def first_looks(client: Client, path: str) -> list[float]:
    """Seconds of some requests for a page, each when what was computed for the one before is not shared any more."""
    client.get(path)
    times = []
    for _ in range(LOOKS):
        time.sleep(FRESH + 0.1)
        began = time.perf_counter()
        client.get(path)
        times.append(time.perf_counter() - began)
    return times


def row(work: str, times: dict[str, list[float]], goal: float) -> Row:
    """Of the slowest of these requests."""
    for path, some in times.items():
        progress(f"{path}: p50 {milliseconds(percentile(some, 50))}, p95 {milliseconds(percentile(some, 95))}")
    path = max(times, key=lambda path: percentile(times[path], 95))
    p50, p95 = percentile(times[path], 50), percentile(times[path], 95)
    which = f"{work}, the slowest of {len(times)}: `{path.partition('?')[2]}`" if len(times) > 1 else work
    measured = f"p50 {milliseconds(p50)}, p95 {milliseconds(p95)}"
    return Row(which, measured, goal=f"≤ {1000 * goal:g} ms", met=p95 <= goal)


def explain(app: Flask, path: str) -> None:
    """Prints the plan of each statement that the request makes."""
    statements: list[tuple[str, Any]] = []

    def keep(connection: Connection, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        statements.append((statement, parameters))

    event.listen(db.engine, "before_cursor_execute", keep)
    app.test_client().get(path)
    event.remove(db.engine, "before_cursor_execute", keep)
    word = "EXPLAIN (ANALYZE, BUFFERS)" if db.engine.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN"
    with db.engine.connect() as connection:
        for statement, parameters in statements:
            plan = connection.exec_driver_sql(f"{word} {statement}", parameters)
            progress("\n".join([path, statement, *(str(line[-1]) for line in plan)]))
