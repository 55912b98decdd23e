"""What is forwarded: all that belongs to an RPC, in both directions, and nothing that is not the caller's.

Here one end or the other does what a test says; test_forwarded_servers.py has real ones, and tests/contract goes
through a front too.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

import grpc
import pytest

from tests.support.refusals import parse
from tests.support.serving import wait_until
from tserver.errors import NotFound, ServerError, SessionLost
from tserver.front import listeners, status
from tserver.front.forwarding import Choose, Target, forwarding_handlers
from tserver.front.interceptor import Interceptor
from tserver.front.routing import SERVICES
from tserver.front.rpc import HOUSE_IDENTITY, HOUSE_KEY, Rpc
from tserver.front.rpc_counts import RpcCounts
from tserver.identity import LOCAL, Identity, Role

Code = grpc.StatusCode
SERVICE = SERVICES[0].full_name
KINDS = {
    "GetServerInfo": "unary_unary",
    "Download": "unary_stream",
    "Upload": "stream_unary",
    "ExecuteStream": "stream_stream",
}
BY_KIND = {kind: name for name, kind in KINDS.items()}
TIMEOUT_S = 20.0
KEY = "of the house"
MESSAGE = bytes(64 << 10)
# What gRPC itself may hold of one stream, in its windows and the buffers of the connections, at both hops together.
MOST_ON_THE_WAY = 48 << 20

Behaviour = Callable[[Any, Any], Awaitable[bytes | None]]


class Stage:
    """An engine that does what a test says, a front before it, and a caller, on one event loop."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.counts = RpcCounts()
        self.run(self._start())

    def run(self, scenario: Coroutine[Any, Any, None]) -> None:
        """Play a scenario to its end."""
        asyncio.run_coroutine_threadsafe(asyncio.wait_for(scenario, TIMEOUT_S), self.loop).result(TIMEOUT_S + 5)

    def call(self, kind: str) -> Any:
        """How the caller begins an RPC of a kind."""
        return getattr(self.channel, kind)(f"/{SERVICE}/{BY_KIND[kind]}")

    async def _start(self) -> None:
        self.engine: Behaviour = _silent
        self.gone: ServerError | None = None
        self.choose: Choose = lambda path, first, rpc: self.target
        self.engine_server, address = await _listening(None, self._engine_handlers())
        self.target = Target(address, key=KEY, gone=lambda: self.gone or ServerError("gone"))
        # The front counts, as it does where there are metrics.
        forwarding = forwarding_handlers(SERVICES, self._chosen)
        self.server, self.address = await _listening(Interceptor(self.counts), forwarding)
        self.channel = grpc.aio.insecure_channel(self.address, options=[("grpc.use_local_subchannel_pool", 1)])

    async def gone_later(self) -> ServerError:
        """What has become of an engine, which takes a while to be known."""
        await asyncio.sleep(0)
        assert self.gone is not None
        return self.gone

    def _chosen(self, path: str, first: bytes, rpc: Rpc) -> Target | Awaitable[Target]:
        return self.choose(path, first, rpc)

    def _engine_handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        async def engine(request: Any, context: Any) -> bytes | None:
            return await self.engine(request, context)

        handlers = {name: getattr(grpc, f"{kind}_rpc_method_handler")(engine) for name, kind in KINDS.items()}
        return (grpc.method_handlers_generic_handler(SERVICE, handlers),)

    async def stop(self) -> None:
        """End it all."""
        await self.channel.close()
        await self.server.stop(0)
        await self.target.close()
        await self.engine_server.stop(0)


async def _silent(request: Any, context: Any) -> bytes | None:
    return b""


async def _listening(
    interceptor: Interceptor | None, handlers: tuple[grpc.GenericRpcHandler, ...]
) -> tuple[grpc.aio.Server, str]:
    interceptors = [interceptor] if interceptor is not None else []
    server = grpc.aio.server(options=listeners.options(4 << 20), interceptors=interceptors)
    server.add_generic_rpc_handlers(handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, f"127.0.0.1:{port}"


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.run(made.stop())
    made.loop.call_soon_threadsafe(made.loop.stop)


async def requests(*messages: bytes) -> Any:
    for message in messages:
        yield message


async def answered(stage: Stage, kind: str, **terms: Any) -> tuple[Any, list[bytes]]:
    """A finished RPC of a kind with one request, and its responses. Raises: AioRpcError."""
    call = stage.call(kind)(requests(b"request") if kind.startswith("stream") else b"request", **terms)
    if kind.endswith("unary"):
        return call, [await call]
    return call, [message async for message in call]


async def answer(kind: str, context: Any) -> bytes | None:
    """What an engine does that answers with one response."""
    if kind.endswith("unary"):
        return b"response"
    await context.write(b"response")
    return None


every_kind = pytest.mark.parametrize("kind", BY_KIND)
answers_many = pytest.mark.parametrize("kind", [kind for kind in BY_KIND if kind.endswith("stream")])


@every_kind
def test_messages_and_metadata_go_both_ways(stage: Stage, kind: str) -> None:
    seen: dict[str, Any] = {}

    async def engine(request: Any, context: Any) -> bytes | None:
        seen["request"] = request if isinstance(request, bytes) else [message async for message in request]
        seen["metadata"] = [tuple(pair) for pair in context.invocation_metadata()]
        await context.send_initial_metadata((("head", "1"), ("head", "2"), ("head-bin", b"\x00\xff")))
        context.set_trailing_metadata((("tail", "x y"), ("tail-bin", b"\xff")))
        return await answer(kind, context)

    async def caller() -> None:
        sent = (("mine", "a"), ("mine", "b"), ("mine-bin", b"\x00\x01"), ("traceparent", "00-1-2-03"))
        call, responses = await answered(stage, kind, metadata=sent)
        assert responses == [b"response"]
        assert seen["request"] == ([b"request"] if kind.startswith("stream") else b"request")
        # gRPC has an order of its own for different keys.
        assert sorted(pair for pair in seen["metadata"] if pair in sent) == sorted(sent)
        assert [value for key, value in seen["metadata"] if key == "mine"] == ["a", "b"]
        assert list(await call.initial_metadata()) == [("head", "1"), ("head", "2"), ("head-bin", b"\x00\xff")]
        assert list(await call.trailing_metadata()) == [("tail", "x y"), ("tail-bin", b"\xff")]
        assert await call.code() is Code.OK

    stage.engine = engine
    stage.run(caller())


@every_kind
def test_the_engine_is_told_who_calls_by_the_front_alone(stage: Stage, kind: str) -> None:
    seen: list[tuple[str, Any]] = []

    async def engine(request: Any, context: Any) -> bytes | None:
        seen.extend(tuple(pair) for pair in context.invocation_metadata())
        return await answer(kind, context)

    async def caller() -> None:
        forged = ((HOUSE_KEY, KEY), (HOUSE_IDENTITY, Identity("somebody").to_bytes()))
        await answered(stage, kind, metadata=forged)
        told = [pair for pair in seen if pair[0].startswith("tensorcompute-")]
        mine = Identity(LOCAL, Role.ADMIN, host="loopback", is_local=True)
        assert told == [(HOUSE_KEY, KEY), (HOUSE_IDENTITY, mine.to_bytes())]
        assert len([key for key, _ in seen if key == "user-agent"]) == 1

    stage.engine = engine
    stage.run(caller())


@every_kind
@pytest.mark.parametrize("details", ["", "a line", "größer als π, 100 %\n\tand more\r\n", "x" * 3000], ids=len)
def test_a_status_is_told_as_the_engine_gives_it(stage: Stage, kind: str, details: str) -> None:
    trailer = (("grpc-status-details-bin", bytes(range(256)) * 8), ("tail", "1"), ("tail", "2"))

    async def engine(request: Any, context: Any) -> bytes | None:
        await context.send_initial_metadata((("head", "1"),))
        if kind.endswith("stream"):
            await context.write(b"before")
        await context.abort(Code.DATA_LOSS, details, trailer)
        return None

    async def caller() -> None:
        with pytest.raises(grpc.aio.AioRpcError) as told:
            await answered(stage, kind)
        error = told.value
        assert (error.code(), error.details()) == (Code.DATA_LOSS, details)
        assert tuple(error.trailing_metadata() or ()) == trailer
        assert tuple(error.initial_metadata() or ()) == (("head", "1"),)

    stage.engine = engine
    stage.run(caller())


@pytest.mark.parametrize("kind", ["stream_unary", "stream_stream"])
@pytest.mark.parametrize("size", [100, 100_000], ids=["small messages", "large messages"])
def test_an_engine_that_ends_an_rpc_while_its_caller_sends_is_heard(stage: Stage, kind: str, size: int) -> None:
    async def engine(request: Any, context: Any) -> bytes | None:
        await context.read()
        if kind == "stream_stream":
            await context.write(b"first")
            await context.write(b"second")
        await context.abort(Code.ABORTED, "another one has taken over", (("tail", "1"),))
        return None

    stage.engine = engine
    # Not by grpc.aio, which has the very fault as a client that the front avoids.
    with grpc.insecure_channel(stage.address) as channel:
        method: Any = channel.stream_stream(f"/{SERVICE}/{BY_KIND[kind]}")
        for _ in range(30):
            responses: list[bytes] = []
            with pytest.raises(grpc.RpcError) as told:
                responses.extend(method(itertools.repeat(bytes(size)), timeout=TIMEOUT_S))
            error: Any = told.value
            assert (error.code(), error.details()) == (Code.ABORTED, "another one has taken over")
            assert ("tail", "1") in [tuple(pair) for pair in error.trailing_metadata()]
            assert responses == ([b"first", b"second"] if kind == "stream_stream" else [])


@answers_many
def test_responses_before_an_error_arrive(stage: Stage, kind: str) -> None:
    async def engine(request: Any, context: Any) -> None:
        for number in range(100):
            await context.write(b"%d" % number)
        await context.abort(Code.INTERNAL, "in the middle")

    async def caller() -> None:
        call = stage.call(kind)(requests(b"") if kind.startswith("stream") else b"")
        responses: list[bytes] = []
        with pytest.raises(grpc.aio.AioRpcError, match="in the middle"):
            await _read_on(call, responses)
        assert responses == [b"%d" % number for number in range(100)]

    stage.engine = engine
    stage.run(caller())


def test_a_half_closed_stream_is_answered(stage: Stage) -> None:
    async def engine(request: Any, context: Any) -> None:
        received = [message async for message in request]
        for message in received:
            await context.write(message)

    async def caller() -> None:
        call = stage.call("stream_stream")()
        for number in range(10):
            await call.write(b"%d" % number)
        await call.done_writing()
        assert [message async for message in call] == [b"%d" % number for number in range(10)]
        call = stage.call("stream_stream")()
        await call.done_writing()
        assert [message async for message in call] == [], "an empty stream has no first message"

    stage.engine = engine
    stage.run(caller())


def test_a_stream_is_a_conversation(stage: Stage) -> None:
    async def engine(request: Any, context: Any) -> None:
        async for message in request:
            await context.write(message * 2)

    async def caller() -> None:
        call = stage.call("stream_stream")()
        for number in range(10):
            await call.write(b"%d" % number)
            assert await call.read() == b"%d" % number * 2
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF

    stage.engine = engine
    stage.run(caller())


@every_kind
def test_a_deadline_goes_along(stage: Stage, kind: str) -> None:
    remaining: list[float | None] = []

    async def engine(request: Any, context: Any) -> bytes | None:
        remaining.append(context.time_remaining())
        return await answer(kind, context)

    async def caller() -> None:
        await answered(stage, kind, timeout=100.0)
        await answered(stage, kind)
        first, second = remaining
        assert first is not None
        # gRPC rounds up what it sends.
        assert 90.0 < first < 103.0
        assert second is None

    stage.engine = engine
    stage.run(caller())


@every_kind
@pytest.mark.parametrize("end", ["cancelled", "too late"])
def test_an_rpc_that_its_caller_ends_ends_at_the_engine(stage: Stage, kind: str, end: str) -> None:
    async def caller() -> None:
        begun, ended = asyncio.Event(), asyncio.Event()

        async def engine(request: Any, context: Any) -> None:
            if kind.startswith("stream"):
                await context.read()
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        stage.engine = engine
        terms = {"timeout": 0.5} if end == "too late" else {}
        call = stage.call(kind)(**terms) if kind.startswith("stream") else stage.call(kind)(b"", **terms)
        if kind.startswith("stream"):
            await call.write(b"")
        await begun.wait()
        if end == "cancelled":
            call.cancel()
        await ended.wait()
        assert await call.code() is (Code.CANCELLED if end == "cancelled" else Code.DEADLINE_EXCEEDED)

    stage.run(caller())


@answers_many
def test_a_caller_that_reads_slowly_holds_the_engine_back(stage: Stage, kind: str) -> None:
    total = 4096

    async def caller() -> None:
        written = 0

        async def engine(request: Any, context: Any) -> None:
            nonlocal written
            for _ in range(total):
                await context.write(MESSAGE)
                written += 1

        stage.engine = engine
        call = stage.call(kind)(requests(b"") if kind.startswith("stream") else b"")
        assert await call.read() == MESSAGE
        await _at_rest(lambda: written)
        assert written * len(MESSAGE) < MOST_ON_THE_WAY
        rest = 1
        while await call.read() is not grpc.aio.EOF:
            rest += 1
        assert (rest, written) == (total, total)

    stage.run(caller())


@pytest.mark.parametrize("kind", ["stream_unary", "stream_stream"])
def test_an_engine_that_reads_slowly_holds_its_caller_back(stage: Stage, kind: str) -> None:
    total = 4096

    async def caller() -> None:
        written = 0
        go_on = asyncio.Event()

        async def engine(request: Any, context: Any) -> bytes | None:
            await go_on.wait()
            received = 0
            async for _ in request:
                received += 1
            if kind == "stream_unary":
                return b"%d" % received
            await context.write(b"%d" % received)
            return None

        async def endless() -> Any:
            nonlocal written
            for _ in range(total):
                yield MESSAGE
                written += 1

        stage.engine = engine
        call = stage.call(kind)(endless())
        await _at_rest(lambda: written)
        assert 0 < written * len(MESSAGE) < MOST_ON_THE_WAY
        go_on.set()
        assert (await call if kind == "stream_unary" else await call.read()) == b"%d" % total

    stage.run(caller())


async def _read_on(call: Any, responses: list[bytes]) -> None:
    """Read all responses; those before an error count."""
    async for message in call:
        responses.append(message)  # noqa: PERF401


async def _at_rest(count: Callable[[], int]) -> None:
    """Wait until a count has begun and does not go on."""
    seen = -1
    while not count() or count() != seen:
        seen = count()
        await asyncio.sleep(0.3)


@every_kind
def test_who_chooses_may_wait_and_may_refuse(stage: Stage, kind: str) -> None:
    chosen: list[tuple[str, bytes]] = []

    async def choose(path: str, first: bytes, rpc: Rpc) -> Target:
        await asyncio.sleep(0)
        chosen.append((path, first))
        if len(chosen) > 1:
            raise NotFound("no such engine", cause="of the test")
        return stage.target

    async def caller() -> None:
        await answered(stage, kind)
        assert chosen == [(f"/{SERVICE}/{BY_KIND[kind]}", b"request")]
        with pytest.raises(grpc.aio.AioRpcError) as told:
            await answered(stage, kind)
        refusal = parse(told.value)
        assert (refusal.code, refusal.reason, refusal.metadata) == (
            Code.NOT_FOUND,
            "NOT_FOUND",
            {"cause": "of the test"},
        )

    stage.choose = choose
    stage.engine = lambda request, context: answer(kind, context)
    stage.run(caller())


@every_kind
@pytest.mark.parametrize("when", ["before", "meanwhile", "never there"])
def test_of_an_engine_that_is_gone_the_cause_is_told(stage: Stage, kind: str, when: str) -> None:
    stage.gone = SessionLost("the session ended with its engine: of the test", cause="of the test")

    async def caller() -> None:
        begun = asyncio.Event()

        async def engine(request: Any, context: Any) -> None:
            begun.set()
            await asyncio.Event().wait()

        stage.engine = engine
        target = stage.target
        if when == "never there":
            nowhere = target = Target("127.0.0.1:1", gone=stage.gone_later)
            stage.choose = lambda path, first, rpc: nowhere
        elif when == "before":
            await target.close()
        asking = asyncio.create_task(answered(stage, kind))
        if when == "meanwhile":
            await begun.wait()
            await target.close()
        with pytest.raises(grpc.aio.AioRpcError) as told:
            await asking
        refusal = parse(told.value)
        assert (refusal.code, refusal.reason) == (Code.FAILED_PRECONDITION, "SESSION_LOST")
        assert refusal.metadata == {"cause": "of the test"}
        await target.close()

    stage.run(caller())


@every_kind
def test_without_a_cause_an_engine_is_unavailable(stage: Stage, kind: str) -> None:
    async def caller() -> None:
        nowhere = Target("127.0.0.1:1")
        stage.choose = lambda path, first, rpc: nowhere
        with pytest.raises(grpc.aio.AioRpcError) as told:
            await answered(stage, kind)
        refusal = parse(told.value)
        assert (refusal.code, refusal.reason) == (Code.UNAVAILABLE, "ENGINE_UNREACHABLE")
        assert "127.0.0.1:1 does not answer" in refusal.message
        await nowhere.close()

    stage.run(caller())


@every_kind
def test_what_is_forwarded_is_counted_as_it_ends(stage: Stage, kind: str) -> None:
    async def engine(request: Any, context: Any) -> bytes | None:
        refused = ServerError("of the test", reason="OF_THE_TEST")
        await status.abort(context, refused)
        return None

    async def caller() -> None:
        with pytest.raises(grpc.aio.AioRpcError):
            await answered(stage, kind)

    stage.engine = engine
    stage.run(caller())
    counts = stage.counts.method(SERVICE, BY_KIND[kind])
    # The caller hears of the end before it is counted.
    wait_until(lambda: bool(counts.by_code), TIMEOUT_S, "the count")
    assert (counts.by_code, counts.by_reason) == ({"INTERNAL": 1}, {"OF_THE_TEST": 1})
    assert counts.bytes_in == len(b"request")
