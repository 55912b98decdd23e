"""The context of a trace as it travels: W3C Trace Context, https://www.w3.org/TR/trace-context/. Knows nothing else."""

from __future__ import annotations

import random
import re
from typing import NamedTuple

HEADER = "traceparent"
_FORM = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_MOST_CHARACTERS = 256
_SAMPLED = 1
# Not the generator that callers may seed: two processes would make the same ids.
_RANDOM = random.SystemRandom()


class TraceContext(NamedTuple):
    """A span: the trace that it is in, its own number, and whether it is kept."""

    trace_id: int
    span_id: int
    is_sampled: bool = True

    def __str__(self) -> str:
        """As it travels."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.is_sampled):02x}"


def parse(text: str) -> TraceContext | None:
    """What a caller has sent; None where it is no context, which by the standard is as if nothing was sent."""
    found = _FORM.fullmatch(text) if len(text) <= _MOST_CHARACTERS else None
    if found is None or (found[1] == "00" and found[5]):
        return None
    context = TraceContext(int(found[2], 16), int(found[3], 16), bool(int(found[4], 16) & _SAMPLED))
    return context if context.trace_id and context.span_id else None


def new_trace_id() -> int:
    """The number of a trace that begins here."""
    return _RANDOM.getrandbits(128) or 1


def new_span_id() -> int:
    """The number of another span."""
    return _RANDOM.getrandbits(64) or 1
