"""A few kilobytes that are many megabytes out of their compression: what they take is bounded before it is taken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from tensorcompute.oip import inference_pb2 as oip
from tests.support.listeners import listener
from tests.support.raw import Raw
from tests.support.serving import ServerProcess, serving
from tserver.config import Config
from tserver.errors import DeadlineExceeded, Exhausted, InvalidArgument
from tserver.front.oip.gate import Gate

MIB = 1 << 20
Code = grpc.StatusCode
INFER = "/inference.GRPCInferenceService/ModelInfer"
LIVE = "/inference.GRPCInferenceService/ServerLive"


@pytest.fixture(scope="module")
def small() -> Iterator[ServerProcess]:
    """A server that may take 600 MiB, and messages of 32."""
    limits = ("--max-memory-bytes", str(600 * MIB), "--oip-max-message-bytes", str(32 * MIB))
    with serving(*limits, "--oip-listen", "127.0.0.1:0") as server:
        yield server


def bombed(address: str, size: int) -> Code:
    """What becomes of a message of so many zeros, compressed."""
    options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(address, compression=grpc.Compression.Gzip, options=options) as channel:
        try:
            multi: Any = channel.unary_unary(INFER)
            multi(bytes(size), timeout=60.0)
        except grpc.RpcError as error:
            code: Code = error.code()
            return code
    return Code.OK


@pytest.mark.parametrize(
    ("size", "count", "code"),
    [(31 * MIB, 12, Code.INVALID_ARGUMENT), (100 * MIB, 4, Code.RESOURCE_EXHAUSTED)],
    ids=["as large as allowed", "larger"],
)
def test_a_flood_of_compressed_messages_does_not_end_the_server(
    small: ServerProcess, size: int, count: int, code: Code
) -> None:
    with Raw(small.address) as raw:
        boot = raw.ask("GetServerInfo").boot_id
        address = listener(small, "oip")
        with ThreadPoolExecutor(4) as pool:
            codes = set(pool.map(lambda _: bombed(address, size), range(count)))
        assert codes == {code}
        assert raw.ask("GetServerInfo").boot_id == boot
        with grpc.insecure_channel(address) as channel:
            live = channel.unary_unary(LIVE, oip.ServerLiveRequest.SerializeToString, oip.ServerLiveResponse.FromString)
            assert live(oip.ServerLiveRequest(), timeout=20.0).live


class _Inference:
    """Answers when it is let."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def ModelInfer(self, data: bytes, rpc: Any) -> bytes:
        await self.go.wait()
        return data[:1]

    async def ModelStreamInfer(self, messages: AsyncIterator[bytes], rpc: Any) -> None:
        await self.go.wait()


class _Caller:
    """An RPC whose message comes when that is said."""

    def __init__(self, message: Any = None) -> None:
        self._message = message
        self.read_begun = asyncio.Event()

    async def read(self) -> Any:
        self.read_begun.set()
        if self._message is None:
            await asyncio.Event().wait()
        return self._message


CONFIG = Config(max_memory_bytes=8 * 4 * 100, oip_max_message_bytes=100)


def gate(turn_s: float = 60.0) -> tuple[Gate, Any, Any, _Inference]:
    """A gate for messages of 100 bytes, of which 800 may be there; and its two methods."""
    inference = _Inference()
    made = Gate(inference, CONFIG, turn_s)
    handlers = made.handlers()
    return made, handlers["ModelInfer"].stream_unary, handlers["ModelStreamInfer"].stream_stream, inference


def test_no_more_messages_are_asked_for_at_once_than_there_is_memory_for() -> None:
    async def run() -> None:
        made, infer, _, inference = gate()
        silent = [_Caller() for _ in range(made.turns)]
        waiting = [asyncio.create_task(infer(None, caller)) for caller in silent]
        for caller in silent:
            await caller.read_begun.wait()
        late = _Caller(b"x")
        answered = asyncio.create_task(infer(None, late))
        await asyncio.wait({answered}, timeout=0.05)
        assert not late.read_begun.is_set()
        waiting[0].cancel()
        await late.read_begun.wait()
        inference.go.set()
        assert await answered == b"x"
        for task in waiting:
            task.cancel()

    asyncio.run(asyncio.wait_for(run(), 5.0))


def test_who_sends_nothing_gives_up_its_turn_when_others_wait() -> None:
    async def run() -> None:
        made, infer, _, inference = gate(turn_s=0.01)
        inference.go.set()
        callers = [_Caller() for _ in range(made.turns)]
        silent = [asyncio.create_task(infer(None, caller)) for caller in callers]
        for caller in callers:
            await caller.read_begun.wait()
        assert await infer(None, _Caller(b"x")) == b"x"
        ended, _ = await asyncio.wait(silent, return_when=asyncio.FIRST_COMPLETED)
        with pytest.raises(DeadlineExceeded, match="others wait"):
            await ended.pop()
        for task in silent:
            task.cancel()

    asyncio.run(asyncio.wait_for(run(), 5.0))


def test_all_requests_under_way_are_bounded_together() -> None:
    async def run() -> None:
        made, infer, _, inference = gate()
        held = [asyncio.create_task(infer(None, _Caller(bytes(100)))) for _ in range(8)]
        await asyncio.wait(held, timeout=0.05)
        with pytest.raises(Exhausted, match="have 800 bytes, and 100 more are too many"):
            await infer(None, _Caller(bytes(100)))
        inference.go.set()
        await asyncio.gather(*held)
        assert made._held_bytes == 0
        assert await infer(None, _Caller(bytes(100))) == b"\0"

    asyncio.run(asyncio.wait_for(run(), 5.0))


def test_streams_are_bounded_as_each_may_bring_a_message() -> None:
    async def run() -> None:
        made, _, stream, inference = gate()
        streams = [asyncio.create_task(stream(None, _Caller())) for _ in range(made.turns)]
        await asyncio.sleep(0)
        with pytest.raises(Exhausted, match="streams are open"):
            await stream(None, _Caller())
        inference.go.set()
        await asyncio.gather(*streams)
        await stream(None, _Caller())

    asyncio.run(asyncio.wait_for(run(), 5.0))


def test_a_request_without_a_message_is_refused() -> None:
    async def run() -> None:
        _, infer, _, _ = gate()
        with pytest.raises(InvalidArgument, match="no message"):
            await infer(None, _Caller(grpc.aio.EOF))

    asyncio.run(asyncio.wait_for(run(), 5.0))
