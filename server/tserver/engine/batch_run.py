"""A batch that is being run: what is left of it, and what has come of it so far. Runs nothing itself."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from tensorcompute.v1 import tensor_pb2 as pb
from tserver.engine import packed, replies
from tserver.engine.operations import Operation
from tserver.engine.pieces import Unfinished
from tserver.engine.reads import Deferred


class BatchRun(packed.RunFields):
    """A batch under way: how far it has come, and what there is to tell about it."""

    __slots__ = (
        "_rest",
        "count",
        "deferred",
        "frees",
        "is_whole",
        "made",
        "operations",
        "parts",
        "refusal",
        "remaining",
        "same",
        "seq",
        "told",
        "unfinished",
        "words",
    )

    def __init__(self, batch: pb.Batch, operations: list[Operation] | None = None) -> None:
        self.seq = batch.seq
        self.remaining: Iterator[pb.Call] = iter(batch.calls)
        # Of packed calls: the words, whether the last one is whole, and how far it has come in them.
        self.words: Sequence[int] | None = None
        self.is_whole = True
        if batch.packed:
            self.words, self.is_whole = packed.words_of(batch.packed)
        self.at = 0
        self.count = len(batch.calls)
        self.frees = batch.frees
        self.parts = batch.free_parts
        # Set for calls of the typed RPCs, which bring their operations along and have their ids made here.
        self.operations = operations
        self.index = 0
        # Why the calls that are left are not run; None while they are.
        self.refusal: pb.Error | None = None
        # The call that was left in the middle, if there is one; `index` is that of the next.
        self.unfinished: Unfinished | None = None
        # The operation of the call that is run, or was run last.
        self.number = -1
        self.made: dict[int, int] = {}
        # Results that are the very tensor of an argument: an id, or a part.
        self.same: dict[int, int | pb.Ref] = {}
        # Encoded results (see replies.py).
        self.told: list[bytes] = []
        self._rest: pb.BatchReply | None = None
        # Calls that are told of when their elements have arrived: index, id, operation, and what is to come.
        self.deferred: list[tuple[int, int, Operation, Deferred]] = []

    def stopped(self) -> dict[str, Any] | None:
        """How far it has come, for another process to go on from there; None where it waits for elements to arrive, or
        is in the middle of a call.
        """
        if self.deferred or self.unfinished is not None or self.operations is not None:
            return None
        return {
            "seq": self.seq,
            "index": self.index,
            "at": self.at,
            # Of those calls that are messages.
            "left": sum(1 for _ in self.remaining),
            "told": base64.b64encode(b"".join(self.told)).decode(),
            "rest": base64.b64encode(b"" if self._rest is None else self._rest.SerializeToString()).decode(),
            "made": list(self.made.items()),
            "same": [
                (call_id, [of] if isinstance(of, int) else [of.id, *of.path]) for call_id, of in self.same.items()
            ],
        }

    def go_on_from(self, stopped: dict[str, Any], messages: int) -> None:
        """Go on where another process has stopped; the batch has so many calls that are messages. Raises: ValueError
        where it is another batch.
        """
        words = 0 if self.words is None else len(self.words)
        done, index, at = messages - int(stopped["left"]), int(stopped["index"]), int(stopped["at"])
        if not (0 <= done <= messages and 0 <= at <= words and 0 <= index <= done + at):
            raise ValueError("the batch is not the one that was begun")
        self.remaining = itertools.islice(self.remaining, done, None)
        self.index, self.at = index, at
        self.told = [base64.b64decode(stopped["told"])]
        if rest := stopped["rest"]:
            self._rest = pb.BatchReply.FromString(base64.b64decode(rest))
        self.made = {int(call_id): int(index) for call_id, index in stopped["made"]}
        self.same = {
            int(call_id): int(of[0]) if len(of) == 1 else pb.Ref(id=of[0], path=of[1:])
            for call_id, of in stopped["same"]
        }

    @property
    def reply(self) -> pb.BatchReply:
        """What is told by way of message objects: errors, warnings, and the rarer kinds of results."""
        if self._rest is None:
            self._rest = pb.BatchReply()
        return self._rest

    def is_same(self, call_id: int, words: Sequence[int], position: int) -> None:
        """The result of a packed call is the very tensor of that argument."""
        self.same[call_id] = packed.id_at(words, position)

    def encoded_reply(self) -> bytes:
        """The BatchReply. Messages that are joined are merged: results of both kinds come out as one list."""
        rest = b"" if self._rest is None else self._rest.SerializeToString()
        return b"".join((replies.seq_field(self.seq), *self.told, rest))
