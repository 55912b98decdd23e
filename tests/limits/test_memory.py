"""A server whose memory is full refuses what takes more of it, on every road; it goes on, and so does who lets go."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import grpc
import pytest
import torch

from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as ts
from tests.models.networks import create, relu_mlp
from tests.support.raw import RawSession
from tests.support.refusals import parse
from tests.support.serving import ServerProcess, serving, wait_until
from tests.support.values import Kept
from tserver.engine.room import Room
from tserver.errors import Exhausted

MIB = 1 << 20
LIMIT_BYTES = 400 * MIB
_STEP = MIB // 2
Code = grpc.StatusCode


@pytest.fixture(scope="module")
def small() -> Iterator[ServerProcess]:
    """A server that may take 400 MiB beside what it begins with."""
    with serving("--max-memory-bytes", str(LIMIT_BYTES)) as server:
        yield server


def fill(session: RawSession) -> pb.Error:
    """Hold more and more tensors of 2 MiB, until one is refused because the server is full: the last ones before may be
    refused by the system, in torch's own words.
    """
    base = session.make("ones", _STEP)
    for _ in range(LIMIT_BYTES // MIB):
        reply = session.run(*(session.call(session.id(), "Tensor.__add__", base, 1) for _ in range(4)))
        for error in reply.errors.values():
            if "the server has" in error.message:
                return error
            assert error.reason == "OUT_OF_MEMORY", error
    raise AssertionError("the server was never full")


def works(session: RawSession) -> bool:
    """Whether there is memory for 32 MiB, all of which are there then."""
    reply = session.run(session.call(700, "ones", 8 * MIB), session.call(701, "Tensor.sum", Kept(700)))
    if not reply.errors:
        assert session.get(Kept(701)) == 8 * MIB
    session.run(frees=[700, 701])
    return not reply.errors


@pytest.fixture
def hoarder(small: ServerProcess) -> Iterator[RawSession]:
    """A session that holds all that a server can give; afterwards another one can work."""
    with RawSession(small.address) as session:
        boot = session.opened.boot_id
        error = fill(session)
        assert (error.reason, error.type) == ("OUT_OF_MEMORY", "OutOfMemoryError"), error
        yield session
    with RawSession(small.address) as other:
        assert other.opened.boot_id == boot, "the server has ended"
        wait_until(lambda: works(other), 10.0, "memory again")


Road = Callable[[RawSession], object]
ROADS: dict[str, Road] = {
    "a small tensor": lambda s: s.create(zeros={}, shape=[3]),
    "a large tensor": lambda s: s.create(zeros={}, shape=[8 * MIB]),
    "an upload": lambda s: s.upload(
        ts.UploadHeader(context=s.context(), id=9, dtype=pb.D_TYPE_UINT8, shape=[64 * MIB]), [bytes(MIB)] * 64
    ),
    "a model": lambda s: [create(s, f"m{n}", relu_mlp((200, 1000, 200), torch.float32)) for n in range(40)],
}


@pytest.mark.parametrize("road", ROADS.values(), ids=ROADS)
def test_who_asks_a_full_server_for_memory_is_refused_on_every_road(hoarder: RawSession, road: Road) -> None:
    with RawSession(hoarder.address) as session:
        try:
            road(session)
        except grpc.RpcError as error:
            refusal = parse(error)
            assert (refusal.code, refusal.reason) == (Code.RESOURCE_EXHAUSTED, "OUT_OF_MEMORY"), refusal
            return
    raise AssertionError("it was not refused")


def test_calls_of_other_sessions_that_take_memory_are_refused_too(hoarder: RawSession) -> None:
    with RawSession(hoarder.address) as session:
        error = session.run(session.call(1, "ones", 3)).error()
        assert (error.reason, error.type) == ("OUT_OF_MEMORY", "OutOfMemoryError"), error


def test_results_are_read_and_written_to_where_all_is_full(hoarder: RawSession) -> None:
    session, kept = hoarder, Kept(1)
    session.run(session.call(0, "Tensor.add_", kept, 1)).clean()
    assert sum(len(message.chunk) for message in session.download(kept)) == 4 * _STEP


def test_who_lets_go_has_memory_again(hoarder: RawSession) -> None:
    hoarder.run(frees=list(range(2, hoarder.id())))
    wait_until(lambda: works(hoarder), 10.0, "memory again")


def test_a_graph_that_is_kept_for_a_backward_counts(small: ServerProcess) -> None:
    with RawSession(small.address) as session:
        x = session.make("ones", _STEP, requires_grad=True)
        y = session.make("Tensor.exp", x)
        for _ in range(LIMIT_BYTES // MIB):
            z = Kept(session.id())
            if session.run(session.call(z.id, "Tensor.sin", y), frees=[y.id]).errors:
                break
            y = z
        else:
            raise AssertionError("graphs did not count")
        assert session.held()[1] < LIMIT_BYTES // 10, "all but the last result were let go"


@pytest.fixture
def used() -> list[int]:
    """What a process is said to have."""
    return [0]


@pytest.fixture
def room(used: list[int]) -> Room:
    """Room for 800 bytes, of which 100 are in reserve."""
    return Room(800, measure=lambda: used[0], kept=lambda: 0)


def test_a_room_is_full_before_what_is_in_reserve_is_used(room: Room, used: list[int]) -> None:
    changes: list[bool] = []
    room.on_change = changes.append
    used[0] = 700
    room.look()
    room.check("ones")
    used[0] = 799
    room._look_at = 0
    room.look()
    with pytest.raises(Exhausted, match="ones: the server has 799 bytes for all that it holds, of 800") as refusal:
        room.check("ones")
    assert refusal.value.details == {"limit": "800", "used": "799"}
    used[0] = 100
    room._rest_until = 0.0
    room.check("ones")
    assert changes == [True, False]


def test_what_is_kept_for_others_is_given_back_before_anything_is_refused(room: Room, used: list[int]) -> None:
    def trim() -> None:
        used[0] = 300

    room.trim = trim
    used[0] = 799
    room.look()
    assert not room.is_full


def test_a_server_that_is_told_nothing_has_a_limit() -> None:
    room = Room()
    assert room.used_bytes < room.limit_bytes
    assert Room(engines=4).limit_bytes <= room.limit_bytes
