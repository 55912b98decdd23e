"""One request that is traced: its span, and what it went through as spans within. Knows no tracing library.

Times are those of time.perf_counter, in seconds; on the systems that we run on time.monotonic has the same zero. From
any thread, one at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from tserver.tracing.context import TraceContext, new_span_id

T = TypeVar("T")
Attributes = Mapping[str, str | int | float | bool]
_NONE: Attributes = MappingProxyType({})
# Spans of one request; what is beyond that is counted.
_MOST_SPANS = 128


class Span(NamedTuple):
    """Something that took a while. Times are in nanoseconds since 1970."""

    name: str
    context: TraceContext
    parent: TraceContext | None
    began_ns: int
    ended_ns: int
    attributes: Attributes
    links: Sequence[TraceContext] = ()
    # Whether it is what a caller has asked for; the others are within one.
    is_request: bool = False
    # The name of a status, of what has failed.
    error: str = ""


# Takes spans out of the process.
Export = Callable[[Sequence[Span]], None]


class Traced:
    """A request under way."""

    __slots__ = ("_began", "_epoch_ns", "_finished", "_left_out", "_name", "_parent", "_spans", "context")

    def __init__(
        self,
        name: str,
        trace_id: int,
        parent: TraceContext | None,
        finished: Callable[[list[Span]], None],
    ) -> None:
        """`finished` is given all spans at its end."""
        self.context = TraceContext(trace_id, new_span_id())
        self._name, self._parent = name, parent
        self._finished: Callable[[list[Span]], None] | None = finished
        self._spans: list[Span] = []
        self._left_out = 0
        self._began = time.perf_counter()
        self._epoch_ns = time.time_ns() - int(self._began * 1e9)

    @property
    def is_over(self) -> bool:
        """Whether it has ended: what is noted now is in no trace."""
        return self._finished is None

    def within(
        self,
        name: str,
        began: float,
        ended: float,
        attributes: Attributes = _NONE,
        *,
        parent: TraceContext | None = None,
        links: Sequence[TraceContext] = (),
    ) -> TraceContext:
        """Note what it went through, within the request or another such span; whose context that is."""
        context = TraceContext(self.context.trace_id, new_span_id())
        if len(self._spans) < _MOST_SPANS and self._finished is not None:
            times = self._ns(began), self._ns(ended)
            self._spans.append(Span(name, context, parent or self.context, *times, attributes, links))
        else:
            self._left_out += 1
        return context

    def end(self, error: str = "", attributes: Attributes = _NONE) -> None:
        """It is over, and has failed if there is an error; a second time does nothing."""
        finished, self._finished = self._finished, None
        if finished is None:
            return
        told = dict(attributes)
        if self._left_out:
            told["tserver.spans_left_out"] = self._left_out
        times = self._ns(self._began), self._ns(time.perf_counter())
        own = Span(self._name, self.context, self._parent, *times, told, is_request=True, error=error)
        finished([own, *self._spans])

    def _ns(self, seconds: float) -> int:
        return self._epoch_ns + int(seconds * 1e9)


class Lent(Traced):
    """A request whose end somebody else knows: what it goes through is noted all the same."""

    __slots__ = ("_of",)

    def __init__(self, of: Traced) -> None:
        self._of = of
        self.context = of.context

    @property
    def is_over(self) -> bool:
        """See Traced."""
        return self._of.is_over

    def within(
        self,
        name: str,
        began: float,
        ended: float,
        attributes: Attributes = _NONE,
        *,
        parent: TraceContext | None = None,
        links: Sequence[TraceContext] = (),
    ) -> TraceContext:
        """See Traced."""
        return self._of.within(name, began, ended, attributes, parent=parent, links=links)

    def end(self, error: str = "", attributes: Attributes = _NONE) -> None:
        """See Traced: others do that."""


# What is done in this task, or thread, is done for this request.
_CURRENT: ContextVar[Traced | None] = ContextVar("traced", default=None)


def current() -> Traced | None:
    """The request that is being answered here, if it is traced."""
    return _CURRENT.get()


@contextmanager
def answering(traced: Traced, named: Callable[[Exception], str]) -> Iterator[None]:
    """Within it, what is done is done for this request, which ends with it; `named` says what an error is called."""
    token = _CURRENT.set(traced)
    try:
        yield
    except Exception as error:
        traced.end(named(error))
        raise
    except BaseException:
        # Its caller has gone.
        traced.end("CANCELLED")
        raise
    finally:
        _CURRENT.reset(token)
    traced.end()


def timed(function: Callable[..., T]) -> Callable[..., T]:
    """A function that is to run elsewhere, later: if the request is traced, how long it waits and runs is noted."""
    traced = _CURRENT.get()
    if traced is None:
        return function
    asked = time.perf_counter()

    def run(*arguments: object) -> T:
        began = time.perf_counter()
        traced.within("queue", asked, began)
        try:
            return function(*arguments)
        finally:
            traced.within("run", began, time.perf_counter())

    return run
