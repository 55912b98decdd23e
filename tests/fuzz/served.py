"""The same sequences on a real server, beside a session of another client that nothing may happen to."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import grpc
import torch

from tensorcompute.v1 import tensor_pb2 as pb
from tests.fuzz.draw import CONTEXTS, NAMES
from tests.support.raw import Raw, RawSession
from tests.support.serving import serving

# Calls of one batch, where they are not in one already.
_AT_ONCE = 8


def play(sequences: Sequence[Sequence[pb.Batch]], timeout_s: float) -> str:
    """Play each in a session of its own; what went wrong, or ""."""
    pattern = torch.arange(1 << 14, dtype=torch.int64) * 0x5EC2E75EC2E7
    with serving() as server, Raw(server.address) as other, other.open_session() as victim:
        kept = [victim.make("tensor", pattern[: 16 << index]) for index in range(9)]
        engine = server.engine_pid()
        for sequence in sequences:
            try:
                with RawSession(server.address) as session:
                    _attack(session, sequence, timeout_s)
                for index, one in enumerate(kept):
                    if not torch.equal(victim.read(one), pattern[: 16 << index]):
                        return "changed: a tensor of another session, on a server"
            except grpc.RpcError as error:
                return f"served: the server did not answer: {error}"
            if server.engine_pid() != engine:
                return f"served: the engine died\n{server.log()}"
    return ""


def _attack(session: RawSession, sequence: Sequence[pb.Batch], timeout_s: float) -> None:
    define = session.batch()
    define.define_operations.extend(NAMES)
    define.define_contexts.extend(CONTEXTS)
    session.execute(define, timeout_s)
    for has_words, group in itertools.groupby(sequence, lambda batch: bool(batch.packed)):
        batches = list(group)
        at_once = 1 if has_words else _AT_ONCE
        for start in range(0, len(batches), at_once):
            some = batches[start : start + at_once]
            calls = [call for batch in some for call in batch.calls]
            session.execute(session.batch(*calls, packed=some[0].packed), timeout_s)
