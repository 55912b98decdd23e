"""The real services and a real client in one process, without a socket between them.

The server's side takes the handlers and the interceptor that a listener takes, and runs them on an event loop in a
thread. The client's side is a grpc.Channel: stubs work on it unchanged, and are raised grpc.RpcErrors. Messages pass as
bytes, as on a wire. There is no flow control, and nothing is ever lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NoReturn

import grpc

from tserver.config import Config
from tserver.engines.in_process import InProcessEngine
from tserver.front.authentication import Authenticator
from tserver.front.data_endpoint import DataEndpoint, wanted_address
from tserver.front.interceptor import Interceptor
from tserver.front.rpc import OPEN
from tserver.front.server import handlers

PEER = "ipv4:127.0.0.1:1"
Metadata = Sequence[tuple[str, str | bytes]]


@dataclass(frozen=True, slots=True)
class _End:
    """How an RPC ended."""

    code: grpc.StatusCode
    details: str = ""
    trailers: Metadata = ()


@dataclass
class _Details(grpc.HandlerCallDetails):
    method: str
    invocation_metadata: Any


class Context:
    """Stands in for a grpc.aio.ServicerContext, as far as our servicers and gRPC's own use one."""

    def __init__(
        self, call: InMemoryCall, metadata: Metadata, serialise: Callable[[Any], bytes] | None, peer: str = PEER
    ) -> None:
        self._call = call
        self._metadata = tuple(metadata)
        self._peer = peer
        self._serialise = serialise
        self._requests: asyncio.Queue[Any] = asyncio.Queue()
        self._end: _End | None = None

    def receive(self, message: Any) -> None:
        """A request has come, or grpc.aio.EOF. On the event loop."""
        self._requests.put_nowait(message)

    async def read(self) -> Any:
        """The next request, or grpc.aio.EOF."""
        message = await self._requests.get()
        if message is grpc.aio.EOF:
            self._requests.put_nowait(message)
        return message

    async def write(self, message: Any) -> None:
        """Send a response."""
        self._call.received(message if self._serialise is None else self._serialise(message))

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()) -> NoReturn:
        """End the RPC."""
        self._end = _End(code, details, tuple(trailing_metadata))
        raise grpc.aio.AbortError("aborted")

    def end(self) -> _End:
        """How the RPC ended, where it was not cancelled."""
        return self._end or _End(grpc.StatusCode.OK)

    def code(self) -> grpc.StatusCode:
        """The status."""
        return self.end().code

    def trailing_metadata(self) -> Metadata:
        """What is sent behind the last response."""
        return self.end().trailers

    def invocation_metadata(self) -> Metadata:
        """What was sent before the first request."""
        return self._metadata

    def peer(self) -> str:
        """Who calls."""
        return self._peer

    def auth_context(self) -> dict[str, list[bytes]]:
        """What TLS tells of who calls."""
        return {}

    def time_remaining(self) -> float | None:
        """Seconds until the deadline."""
        return self._call.time_remaining()

    async def messages(self) -> AsyncIterator[Any]:
        """The requests, for those who do not call `read`."""
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message


class InMemoryCall(grpc.RpcError, grpc.Call, grpc.Future):
    """The client's side of one RPC: an iterator of responses, a future of one, and the error that it may be."""

    def __init__(self, parse: Callable[[bytes], Any] | None, timeout_s: float | None) -> None:
        super().__init__()
        self._parse = parse
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._responses: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._ended: Future[_End] = Future()
        # Set when it is under way.
        self.stop: Callable[[], None] = lambda: None

    # --- from the event loop ---

    def received(self, response: bytes) -> None:
        """A response has come."""
        self._responses.put(response)

    def ended(self, end: _End) -> None:
        """It is over; the first end counts."""
        if not self._ended.done():
            self._ended.set_result(end)
            self._responses.put(None)

    # --- grpc.Call ---

    def code(self) -> grpc.StatusCode:
        """The status, once it is over."""
        return self._ended.result().code

    def details(self) -> str:
        """What is said beside the status."""
        return self._ended.result().details

    def trailing_metadata(self) -> Any:
        """What came behind the last response."""
        return tuple(self._ended.result().trailers)

    def initial_metadata(self) -> Any:
        """Nothing comes before the first response."""
        return ()

    def is_active(self) -> bool:
        """Whether it is under way."""
        return not self._ended.done()

    def time_remaining(self) -> float | None:  # type: ignore[override] # without a deadline it is None, as gRPC's is
        """Seconds until the deadline."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call when it is over; False if it is."""
        if self._ended.done():
            return False
        self._ended.add_done_callback(lambda _: callback())
        return True

    def cancel(self) -> bool:
        """End it now."""
        self.ended(_End(grpc.StatusCode.CANCELLED, "Locally cancelled by application!"))
        self.stop()
        return True

    # --- grpc.Future, of an RPC with one response ---

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._ended.done() and self.code() is grpc.StatusCode.CANCELLED

    def running(self) -> bool:
        """Whether it is under way."""
        return self.is_active()

    def done(self) -> bool:
        """Whether it is over."""
        return self._ended.done()

    def result(self, timeout: float | None = None) -> Any:
        """The response. Raises: this, if the RPC failed; grpc.FutureTimeoutError."""
        error = self.exception(timeout)
        if error is not None:
            raise error
        return next(iter(self))

    def exception(self, timeout: float | None = None) -> Exception | None:
        """This, if the RPC failed."""
        try:
            end = self._ended.result(timeout)
        except TimeoutError:
            raise grpc.FutureTimeoutError from None
        return None if end.code is grpc.StatusCode.OK else self

    def traceback(self, timeout: float | None = None) -> Any:
        """Of the error."""
        error = self.exception(timeout)
        return None if error is None else error.__traceback__

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        """Call when it is over."""
        self._ended.add_done_callback(lambda _: fn(self))

    # --- an iterator of responses ---

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        response = self._responses.get()
        if response is None:
            # For who asks again.
            self._responses.put(None)
            if self.code() is grpc.StatusCode.OK:
                raise StopIteration
            raise self
        return response if self._parse is None else self._parse(response)

    def __str__(self) -> str:
        return f"<{self.code().name}: {self.details()}>" if self.done() else "<under way>"


@dataclass
class _Method:
    """One RPC of a channel: called, it gives what gRPC's multi-callables of its kind give."""

    channel: InMemoryChannel
    path: str
    serialise: Callable[[Any], bytes] | None
    parse: Callable[[bytes], Any] | None
    streams_requests: bool
    streams_responses: bool

    def __call__(self, request: Any, timeout: float | None = None, metadata: Metadata | None = None, **_: Any) -> Any:
        call = self.future(request, timeout, metadata)
        return call if self.streams_responses else call.result()

    def with_call(
        self, request: Any, timeout: float | None = None, metadata: Metadata | None = None, **_: Any
    ) -> tuple[Any, InMemoryCall]:
        """The response and the call."""
        call = self.future(request, timeout, metadata)
        return call.result(), call

    def future(
        self, request: Any, timeout: float | None = None, metadata: Metadata | None = None, **_: Any
    ) -> InMemoryCall:
        """The call, under way."""
        requests: Iterable[Any] = request if self.streams_requests else (request,)
        encoded = (each if self.serialise is None else self.serialise(each) for each in requests)
        call = InMemoryCall(self.parse, timeout)
        channel = self.channel
        channel.server.start(call, self.path, encoded, (*channel.metadata, *(metadata or ())), channel.peer)
        return call


@dataclass
class InMemoryChannel(grpc.Channel):
    """A channel to a server in this process, from a peer; its metadata goes with each RPC."""

    server: InMemoryServer
    metadata: Metadata = ()
    peer: str = PEER
    _watchers: list[Callable[[grpc.ChannelConnectivity], None]] = field(default_factory=list)

    def subscribe(
        self, callback: Callable[[grpc.ChannelConnectivity], None], try_to_connect: bool | None = False
    ) -> None:
        """It is always there."""
        self._watchers.append(callback)
        callback(grpc.ChannelConnectivity.READY)

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        """Tell no more."""
        self._watchers.remove(callback)

    def unary_unary(
        self, method: Any, request_serializer: Any = None, response_deserializer: Any = None, *_: Any
    ) -> Any:
        """See grpc.Channel."""
        return _Method(self, method, request_serializer, response_deserializer, False, False)

    def unary_stream(
        self, method: Any, request_serializer: Any = None, response_deserializer: Any = None, *_: Any
    ) -> Any:
        """See grpc.Channel."""
        return _Method(self, method, request_serializer, response_deserializer, False, True)

    def stream_unary(
        self, method: Any, request_serializer: Any = None, response_deserializer: Any = None, *_: Any
    ) -> Any:
        """See grpc.Channel."""
        return _Method(self, method, request_serializer, response_deserializer, True, False)

    def stream_stream(
        self, method: Any, request_serializer: Any = None, response_deserializer: Any = None, *_: Any
    ) -> Any:
        """See grpc.Channel."""
        return _Method(self, method, request_serializer, response_deserializer, True, True)

    def close(self) -> None:
        """Nothing is open."""

    def __enter__(self) -> InMemoryChannel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class InMemoryServer:
    """Handlers behind an interceptor, on an event loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        served: Sequence[grpc.GenericRpcHandler],
        interceptor: grpc.aio.ServerInterceptor,
    ) -> None:
        self._loop = loop
        self._served = served
        self._interceptor = interceptor
        self._tasks: set[asyncio.Task[None]] = set()

    def start(
        self, call: InMemoryCall, path: str, requests: Iterable[bytes], metadata: Metadata, peer: str = PEER
    ) -> None:
        """Begin an RPC. Its requests are taken by a thread, as gRPC takes those of a stream. From any thread."""
        opened: Future[Context | None] = Future()
        self._loop.call_soon_threadsafe(self._begin, call, _Details(path, metadata), peer, opened)
        threading.Thread(target=self._feed, args=(call, requests, opened), daemon=True).start()

    def _feed(self, call: InMemoryCall, requests: Iterable[bytes], opened: Future[Context | None]) -> None:
        context = opened.result()
        if context is None:
            return
        try:
            for request in requests:
                if not call.is_active():
                    return
                self._loop.call_soon_threadsafe(context.receive, request)
            self._loop.call_soon_threadsafe(context.receive, grpc.aio.EOF)
        except RuntimeError:
            # The loop has ended.
            call.cancel()
        except Exception as error:
            call.ended(_End(grpc.StatusCode.UNKNOWN, f"Exception iterating requests! {error!r}"))
            call.stop()

    def _begin(self, call: InMemoryCall, details: _Details, peer: str, opened: Future[Context | None]) -> None:
        task = self._loop.create_task(self._run(call, details, peer, opened))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

        def stop() -> None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(task.cancel)

        call.stop = stop

    async def _find(self, details: grpc.HandlerCallDetails) -> Any:
        return next((found for each in self._served if (found := each.service(details)) is not None), None)

    async def _run(self, call: InMemoryCall, details: _Details, peer: str, opened: Future[Context | None]) -> None:
        handler: Any = await self._interceptor.intercept_service(self._find, details)
        if handler is None:
            opened.set_result(None)
            call.ended(_End(grpc.StatusCode.UNIMPLEMENTED, "Method not found!"))
            return
        context = Context(call, details.invocation_metadata, handler.response_serializer, peer)
        opened.set_result(context)
        try:
            async with asyncio.timeout(call.time_remaining()):
                await _served(handler, context)
            call.ended(context.end())
        except TimeoutError:
            call.ended(_End(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"))
        except grpc.aio.AbortError:
            call.ended(context.end())
        except asyncio.CancelledError:
            call.ended(_End(grpc.StatusCode.CANCELLED, "cancelled"))
            raise
        except Exception as error:
            call.ended(_End(grpc.StatusCode.UNKNOWN, f"Unexpected {type(error)}: {error}"))


async def _served(handler: Any, context: Context) -> None:
    behaviour = (
        (handler.stream_stream or handler.stream_unary)
        if handler.request_streaming
        else (handler.unary_stream or handler.unary_unary)
    )
    # The wire does not know how many messages a method takes: a client may send one where it could send many.
    argument: Any = context.messages() if handler.request_streaming else await context.read()
    if not handler.request_streaming and handler.request_deserializer is not None:
        argument = handler.request_deserializer(argument)
    assert inspect.iscoroutinefunction(behaviour)
    response = await behaviour(argument, context)
    if not handler.response_streaming:
        await context.write(response)


Also = Callable[[InProcessEngine, Interceptor], Sequence[grpc.GenericRpcHandler]]


@contextlib.contextmanager
def serving_in_memory(
    config: Config, authenticator: Authenticator = OPEN, also: Also = lambda engine, interceptor: ()
) -> Iterator[InMemoryChannel]:
    """A channel to the services before an engine in this process; the authenticator says who calls, and `also` gives
    others that are served there.
    """
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, InMemoryServer]] = Future()

    def fatal(cause: str) -> None:
        raise AssertionError(cause)

    async def main() -> None:
        engine = InProcessEngine(config, previous_end="", on_fatal=fatal, beats=None)
        tensors, served = handlers(config, engine)
        interceptor = Interceptor(authenticator=authenticator)
        served = (*served, *also(engine, interceptor))
        engine.start()
        data = tensors.data_endpoint = DataEndpoint(config, wanted_address(config), interceptor.opened)
        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        started.set_result((loop, over, InMemoryServer(loop, served, interceptor)))
        await over.wait()
        data.stop()
        assert not engine.stop(10.0)

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            if not started.done():
                started.set_exception(error)
            raise

    thread = threading.Thread(target=run, name="in-memory server")
    thread.start()
    loop, over, server = started.result()
    try:
        yield InMemoryChannel(server)
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(20.0)
