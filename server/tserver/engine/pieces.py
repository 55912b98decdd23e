"""Calls that take long, in pieces: between two of them others have their turn, and a call that is cancelled ends.

The function behind such an operation gives a generator, whose value is the result. What a piece finds in force (modes,
and the state of the session) is what the call found; what a piece changes of that it takes back before it yields.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from types import GeneratorType
from typing import TYPE_CHECKING, Any

from tensorcompute.v1 import tensor_pb2 as pb

if TYPE_CHECKING:
    from tserver.engine.operations import Operation

Pieces = Generator[None, None, Any]


def is_in_pieces(result: Any) -> bool:
    """Whether that is what a function gave. No operation of torch's gives a generator."""
    return result.__class__ is GeneratorType


def whole(result: Any) -> Any:
    """What a function gave, run to its end where it is in pieces."""
    if not is_in_pieces(result):
        return result
    while True:
        try:
            next(result)
        except StopIteration as end:
            return end.value


class Unfinished:
    """A call of a batch that is left in the middle."""

    __slots__ = ("args", "call", "call_id", "context", "index", "kwargs", "number", "operation", "pieces", "words")

    def __init__(
        self,
        pieces: Pieces,
        index: int,
        number: int,
        call_id: int,
        context: int,
        operation: Operation,
        args: list[Any],
        kwargs: dict[str, Any],
        words: Sequence[int] | None,
        call: pb.Call | None,
    ) -> None:
        self.pieces = pieces
        self.index, self.number, self.call_id, self.context = index, number, call_id, context
        self.operation, self.args, self.kwargs = operation, args, kwargs
        self.words, self.call = words, call
