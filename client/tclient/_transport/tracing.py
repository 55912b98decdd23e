"""OpenTelemetry: what is done within a program's own spans becomes spans within those, and the server's within them.

Only what is done within a span of the program is traced, and only where OpenTelemetry is there. Knows spans and what
travels of them; knows neither calls nor tensors.
"""

from __future__ import annotations

import os
import sys
import time
import weakref
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from tclient._caller import caller
from tclient._transport.stats import WATCHERS
from tensorcompute import __version__

HEADER = "traceparent"
# What a message is longer by.
TRACE_BYTES = 64
_VARIABLE = "TCLIENT_TRACE"
# As in the semantic conventions of OpenTelemetry.
_FILE, _LINE = "code.file.path", "code.line.number"


def tracing_for(wish: bool | None) -> Tracing | None:
    """What traces a session, as is wished for; None is TCLIENT_TRACE, or whether the program has set OpenTelemetry up.

    Raises: ImportError where it is wished for and not installed.
    """
    if wish is None and (told := os.environ.get(_VARIABLE)):
        wish = told != "0"
    if wish is False or (wish is None and not _is_set_up()):
        return None
    try:
        return Tracing()
    except ImportError as error:
        raise ImportError(f"traces need OpenTelemetry: pip install 'tclient[otel]' ({error})") from None


def _is_set_up() -> bool:
    api = sys.modules.get("opentelemetry.trace")
    return api is not None and not isinstance(api.get_tracer_provider(), api.ProxyTracerProvider)


class Begun:
    """A span under way, and what travels of it. A context manager: it ends with it, and has failed with an error."""

    __slots__ = ("_span", "traceparent")

    def __init__(self, span: Any, traceparent: str) -> None:
        self._span, self.traceparent = span, traceparent

    def end(self, error: str = "") -> None:
        """It is over; with an error, it has failed."""
        if error:
            from opentelemetry.trace import Status, StatusCode

            self._span.set_status(Status(StatusCode.ERROR, error))
        self._span.end()

    def __enter__(self) -> Begun:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.end("" if error is None else f"{type(error).__name__}: {error}"[:200])


class Tracing:
    """Makes the spans of a session."""

    def __init__(self) -> None:
        """Raises: ImportError."""
        from opentelemetry import trace

        self._api = trace
        self._tracer = trace.get_tracer("tclient", __version__)
        _OPEN.add(self)
        if _tell not in WATCHERS:
            WATCHERS.append(_tell)

    def origin(self) -> Any:
        """The program's span that this thread is in, if that is recorded; None else."""
        span = self._api.get_current_span()
        return span if span.is_recording() else None

    def begin(self, name: str, origin: Any = None, attributes: Mapping[str, Any] | None = None) -> Begun | None:
        """A span within that of the program, which is this thread's or `origin`; None where there is none."""
        within = self.origin() if origin is None else origin
        if within is None:
            return None
        api = self._api
        context = api.set_span_in_context(within)
        span = self._tracer.start_span(name, context=context, kind=api.SpanKind.CLIENT, attributes=attributes)
        return Begun(span, _traceparent(span))

    def past(self, name: str, began_ns: int, ended_ns: int, attributes: Mapping[str, Any]) -> None:
        """A span within that of the program that this thread is in, of what is over; times since 1970."""
        self._tracer.start_span(name, start_time=began_ns, attributes=attributes).end(ended_ns)

    def headers(self) -> tuple[tuple[str, str], ...]:
        """What goes with an RPC of which no span is made, of the program's span that this thread is in."""
        span = self.origin()
        return () if span is None else ((HEADER, _traceparent(span)),)


def _traceparent(span: Any) -> str:
    told = span.get_span_context()
    return f"00-{told.trace_id:032x}-{told.span_id:016x}-{int(told.trace_flags):02x}"


def of_line(site: tuple[str, int] | None) -> dict[str, Any]:
    """Attributes that name a line of the program."""
    return {} if site is None else {_FILE: site[0], _LINE: site[1]}


# Those of open sessions.
_OPEN: weakref.WeakSet[Tracing] = weakref.WeakSet()


def _tell(what: str, seconds: float) -> None:
    """A wait of this thread, within a span of the program, is a span with the line that waits."""
    tracing = next(iter(_OPEN), None)
    if tracing is None:
        WATCHERS.remove(_tell)
    elif tracing.origin() is not None:
        ended_ns = time.time_ns()
        frame = caller()
        began_ns, line = ended_ns - int(seconds * 1e9), of_line((frame.f_code.co_filename, frame.f_lineno))
        tracing.past(f"wait for {what}", began_ns, ended_ns, line)
