"""A collector of OpenTelemetry: what is exported to it by OTLP over gRPC, as spans that know their parents."""

from __future__ import annotations

from concurrent import futures
from types import TracebackType
from typing import Any, NamedTuple

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc

from tests.support.serving import wait_until

_WITHIN_S = 20.0


class Taken(NamedTuple):
    """One span, as it came."""

    name: str
    trace_id: str
    id: str
    parent: str
    began_ns: int
    ended_ns: int
    attributes: dict[str, Any]
    # The name of its kind and of its status, and the spans that it is linked with.
    kind: str
    status: str
    links: list[str]
    resource: dict[str, Any]


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Listens on loopback; a context manager."""

    def __init__(self) -> None:
        self.spans: list[Taken] = []
        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def Export(self, request: Any, context: Any) -> Any:
        """Take spans."""
        for of_process in request.resource_spans:
            resource = _attributes(of_process.resource.attributes)
            for of_library in of_process.scope_spans:
                self.spans += [_taken(span, resource) for span in of_library.spans]
        return pb.ExportTraceServiceResponse()

    def named(self, name: str, count: int = 1) -> list[Taken]:
        """The spans of that name, once there are so many."""
        wait_until(lambda: len(self._named(name)) >= count, _WITHIN_S, f"{count} spans {name}; there are {self.names}")
        return self._named(name)

    def within(self, span: Taken | str) -> list[Taken]:
        """Those whose parent it is, in the order in which they began."""
        parent = span if isinstance(span, str) else span.id
        return sorted((each for each in self.spans if each.parent == parent), key=lambda each: each.began_ns)

    @property
    def names(self) -> list[str]:
        """Of all that has come."""
        return [each.name for each in self.spans]

    def _named(self, name: str) -> list[Taken]:
        return [each for each in self.spans if each.name == name]

    def __enter__(self) -> Collector:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop(0).wait()


def _taken(span: Any, resource: dict[str, Any]) -> Taken:
    return Taken(
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        _attributes(span.attributes),
        span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        span.status.message,
        [link.span_id.hex() for link in span.links],
        resource,
    )


def _attributes(found: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in found}
