"""Spans to a collector by OTLP over gRPC, through OpenTelemetry's own exporter (extra `otel`).

What it is told by OTEL_EXPORTER_OTLP_HEADERS, OTEL_EXPORTER_OTLP_CERTIFICATE, OTEL_RESOURCE_ATTRIBUTES and their kin
holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from tserver import __version__
from tserver.tracing.context import TraceContext
from tserver.tracing.traced import Export, Span

_TIMEOUT_S = 5
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_SCOPE = InstrumentationScope("tserver", __version__)


def exporting(endpoint: str, of_all: Mapping[str, str]) -> Export:
    """What exports spans to `endpoint`: http://HOST:PORT, or https:// for TLS."""
    exporter = OTLPSpanExporter(endpoint=endpoint, insecure=not endpoint.startswith("https://"), timeout=_TIMEOUT_S)
    resource = Resource.create(
        {
            "service.name": "tserver",
            "service.version": __version__,
            **{f"tserver.{key}": value for key, value in of_all.items()},
        }
    )

    def export(spans: Sequence[Span]) -> None:
        exporter.export([_readable(each, resource) for each in spans])

    return export


def _readable(span: Span, resource: Resource) -> ReadableSpan:
    is_failed = bool(span.error)
    return ReadableSpan(
        name=span.name,
        context=_context(span.context, is_remote=False),
        # The caller's, of what a caller has asked for.
        parent=None if span.parent is None else _context(span.parent, is_remote=span.is_request),
        resource=resource,
        attributes=span.attributes,
        links=[Link(_context(each, is_remote=False)) for each in span.links],
        kind=SpanKind.SERVER if span.is_request else SpanKind.INTERNAL,
        instrumentation_scope=_SCOPE,
        status=Status(StatusCode.ERROR, span.error) if is_failed else Status(),
        start_time=span.began_ns,
        end_time=span.ended_ns,
    )


def _context(context: TraceContext, *, is_remote: bool) -> SpanContext:
    return SpanContext(context.trace_id, context.span_id, is_remote, _SAMPLED)
