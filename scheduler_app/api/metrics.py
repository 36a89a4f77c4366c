"""/metrics, for Prometheus. Each request reads the database and Redis, so every web process gives the same figures."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from flask import Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from redis import RedisError

from scheduler_app.access import needs
from scheduler_app.api.body import Blueprint
from scheduler_app.database import clock
from scheduler_app.models import Scope
from scheduler_app.services import clocks, queues, schedulers, workers

QUEUE_FIGURES = {
    "waiting": "Messages that wait for a worker.",
    "oldest_waiting_seconds": "How long the task at the head of the queue has been due.",
    "running": "Tasks that are running now.",
    "retrying": "Tasks that wait for their next attempt.",
    "dead_letters": "Tasks that ended in ERROR.",
    "paused": "1 while the priority is paused.",
}

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
