"""Batches: the calls that travel in one message, and what the session knows with them.

Knows the order of definitions; does not know how batches are sent.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from typing import Any

from tclient._codec.operations import USED
from tclient._session.calls import Call
from tclient._session.modes import CONTEXTS
from tclient._transport.tracing import Begun


class Batch:
    """A batch on its way."""

    __slots__ = (
        "alone",
        "calls",
        "committed",
        "contexts",
        "done",
        "heavy",
        "known",
        "message",
        "operations",
        "origin",
        "resent",
        "seq",
        "size",
        "span",
    )

    def __init__(
        self, seq: int, calls: list[Call], heavy: int, operations: int, contexts: int, known: tuple[int, int]
    ) -> None:
        self.seq = seq
        self.calls = calls
        self.heavy = heavy
        # How many operations and contexts the session knows, with this batch; and before it.
        self.operations = operations
        self.contexts = contexts
        self.known = known
        # The program's span that the calls were issued in, and ours within it, where it is traced.
        self.origin: Any = None
        self.span: Begun | None = None
        self.message = b""
        # Of the message; what is behind that is said again with each new stream.
        self.size = 0
        # Whether a stream broke on which it may have been sent, so that the server may have it.
        self.resent = False
        # Whether someone waits for it and nothing else is on its way.
        self.alone = False
        self.committed = False
        self.done = False


def answered(seq: int, known: tuple[int, int]) -> Batch:
    """A batch that needs nothing more, for the next one to come behind."""
    batch = Batch(seq, [], 0, *known, known)
    batch.committed = batch.done = True
    return batch


def definitions(before: Batch, room: int) -> tuple[list[str], list[bytes], int, bool]:
    """The operations and contexts that the session is to know next, one at least; their size, and whether it is all."""
    names, modes = USED[before.operations :], CONTEXTS[before.contexts :]
    sizes = [len(name.encode()) + 3 for name in names] + [len(mode) + 3 for mode in modes]
    count = max(1, bisect_right(list(itertools.accumulate(sizes)), room))
    return names[:count], modes[: max(0, count - len(names))], sum(sizes[:count]), count >= len(sizes)
