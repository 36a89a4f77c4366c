"""Traces: in which one something happens, and the spans that tell a collector of it.

The context that a request brings is kept with its tasks and passed on, whether or not there is a collector. Spans are
made only with OTEL_EXPORTER_OTLP_ENDPOINT, and only then OpenTelemetry is imported. Task ids stand on spans; there are
no metrics here.
"""

import atexit
import importlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from flask import has_request_context, request

from scheduler_app.config import Settings, SettingsError, environment
from scheduler_app.operations import running_task
from scheduler_app.tracing import contexts
from scheduler_app.tracing.contexts import Trace

if TYPE_CHECKING:
    from scheduler_app.tracing.spans import Spans

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"
NEEDED = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")

_spans: "Spans | None" = None  # of this process, when there is a collector


def check(settings: Settings) -> bool:
    """Whether spans are wanted. Raises SettingsError when they are and cannot be sent."""
    environ = environment()
    if not settings.otlp_endpoint or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if not all(map(_is_there, NEEDED)):
        raise SettingsError(
            f"{ENDPOINT}: traces need OpenTelemetry, which is not installed; `make otel`,"
            " or pip install -r requirements-otel.lock"
        )
    if (protocol := environ.get(PROTOCOL) or "http/protobuf") != "http/protobuf":
        raise SettingsError(f"{PROTOCOL}: {protocol!r} is not allowed; allowed is http/protobuf")
    return True


def configure(settings: Settings, *, process: str, instance: str = "") -> None:
    """To be called once, at a process's start. Raises SettingsError."""
    global _spans  # noqa: PLW0603 (one per process, as OpenTelemetry's own)
    if check(settings):
        # OpenTelemetry reads its other settings itself, and knows nothing of `.env`.
        ours = {name: value for name, value in environment().items() if name.startswith("OTEL_") and value}
        os.environ.update(ours | {ENDPOINT: settings.otlp_endpoint})
        _spans = importlib.import_module("scheduler_app.tracing.spans").Spans(process, instance)
        atexit.register(flush)


def flush() -> None:
    """Sends the spans that wait, and makes no more. It takes a few seconds at most."""
    if _spans:
        _spans.flush()


def wanted_spans() -> "Spans | None":
    """None: nobody wants any."""
    return _spans


def current() -> Trace:
    """The context in which that happens which happens now; empty without one."""
    if _spans and (trace := _spans.current()):
        return trace
    if task := running_task.get(None):
        return contexts.passed_on(task.trace)
    return _of_request() if has_request_context() else {}


def current_id() -> str | None:
    return contexts.trace_id(current())


@contextmanager
def posting(requests: Sequence[Mapping[str, Any]]) -> Iterator[list[Any]]:
    """Wraps what creates these tasks. The tasks that come of it are to be put into the list."""
    created: list[Any] = []
    if _spans:
        with _spans.sending(requests, created, parent=current()):
            yield created
    else:
        yield created


def begin_firing(count: int) -> list[Trace]:
    """The contexts of so many tasks of schedules. None without a collector, and none of a request that creates them.

    Each is the root of a trace of its own, unless a request creates them.
    """
    if trace := current():
        return [trace] * count
    return [_spans.begin_root() for _ in range(count)] if _spans else []


def end_firing(traces: Iterable[Trace], created: Iterable[Any]) -> None:
    """Tells of those that were created."""
    if _spans:
        _spans.end_roots(traces, created)


def _of_request() -> Trace:
    parent = request.environ.get("HTTP_TRACEPARENT")
    return contexts.read(parent, request.environ.get("HTTP_TRACESTATE", "")) or {} if parent else {}


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package around it
        return False
