"""Calls that end the process, or never end, when torch 2.13 is asked on the CPU: here they are refused or harmless."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from tensorcompute.v1 import tensor_pb2 as pb
from tests.support.raw import RawSession
from tests.support.serving import ServerProcess, serving
from tests.support.values import Kept

Calls = Callable[[RawSession], pb.Call]


@pytest.fixture(scope="module")
def victim() -> Iterator[ServerProcess]:
    """A server of their own: should one of these go wrong, no other test suffers."""
    with serving() as server:
        yield server


LOWEST, MINUS = torch.full((9,), -(2**31), dtype=torch.int32), torch.full((9,), -1, dtype=torch.int32)
CRASHES: dict[str, Calls] = {
    "eigenvalues of nan": lambda s: s.call(5, "linalg.eigvals", torch.full((3, 3), float("nan"))),
    "eigenvalues of infinity": lambda s: s.call(5, "linalg.eigvals", torch.full((3, 3), float("inf"))),
    "segments beyond the data": lambda s: s.call(
        5, "segment_reduce", torch.ones(5), "sum", offsets=torch.tensor([0, 10**9]), axis=0
    ),
    "segments that are not checked": lambda s: s.call(
        5, "segment_reduce", torch.ones(5), "sum", lengths=torch.tensor([10**9]), unsafe=True
    ),
    "the smallest integer divided by -1": lambda s: s.call(5, "div", LOWEST, MINUS, rounding_mode="trunc"),
    "the smallest integer divided by -1 in place": lambda s: s.call(
        5, "Tensor.div_", LOWEST, MINUS, rounding_mode="trunc"
    ),
    "a norm without its statistics": lambda s: s.call(
        5, "native_batch_norm", torch.ones(2, 3), None, None, None, None, False, 0.1, 0.1
    ),
    "a pool without end": lambda s: s.call(5, "max_pool1d", torch.ones(1, 4), 2**62),
    "digits without end": lambda s: s.call(5, "set_printoptions", precision=10**9),
}


@pytest.mark.parametrize("bad", CRASHES.values(), ids=CRASHES)
def test_what_would_crash_or_hang_torch_is_refused_or_harmless(victim: ServerProcess, bad: Calls) -> None:
    with RawSession(victim.address) as session:
        calls = session.call(3, "ones", 2), bad(session), session.call(0, "Tensor.__repr__", Kept(3))
        reply = session.execute(session.batch(*calls), timeout_s=10.0)
        assert reply.value(2) == "tensor([1., 1.])"
