"""Real servers behind a front that forwards: what it tells is what they tell, and one's end is not another's."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch

from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as ts
from tests.support.raw import METHODS, Raw, RawSession, path_of
from tests.support.refusals import refused
from tests.support.relay import Relay, relayed
from tests.support.serving import ServerProcess, serving, wait_until

Code = grpc.StatusCode
LEASE_S = 1.0
CAUSE = "the engine was ended by a test"
TIMEOUT_S = 20.0
LARGE_BYTES = 128 << 20
# What gRPC may hold of one stream in its windows, and the C library of what was freed.
MOST_GROWTH_BYTES = 64 << 20


@pytest.fixture(scope="module")
def engine() -> Iterator[ServerProcess]:
    with serving("--lease-s", str(LEASE_S)) as server:
        yield server


@pytest.fixture(scope="module")
def front(engine: ServerProcess) -> Iterator[Relay]:
    with relayed(engine.address) as front:
        yield front


@pytest.fixture
def direct(engine: ServerProcess) -> Iterator[Raw]:
    with Raw(engine.address) as raw:
        yield raw


@pytest.fixture
def forwarded(front: Relay) -> Iterator[Raw]:
    with Raw(front.address) as raw:
        yield raw


@dataclass(frozen=True)
class Told:
    """All that a caller hears of an RPC."""

    responses: tuple[bytes, ...]
    code: grpc.StatusCode
    details: str
    initial: tuple[Any, ...]
    trailing: tuple[Any, ...]


def told(raw: Raw, path: str, *requests: bytes, kind: str = "stream_stream", **terms: Any) -> Told:
    """Send these very bytes."""
    call = getattr(raw.channel, kind)(path)(iter(requests), timeout=TIMEOUT_S, **terms)
    responses: list[bytes] = []
    with contextlib.suppress(grpc.RpcError):
        responses.extend(call)
    return Told(
        tuple(responses), call.code(), call.details(), tuple(call.initial_metadata()), tuple(call.trailing_metadata())
    )


def request(method: str, raw: Raw, **fields: Any) -> tuple[str, bytes]:
    """The path and the bytes of a request."""
    return path_of(method), raw.request(method, **fields).SerializeToString()


def first_of_stream(raw: Raw, **fields: Any) -> bytes:
    return ts.ExecuteStreamRequest(session=raw.secret, **fields).SerializeToString()


Asked = Callable[[RawSession], tuple[Any, ...]]
ASKED: dict[str, Asked] = {
    "a response": lambda s: request("ListTensors", s),
    "an id that is not there": lambda s: request("Reshape", s, input=pb.Ref(id=7), shape=[1]),
    "a secret that is none": lambda s: request("ListTensors", s, context=ts.SessionContext(session=b"x")),
    "a session of an earlier run": lambda s: request("ListTensors", s, context=ts.SessionContext(session=bytes(24))),
    "a model that is not there": lambda s: request("DescribeMlp", s, name="nobody"),
    "a number out of turn": lambda s: request("Execute", s, session=s.secret, batch=pb.Batch(seq=9)),
    "a number out of turn, on a stream": lambda s: (
        path_of("ExecuteStream"),
        first_of_stream(s),
        ts.ExecuteStreamRequest(batch=pb.Batch(seq=9)).SerializeToString(),
    ),
    "a message larger than the limit": lambda s: (path_of("Add"), bytes(5 << 20)),
    "a later message larger than the limit": lambda s: (path_of("ExecuteStream"), first_of_stream(s), bytes(5 << 20)),
    "no message": lambda s: (path_of("Add"), b"\xff"),
    "an empty stream": lambda s: (path_of("ExecuteStream"),),
    "an empty upload": lambda s: (path_of("Upload"),),
    "an upload of too little": lambda s: (
        path_of("Upload"),
        ts.UploadRequest(
            header=ts.UploadHeader(context=s.context(), id=5, dtype=pb.D_TYPE_FLOAT32, shape=[4])
        ).SerializeToString(),
        ts.UploadRequest(chunk=b"abcd").SerializeToString(),
    ),
    "a download of what is not there": lambda s: request("Download", s, tensor=pb.Ref(id=7)),
    "a method that is not there": lambda s: (f"/{METHODS['Add'].containing_service.full_name}/Nothing", b""),
    "a service that is not there": lambda s: ("/nobody/Nothing", b""),
    "a text that is long": lambda s: request("DescribeMlp", s, name="π" * 3000),
}


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_all_that_is_told_of_an_rpc_is_what_the_engine_tells(direct: Raw, forwarded: Raw, asked: Asked) -> None:
    with direct.open_session() as session:
        path, *requests = asked(session)
        assert told(forwarded, path, *requests) == told(direct, path, *requests)


def test_compressed_messages_are_taken(front: Relay, engine: ServerProcess) -> None:
    data = pb.TensorData(dtype=pb.D_TYPE_FLOAT32, shape=[50_000], data=bytes(200_000))
    found = []
    for address in (engine.address, front.address):
        with Raw(address, compression=grpc.Compression.Gzip) as raw, raw.open_session() as session:
            found.append(session.get(session.create(data=data).id))
            # What is too large when it is unpacked is too large.
            with pytest.raises(grpc.RpcError) as refusal:
                session.send("Add", bytes(5 << 20))
            found.append((refusal.value.code(), refusal.value.details()))
    assert torch.equal(found[0], found[2])
    assert found[1] == found[3]


def test_a_stream_that_is_cancelled_begins_the_lease_of_its_session(forwarded: Raw) -> None:
    with forwarded.open_session() as session:
        stream = session.stream()
        stream.send(session.batch())
        stream.receive()
        stream.cancel()
        wait_until(lambda: is_lost(forwarded, session), TIMEOUT_S, "the end of the lease", interval_s=LEASE_S * 1.5)


def is_lost(raw: Raw, session: RawSession) -> bool:
    """Whether a session has ended. To ask of one that has not begins its lease anew."""
    return told(raw, *request("ListTensors", session)).code is Code.FAILED_PRECONDITION


def rss_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_slow_reader_costs_the_front_no_memory_and_others_no_time(front: Relay, forwarded: Raw) -> None:
    with forwarded.open_session() as session, forwarded.open_session() as other:
        large = session.make("ones", LARGE_BYTES, dtype=torch.uint8)
        before = rss_of(front.pid)
        slow = session.channel.unary_stream(path_of("Download"), None, ts.DownloadResponse.FromString)
        call = slow(session.request("Download", tensor=large).SerializeToString(), timeout=3 * TIMEOUT_S)
        assert next(call).header.total_bytes == LARGE_BYTES
        grown = [-1, 0]
        while grown[-1] != grown[-2]:
            # Others go on meanwhile.
            assert other.get(other.create(ones={}, shape=[1000]).id).sum() == 1000
            grown.append(rss_of(front.pid) - before)
        assert grown[-1] < MOST_GROWTH_BYTES
        received = sum(len(response.chunk) for response in call)
        assert received == LARGE_BYTES
        assert rss_of(front.pid) - before < MOST_GROWTH_BYTES


def test_an_engine_that_is_killed_ends_its_own_sessions_alone() -> None:
    with (
        serving() as one,
        serving() as two,
        relayed(one.address, two.address, cause=CAUSE) as front,
        Raw(front.address) as raw,
        raw.open_session() as first,
        raw.open_session() as second,
        Raw(one.address) as direct,
    ):
        assert first.opened.boot_id != second.opened.boot_id, "each session is on an engine of its own"
        assert first.opened.boot_id == direct.ask("GetServerInfo").boot_id
        kept = second.make("ones", 3)
        with first.stream() as stream, second.stream() as other:
            stream.send(first.batch(first.call(0, "ones", 3)))
            stream.receive()
            os.kill(one.engine_pid(), signal.SIGKILL)
            with refused(Code.FAILED_PRECONDITION, reason="SESSION_LOST", naming=CAUSE):
                stream.receive()
            other.send(second.batch(second.call(0, "Tensor.tolist", kept)))
            assert other.receive().value(0) == [1.0, 1.0, 1.0]
        assert torch.equal(second.read(kept), torch.ones(3))
