"""/metrics, for Prometheus. Each request reads the database and Redis, so every web process gives the same figures."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flask import Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from redis import RedisError
from sqlalchemy import Row

from scheduler_app.access import needs, refusals
from scheduler_app.access_models import Scope
from scheduler_app.api.body import Blueprint
from scheduler_app.database import BOUNDS, clock
from scheduler_app.extensions import broker
from scheduler_app.services import clocks, limits, pauses, queues, schedulers, statistics, totals, workers
from scheduler_app.services.spans import CREATED, read_buckets

QUEUE_FIGURES = {
    "waiting": "Messages that wait for a worker.",
    "oldest_waiting_seconds": "How long the task at the head of the queue has been due.",
    "running": "Tasks that are running now.",
    "retrying": "Tasks that wait for their next attempt.",
    "dead_letters": "Tasks that ended in ERROR.",
    "paused": "1 while the priority is paused.",
}

SHOWN = range(2, len(BOUNDS) - 1, 3)  # the buckets of the history at whose ends a bucket here ends
WIDTH = 1.5  # times its beginning, a bucket of the history ends

MOST_LIMITS = 100  # that are shown, with two figures each

blp = Blueprint("metrics", __name__, description="For monitoring.")


@blp.route("/metrics", methods=["GET"])
@needs(Scope.READ)
@blp.response(200, {"type": "string"}, content_type="text/plain")
def read_metrics() -> Response:
    """Read the metrics

    Figures about queues, workers and schedulers, in Prometheus' text format. Every web process gives the same figures.
    """
    return Response(generate_latest(Figures(clock())), content_type=CONTENT_TYPE_LATEST)


@dataclass(frozen=True)
class Figures(Collector):
    now: datetime

    def collect(self) -> Iterator[Metric]:
        yield from self._schedulers()
        count, oldest = schedulers.due(now=self.now)
        yield GaugeMetricFamily("backbeat_schedules_due", "Schedules whose time has come.", value=count)
        yield GaugeMetricFamily(
            "backbeat_schedules_due_oldest_seconds",
            "How long the schedule that has waited longest has been due.",
            value=oldest,
        )
        yield GaugeMetricFamily(
            "backbeat_workers", "Worker processes with a fresh heartbeat.", value=len(workers.find())
        )
        yield self._clocks()
        yield from self._queues()
        yield from self._limits()
        yield from self._tasks()
        yield from self._refusals()

    def _schedulers(self) -> Iterator[Metric]:
        labels = ("host", "pid")
        scanned = GaugeMetricFamily(
            "backbeat_scheduler_last_scan_timestamp_seconds", "When this scheduler last scanned.", labels=labels
        )
        took = GaugeMetricFamily("backbeat_scheduler_scan_seconds", "How long its last scan took.", labels=labels)
        lag = GaugeMetricFamily(
            "backbeat_scheduler_lag_seconds",
            "The greatest delay among the tasks that its last scan with due schedules created.",
            labels=labels,
        )
        for scheduler in schedulers.find():
            values = (scheduler.host, str(scheduler.pid))
            scanned.add_metric(values, scheduler.scanned_at.timestamp())
            took.add_metric(values, scheduler.scan_seconds)
            if scheduler.lag_seconds is not None:
                lag.add_metric(values, scheduler.lag_seconds)
        yield from (scanned, took, lag)

    def _clocks(self) -> Metric:
        meaning = "How many seconds its machine's clock is ahead of the database's clock."
        family = GaugeMetricFamily("backbeat_clock_offset_seconds", meaning, labels=("kind", "host", "pid"))
        for kind, host, pid, offset in clocks.find(now=self.now):
            if offset is not None:
                family.add_metric((kind, host, str(pid)), offset)
        return family

    def _queues(self) -> Iterator[Metric]:
        try:
            rows = queues.find(now=self.now)
        except RedisError:
            rows = []
        yield GaugeMetricFamily("backbeat_broker_up", "Whether Redis answers.", value=bool(rows))
        for figure, meaning in QUEUE_FIGURES.items():
            family = GaugeMetricFamily(f"backbeat_queue_{figure}", meaning, labels=("priority",))
            for row in rows:
                family.add_metric([str(row["priority"])], row[figure] or 0)
            yield family

    def _limits(self) -> Iterator[Metric]:
        labels, meaning = ("limit", "per"), "What counts as running by this limit, of all groups together."
        used = GaugeMetricFamily("backbeat_limit_used", meaning, labels=labels)
        meaning = "How many may run at once: in all, or of each group."
        most = GaugeMetricFamily("backbeat_limit_max_running", meaning, labels=labels)
        try:
            rows = limits.figures(most=MOST_LIMITS)
        except RedisError:
            return
        for row in rows:
            used.add_metric((row["limit"], row["per"]), row["used"])
            most.add_metric((row["limit"], row["per"]), row["max_running"])
        yield from (used, most)

    def _tasks(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "backbeat_tasks_scheduled",
            f"Tasks that wait for their time; at most {queues.MOST_SCHEDULED:,} are counted.",
            value=queues.scheduled(now=self.now),
        )
        yield GaugeMetricFamily("backbeat_priorities_paused", "Priorities that are paused.", value=len(pauses.find()))
        counted_to = statistics.counted_to()
        if counted_to != statistics.NEVER:
            age = (self.now - counted_to).total_seconds()
            meaning = "How far the history is behind: what ended within that time is not counted yet."
            yield GaugeMetricFamily("backbeat_history_age_seconds", meaning, value=age)
        yield from totals_of(totals.find())

    def _refusals(self) -> Iterator[Metric]:
        try:
            found = refusals.find(broker)
        except RedisError:
            return
        family = CounterMetricFamily("backbeat_keys_refused", "Requests whose key was refused.", labels=("reason",))
        for reason, times in found.items():
            family.add_metric([reason], times)
        yield family


def totals_of(rows: Sequence[Row[Any]]) -> Iterator[Metric]:
    """From the history, so that they are right with any number of processes. They rise when the scheduler counts."""
    created = CounterMetricFamily("backbeat_tasks_created", "Tasks that came in.", labels=("operation", "priority"))
    finished = CounterMetricFamily(
        "backbeat_tasks_finished", "Tasks that ended.", labels=("operation", "priority", "status")
    )
    waited: defaultdict[str, Counter[int]] = defaultdict(Counter)
    ran: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for row in rows:
        labels = (row.operation, str(row.priority))
        if row.status == CREATED:
            created.add_metric(labels, row.tasks)
            continue
        finished.add_metric((*labels, row.status), row.tasks)
        waited[str(row.priority)].update(read_buckets(row.waiting))
        ran[row.operation].update(read_buckets(row.running))
    yield from (created, finished)
    due = "From when a task was due to its latest attempt."
    yield histogram("backbeat_task_waiting_seconds", due, "priority", waited)
    yield histogram("backbeat_task_running_seconds", "How long the latest attempt took.", "operation", ran)


def histogram(name: str, meaning: str, label: str, counted: Mapping[str, Counter[int]]) -> Metric:
    """The sum is as exact as the history's buckets, which grow by half."""
    family = HistogramMetricFamily(name, f"{meaning} The sum is an estimate.", labels=(label,))
    for value, buckets in sorted(counted.items()):
        ends = [(f"{BOUNDS[end]:.6g}", sum(buckets[n] for n in range(end + 1))) for end in SHOWN]
        total = sum(BOUNDS[number] / WIDTH**0.5 * tasks for number, tasks in buckets.items())
        family.add_metric([value], [*ends, ("+Inf", buckets.total())], total)
    return family
