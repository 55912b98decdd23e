"""A collector, a server that exports to it, and a program with spans of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.support.collector import Collector
from tests.support.serving import ServerProcess, serving


@pytest.fixture(scope="module")
def collecting() -> Iterator[Collector]:
    """One for the tests of a module."""
    with Collector() as collector:
        yield collector


@pytest.fixture
def collector(collecting: Collector) -> Collector:
    """It, with nothing from tests before."""
    collecting.spans.clear()
    return collecting


@pytest.fixture(scope="module")
def traced(collecting: Collector) -> Iterator[ServerProcess]:
    """A server that traces what its callers do."""
    arguments = ("--otlp-endpoint", collecting.endpoint, "--http-listen", "127.0.0.1:0", "--oip-listen", "127.0.0.1:0")
    with serving(*arguments) as server:
        yield server


_PROGRAM = InMemorySpanExporter()


@pytest.fixture(scope="module")
def provider() -> Iterator[None]:
    """OpenTelemetry, as a program sets it up, which can be done once in a process; the other tests do without."""
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        made = TracerProvider()
        made.add_span_processor(SimpleSpanProcessor(_PROGRAM))
        trace.set_tracer_provider(made)
    os.environ.pop("TCLIENT_TRACE", None)
    yield
    os.environ["TCLIENT_TRACE"] = "0"


@pytest.fixture
def program(provider: None) -> InMemorySpanExporter:
    """What has come of the program's spans, and of the client's within them."""
    _PROGRAM.clear()
    return _PROGRAM
