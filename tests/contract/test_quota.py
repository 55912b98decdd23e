"""A server that bounds the memory of each session: each storage counts once, and what is freed is free again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import grpc
import pytest
import torch

from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as service_pb
from tests.support.raw import RawSession
from tests.support.refusals import refused
from tests.support.serving import ServerProcess, serving
from tests.support.values import Kept

MIB = 1 << 20
QUOTA_BYTES = 8 * MIB


@pytest.fixture(scope="module")
def bounded() -> Iterator[ServerProcess]:
    """A server whose sessions may hold 8 MiB each, and whose messages carry 4 KiB of data."""
    with serving("--max-session-bytes", str(QUOTA_BYTES), "--max-inline-bytes", "4096") as server:
        yield server


@pytest.fixture
def full(bounded: ServerProcess) -> Iterator[RawSession]:
    """A session that holds 6 of its 8 MiB under id 1, and views of it."""
    with RawSession(bounded.address) as session:
        session.run(session.call(1, "zeros", 6 * MIB // 4), session.call(2, "Tensor.view", Kept(1), 2, -1)).clean()
        assert session.limits.max_session_bytes == QUOTA_BYTES
        yield session
        assert session.held() == (2, 6 * MIB)
        reply = session.run(session.call(900, "ones", 2), session.call(0, "tc.read", Kept(900)))
        assert reply.value(1).tolist() == [1, 1]


Calls = Callable[[RawSession], list[pb.Call]]
MORE: dict[str, Calls] = {
    "a factory": lambda s: [s.call(5, "zeros", MIB)],
    "a result": lambda s: [s.call(5, "Tensor.__add__", Kept(1), 1)],
    "a clone of a view": lambda s: [s.call(5, "Tensor.clone", Kept(2))],
    "several results": lambda s: [s.call(5, "Tensor.max", Kept(1), 0), s.call(6, "Tensor.sort", Kept(1))],
    "growth in place": lambda s: [s.call(5, "zeros", 1), s.call(0, "Tensor.resize_", Kept(5), MIB)],
    "the copies of a read": lambda s: [s.call(5, "tc.read", Kept(1)), s.call(6, "tc.read", Kept(1))],
    "a small step too many": lambda s: [
        s.call(id, "zeros", size) for id, size in ((5, MIB // 4), (6, MIB // 4), (7, 1))
    ],
}


@pytest.mark.parametrize("calls", MORE.values(), ids=MORE)
def test_more_than_the_quota_is_refused(full: RawSession, calls: Calls) -> None:
    made = calls(full)
    reply = full.run(*made, frees=[5, 6, 7])
    error = reply.error(len(made) - 1)
    assert (error.reason, error.type) == ("QUOTA_EXCEEDED", "OutOfMemoryError"), error
    assert str(QUOTA_BYTES) in error.message


def test_views_count_once_and_memory_that_was_freed_is_there_again(full: RawSession) -> None:
    views = [full.call(10 + n, "Tensor.view", Kept(1), -1) for n in range(20)]
    full.run(*views).clean()
    assert full.held() == (22, 6 * MIB)
    full.run(*(full.call(50, "zeros", MIB // 2, frees=[50]) for _ in range(10)), frees=[50, *range(10, 30)]).clean()


def test_an_upload_beyond_the_quota_is_refused_before_the_data_is_taken(full: RawSession) -> None:
    header = service_pb.UploadHeader(context=full.context(), id=3, dtype=pb.D_TYPE_UINT8, shape=[3 * MIB])
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, reason="QUOTA_EXCEEDED", naming=str(QUOTA_BYTES)):
        full.upload(header, [])


def test_typed_calls_beyond_the_quota_are_refused(full: RawSession) -> None:
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, reason="QUOTA_EXCEEDED"):
        full.create(zeros={}, shape=[MIB])
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, reason="QUOTA_EXCEEDED"):
        full.ask("Add", input=Kept(1), scalar=pb.Value(integer=1))


def test_the_quota_of_one_session_is_not_that_of_another(full: RawSession, bounded: ServerProcess) -> None:
    with RawSession(bounded.address) as other:
        kept = other.make("zeros", 7 * MIB // 4)
        assert other.held() == (1, 7 * MIB)
        assert torch.equal(other.get(other.make("Tensor.sum", kept)), torch.tensor(0.0))
