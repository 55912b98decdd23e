"""The RPC that a stream runs on: messages both ways, in either of the two ways to issue it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest

import tclient
from tclient._session import current as _state
from tclient._transport import duplex as _duplex
from tclient._transport.duplex import Direct, Documented, Duplex, open_duplex
from tests.support.serving import ServerProcess, wait_until

METHOD = "/test.Echo/Talk"
Open = Callable[[bytes], Duplex]
KINDS: dict[str, Any] = {"direct": Direct, "documented": Documented}


class Echo:
    """Answers each message but the first with itself; what a message says is done before."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.go_on = threading.Event()

    def talk(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """The method."""
        if next(requests) == b"deaf":
            self.go_on.wait(20)
        for message in requests:
            self.seen.append(message)
            if message == b"wait":
                self.go_on.wait(20)
            elif message == b"fail":
                context.set_trailing_metadata((("why", "asked"),))
                context.abort(grpc.StatusCode.ABORTED, "as was asked")
            elif message == b"end":
                return
            yield message


@pytest.fixture
def echo() -> Iterator[Echo]:
    echo = Echo()
    yield echo
    echo.go_on.set()


@pytest.fixture
def channel(echo: Echo) -> Iterator[grpc.Channel]:
    server = grpc.server(futures.ThreadPoolExecutor(4))
    handler: Any = grpc.stream_stream_rpc_method_handler(echo.talk)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", {"Talk": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    server.stop(None)


@pytest.fixture(params=list(KINDS.values()), ids=list(KINDS))
def opened(request: pytest.FixtureRequest, channel: grpc.Channel) -> Open:
    return lambda first: request.param(channel, METHOD, first)


def test_the_direct_way_is_the_one_that_is_used(channel: grpc.Channel) -> None:
    rpc = open_duplex(channel, METHOD, b"first")
    assert isinstance(rpc, Direct)
    rpc.cancel()


def test_a_channel_with_interceptors_gets_the_documented_way(channel: grpc.Channel) -> None:
    class Passing(grpc.StreamStreamClientInterceptor):
        def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
            return continuation(details, requests)

    rpc = open_duplex(grpc.intercept_channel(channel, Passing()), METHOD, b"first")
    assert isinstance(rpc, Documented)
    rpc.send(b"hello", alone=True)
    assert next(iter(rpc)) == b"hello"
    rpc.cancel()


def test_every_message_is_answered_in_order(opened: Open) -> None:
    rpc = opened(b"first")
    sent = [b"%d" % number for number in range(300)]
    for number, message in enumerate(sent):
        rpc.send(message, alone=number % 3 == 0)
    rpc.send(b"end", alone=False)
    assert list(rpc) == sent


def test_a_round_trip_at_a_time_is_answered_too(opened: Open) -> None:
    rpc = opened(b"first")
    answers = iter(rpc)
    for number in range(300):
        rpc.send(b"%d" % number, alone=number % 5 > 0)
        assert next(answers) == b"%d" % number
    rpc.cancel()


def test_an_rpc_that_fails_says_what_the_server_said(opened: Open) -> None:
    rpc = opened(b"first")
    rpc.send(b"hello", alone=True)
    rpc.send(b"fail", alone=False)
    answers: Any = iter(rpc)
    assert next(answers) == b"hello"
    with pytest.raises(grpc.RpcError) as caught:
        next(answers)
    error: Any = caught.value
    assert (error.code(), error.details()) == (grpc.StatusCode.ABORTED, "as was asked")
    assert ("why", "asked") in [tuple(pair) for pair in error.trailing_metadata()]
    rpc.send(b"too late", alone=True)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_nothing_at_the_address_is_said(kind: Any) -> None:
    with grpc.insecure_channel("127.0.0.1:1") as nowhere:
        rpc = kind(nowhere, METHOD, b"first")
        with pytest.raises(grpc.RpcError) as caught:
            list(rpc)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.UNAVAILABLE


def test_another_thread_may_end_it(opened: Open) -> None:
    rpc = opened(b"first")
    rpc.send(b"wait", alone=True)
    timer = threading.Timer(0.1, rpc.cancel)
    timer.start()
    with pytest.raises(grpc.RpcError) as caught:
        list(rpc)
    timer.join()
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.CANCELLED


def test_sending_does_not_wait_for_a_server_that_does_not_read(opened: Open, echo: Echo) -> None:
    rpc = opened(b"deaf")
    began = time.monotonic()
    for _ in range(64):
        rpc.send(bytes(1 << 20), alone=False)
    assert time.monotonic() - began < 5
    rpc.send(b"end", alone=False)
    echo.go_on.set()
    assert sum(len(message) for message in rpc) == 64 << 20


def test_a_message_behind_an_exchange_goes_when_the_answer_is_there_and_later_ones_at_once(
    channel: grpc.Channel, echo: Echo
) -> None:
    rpc = Direct(channel, METHOD, b"first")
    answers = iter(rpc)
    rpc.send(b"one", alone=True)
    assert next(answers) == b"one"
    rpc.send(b"wait", alone=True)
    rpc.send(b"two", alone=True)
    wait_until(lambda: b"wait" in echo.seen, 5.0, "the server has it")
    echo.go_on.set()
    assert [next(answers), next(answers)] == [b"wait", b"two"]
    # Several send, as it seems: from here on nobody is held up.
    echo.go_on.clear()
    rpc.send(b"wait", alone=True)
    rpc.send(b"three", alone=True)
    reader = threading.Thread(target=lambda: [next(answers) for _ in range(2)], daemon=True)
    reader.start()
    echo.go_on.set()
    reader.join(5.0)
    assert not reader.is_alive()
    rpc.cancel()


def test_a_session_works_in_the_documented_way_too(server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_duplex, "cygrpc", None)
    with tclient.connect(server.address):
        x, y = tclient.ones(4), tclient.zeros(4)
        before = _state.current().stats.waits
        for _ in range(3000):
            y = y + x
        assert y.tolist() == [3000.0] * 4
        assert _state.current().stats.waits == before + 1
