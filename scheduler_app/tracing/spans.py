"""The spans: one when tasks are posted, one for each attempt.

Names and attributes are those of OpenTelemetry's semantic conventions for messaging, version 1.44.0, in which they are
still in development. Spans wait in a queue of bounded length for a thread that sends them, and are dropped while it is
full. So a collector that is away or slow delays nothing.
"""

import os
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace as api
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from scheduler_app.tracing.contexts import Trace, passed_on

SCHEMA = "https://opentelemetry.io/schemas/1.44.0"
SYSTEM = {"messaging.system": "backbeat"}
SEND = SYSTEM | {"messaging.operation.name": "send", "messaging.operation.type": "send"}
PROCESS = SYSTEM | {"messaging.operation.name": "process", "messaging.operation.type": "process"}
MESSAGE_ID = "messaging.message.id"
DESTINATION = "messaging.destination.name"
LAST_SPANS = 3.0  # seconds that a process that stops takes at most to send them

_headers = TraceContextTextMapPropagator()


class Spans:
    """One per process."""

    def __init__(self, process: str, instance: str) -> None:
        self._provider = TracerProvider(resource=_resource(process, instance), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        api.set_tracer_provider(self._provider)  # for operations that make spans of their own
        self._tracer = self._provider.get_tracer("backbeat", schema_url=SCHEMA)
        self._roots: dict[str, Span] = {}  # by traceparent: of tasks that are about to be created
        self._flushed = threading.Lock()

    def flush(self) -> None:
        """Once; later calls do nothing."""
        if self._flushed.acquire(blocking=False):
            # The library itself would wait for half a minute.
            thread = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
            thread.start()
            thread.join(LAST_SPANS)

    def current(self) -> Trace:
        carrier: Trace = {}
        _headers.inject(carrier)
        return carrier

    @contextmanager
    def sending(self, requests: Sequence[Mapping[str, Any]], created: list[Any], *, parent: Trace) -> Iterator[None]:
        """A span for all tasks of a request, which is their creation context."""
        queues = {_queue(request["priority"]) for request in requests}
        attributes: dict[str, Any] = SEND | ({DESTINATION: min(queues)} if len(queues) == 1 else {})
        if len(requests) > 1:
            attributes["messaging.batch.message_count"] = len(requests)
        with self._span(_name(attributes), SpanKind.PRODUCER, attributes, _context(parent)) as span:
            yield
            if len(created) == 1:
                span.set_attributes(_of_task(created[0]))

    def begin_root(self) -> Trace:
        span = self._tracer.start_span("send", Context(), SpanKind.PRODUCER, SEND)
        with api.use_span(span):
            trace = self.current()
        self._roots[trace["traceparent"]] = span
        return trace

    def end_roots(self, traces: Iterable[Trace], created: Iterable[Any]) -> None:
        """A span of a task that was not created is dropped."""
        begun = {trace["traceparent"]: self._roots.pop(trace["traceparent"], None) for trace in traces}
        for task in created:
            if span := begun.get(task.trace["traceparent"]):
                span.set_attributes(_of_task(task) | {"backbeat.task_schedule_id": task.task_schedule_id})
                span.set_attribute(DESTINATION, queue := _queue(task.priority))
                span.update_name(f"send {queue}")
                span.end()

    @contextmanager
    def processing(
        self, queue: str, task_id: int, operation: str, attempt: int, worker: str, posted: Trace | None
    ) -> Iterator[Trace]:
        """A span for an attempt: a child of the one that posted the task, linked to it and to the attempt before.

        Gives the context of the attempt, with what `contexts.kept` needs.
        """
        posted = posted or {}
        before = {"traceparent": posted["before"]} if "before" in posted else {}
        links = [Link(found) for carrier in (passed_on(posted), before) if (found := _span_context(carrier)).is_valid]
        attributes = PROCESS | {
            DESTINATION: queue,
            MESSAGE_ID: str(task_id),
            "messaging.client.id": worker,
            "backbeat.operation": operation,
            "backbeat.attempt": attempt,
        }
        with self._span(f"process {queue}", SpanKind.CONSUMER, attributes, _context(passed_on(posted)), links):
            yield self.current() | {"posted": posted.get("traceparent", "")}

    def fail(self, error: BaseException) -> None:
        """Marks the current span. Only the error's type: its message may quote what nobody else is to see."""
        span = api.get_current_span()
        span.set_attribute("error.type", type(error).__qualname__)
        span.set_status(StatusCode.ERROR)

    @contextmanager
    def _span(
        self,
        name: str,
        kind: SpanKind,
        attributes: Mapping[str, Any],
        context: Context,
        links: Sequence[Link] = (),
    ) -> Iterator[Span]:
        span = self._tracer.start_span(name, context, kind, attributes, links)
        with api.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            try:
                yield span
            except BaseException as error:
                self.fail(error)
                raise


def _resource(process: str, instance: str) -> Resource:
    """OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES come first."""
    found = Resource.create()
    ours = {"service.name": f"backbeat-{process}", "service.instance.id": instance or _instance()}
    named = not str(found.attributes["service.name"]).startswith("unknown_service")
    given = {name: value for name, value in found.attributes.items() if name != "service.name" or named}
    return found.merge(Resource(ours | given))


def _instance() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _context(trace: Trace) -> Context:
    """Without a parent the span is the root of a trace of its own."""
    return _headers.extract(trace, Context())


def _span_context(trace: Trace) -> api.SpanContext:
    return api.get_current_span(_context(trace)).get_span_context()


def _queue(priority: int) -> str:
    return f"tasks.p{priority}"


def _name(attributes: Mapping[str, Any]) -> str:
    return f"send {attributes[DESTINATION]}" if DESTINATION in attributes else "send"


def _of_task(task: Any) -> dict[str, Any]:
    return {MESSAGE_ID: str(task.task_id), "backbeat.operation": task.operation}
