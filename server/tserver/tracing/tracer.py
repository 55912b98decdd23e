"""Which requests are traced, and the way of their spans out of this process, on a thread of its own.

A request is traced if its caller traces it, or by chance; none is while nobody takes the spans. Spans that are not
taken in time are dropped, and never waited for.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from typing import TYPE_CHECKING

from tserver.tracing.context import new_trace_id, parse
from tserver.tracing.traced import Export, Lent, Span, Traced, current

if TYPE_CHECKING:
    from tserver.config import Config

log = logging.getLogger("tserver.tracing")

# Spans that may wait to be taken, how many are given at once, and how long they are gathered for that.
_MOST_WAITING = 20_000
_MOST_AT_ONCE = 512
_GATHER_S = 0.5
# How long the end of a process waits for those that are left, and how often it is told that some were dropped.
_END_S = 3.0
_TELL_S = 60.0


class Rate:
    """One in so many; 0 is none. The first is one."""

    def __init__(self, one_in: int) -> None:
        self.one_in = one_in
        self._asked = 0

    def chooses(self) -> bool:
        """Whether this one is."""
        if not self.one_in:
            return False
        is_chosen = self._asked % self.one_in == 0
        self._asked += 1
        return is_chosen


class Tracer:
    """The traces of one process."""

    def __init__(self) -> None:
        self.is_on = False
        self._rate = Rate(0)
        self._export: Export = lambda spans: None
        self._spans: queue.SimpleQueue[list[Span] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting = self._dropped = 0
        self._told_at = -_TELL_S
        self._thread: threading.Thread | None = None

    def start(self, export: Export, one_in: int) -> None:
        """Give spans to `export` from now on; of requests whose callers trace nothing, those of one in so many."""
        self._export, self._rate = export, Rate(one_in)
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()
        self.is_on = True

    def stop(self) -> None:
        """Trace nothing more, and wait a moment until what there is has been taken."""
        if self.is_on:
            self.is_on = False
            self._spans.put(None)
            assert self._thread is not None
            self._thread.join(_END_S)

    def request(self, name: str, sent: str, *, may_choose: bool = True) -> Traced | None:
        """A request that begins, and what its caller has sent of a trace; None where it is not traced.

        What is done for a request that is traced already is a part of that.
        """
        if not self.is_on:
            return None
        if (answered := current()) is not None and not answered.is_over:
            # What a request began may go on behind it, for others.
            return Lent(answered)
        caller = parse(sent) if sent else None
        if caller is not None:
            # Who traces has decided.
            return Traced(name, caller.trace_id, caller, self._finished) if caller.is_sampled else None
        if not (may_choose and self._rate.chooses()):
            return None
        return self.chosen(name)

    def chosen(self, name: str) -> Traced:
        """A request that is traced whatever its caller does."""
        return Traced(name, new_trace_id(), None, self._finished)

    def _finished(self, spans: list[Span]) -> None:
        """From any thread."""
        with self._lock:
            if self._waiting + len(spans) > _MOST_WAITING:
                self._dropped += len(spans)
                return
            self._waiting += len(spans)
        self._spans.put(spans)

    # --- on the thread of this ---

    def _run(self) -> None:
        is_over = False
        while not is_over:
            gathered: list[Span] = []
            until = 0.0
            while len(gathered) < _MOST_AT_ONCE:
                try:
                    found = self._spans.get(timeout=max(0.0, until - time.monotonic()) if gathered else None)
                except queue.Empty:
                    break
                if found is None:
                    is_over = True
                    break
                until = until or time.monotonic() + _GATHER_S
                gathered += found
            if gathered:
                self._give(gathered)

    def _give(self, spans: list[Span]) -> None:
        try:
            self._export(spans)
        except Exception:
            log.exception("spans could not be exported")
        with self._lock:
            self._waiting -= len(spans)
            dropped = self._dropped
            if dropped and time.monotonic() < self._told_at + _TELL_S:
                return
            self._dropped = 0
        if dropped:
            self._told_at = time.monotonic()
            log.warning("spans were dropped: they come faster than they are taken", extra={"spans": dropped})


TRACER = Tracer()


def set_up(config: Config, **of_all: str) -> None:
    """Have this process trace, if the settings say where to. `of_all` is said of all its spans."""
    if config.otlp_endpoint:
        # Who exports nothing may lack it.
        from tserver.tracing.otlp import exporting

        TRACER.start(exporting(config.otlp_endpoint, of_all), config.trace_rate)
