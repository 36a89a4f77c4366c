"""The spans that a server has received by OTLP, decoded."""

from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Received

from tests.support.http_server import Server


@dataclass(frozen=True)
class Span:
    service: str
    name: str
    kind: str
    trace: str
    span: str
    parent: str  # empty for a root
    links: list[tuple[str, str]]  # trace and span
    state: str
    attributes: dict[str, Any]
    failed: bool

    @property
    def parent_header(self) -> str:
        return f"00-{self.trace}-{self.span}-01"


def spans(server: Server) -> list[Span]:
    found = []
    for _, path, _, body in [*server.requests]:
        if path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                service = _values(resource.resource.attributes)["service.name"]
                for scope in resource.scope_spans:
                    found += [_span(service, span) for span in scope.spans]
    return found


def _span(service: str, span: Received) -> Span:
    return Span(
        service,
        span.name,
        Received.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        [(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        span.trace_state,
        _values(span.attributes),
        span.status.code == 2,
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
