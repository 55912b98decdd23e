"""Call: what the client remembers of a call under way, until it is answered and someone has read the answer.

Knows the contract's messages; does not know how calls travel.
"""

from __future__ import annotations

from types import CodeType

from tclient._codec.operations import Operation
from tclient._exceptions import TensorError
from tclient._native import CallFields
from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.wire.packed import GENERAL

# What names a result: its id, or the id and the path of a part.
Name = int | tuple[int, tuple[int, ...]]

# The words of a call that is not packed.
GENERAL_CALL = [GENERAL]


class Call(CallFields):
    """A call, from the moment it is issued until its answer is read."""

    __slots__ = ()

    # Until it is in a batch: the words of the call, with what is let go before it; and its encoded fields, where it is
    # not packed.
    words: list[int]
    data: bytes
    operation: Operation
    code: CodeType | None  # with lasti, the caller's line
    lasti: int
    done: bool  # the batch was answered
    # What was told of the call, or the encoded Value if there is no more to it. None after done: it succeeded, and
    # there is nothing to tell.
    result: pb.Result | bytes | None
    failure: TensorError | None  # why there will be no answer
    epoch: int  # the session's epoch at the time of issue

    def site(self) -> tuple[str, int] | None:
        """The caller's file and line."""
        if self.code is None:
            return None
        line = self.code.co_firstlineno
        for start, end, number in self.code.co_lines():
            if number is not None and start <= self.lasti < end:
                line = number
        return self.code.co_filename, line
