"""What a server refuses for now, before it is run, the client asks for again; and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest

from tclient._exceptions import OutOfMemoryError, ServerBusy, TensorError
from tclient._transport import patience
from tclient._transport.channel import TENSOR_SERVICE, Channel
from tensorcompute.v1 import tensor_service_pb2 as rpc
from tserver import errors
from tserver.front.status import code_of, trailers


class Refusing:
    """A server that refuses a number of times, and then answers."""

    def __init__(self) -> None:
        self.times = 0
        self.asked = 0
        self.error: errors.ServerError = errors.Exhausted("too much waits", retry_after_s="0.01")
        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        handlers: dict[str, Any] = {
            "OpenSession": grpc.unary_unary_rpc_method_handler(
                self._answer(rpc.OpenSessionResponse(boot_id="b")),
                request_deserializer=rpc.OpenSessionRequest.FromString,
                response_serializer=rpc.OpenSessionResponse.SerializeToString,
            ),
            "GetServerInfo": grpc.unary_unary_rpc_method_handler(
                self._answer(rpc.GetServerInfoResponse(boot_id="b")),
                request_deserializer=rpc.GetServerInfoRequest.FromString,
                response_serializer=rpc.GetServerInfoResponse.SerializeToString,
            ),
        }
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("tensorcompute.v1.TensorService", handlers)]
        )
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def _answer(self, message: Any) -> Callable[[Any, Any], Any]:
        def answer(_: Any, context: Any) -> Any:
            self.asked += 1
            if self.asked <= self.times:
                context.set_trailing_metadata(trailers(self.error))
                context.abort(code_of(self.error), self.error.message)
            return message

        return answer

    def stop(self) -> None:
        """End it."""
        self._server.stop(None)


@pytest.fixture
def server() -> Iterator[Refusing]:
    """Such a server."""
    made = Refusing()
    yield made
    made.stop()


@pytest.fixture
def channel(server: Refusing) -> Iterator[Channel]:
    """A channel to it."""
    made = Channel(server.address)
    yield made
    made.close()


def _info(channel: Channel, timeout_s: float = 20.0) -> rpc.GetServerInfoResponse:
    found: rpc.GetServerInfoResponse = channel.call(
        TENSOR_SERVICE + "GetServerInfo", rpc.GetServerInfoRequest(), rpc.GetServerInfoResponse, timeout_s=timeout_s
    )
    return found


ASKS: dict[str, Callable[[Channel, float], Any]] = {
    "OpenSession": lambda channel, timeout_s: channel.open_session("test", timeout_s),
    "a unary RPC": _info,
}


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
def test_what_was_refused_for_now_is_asked_for_again(
    server: Refusing, channel: Channel, ask: Callable[[Channel, float], Any]
) -> None:
    server.times = 3
    assert ask(channel, 20.0).boot_id == "b"
    assert server.asked == 4


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
def test_a_busy_server_is_told_of_when_the_time_is_up_with_what_was_tried(
    server: Refusing, channel: Channel, ask: Callable[[Channel, float], Any]
) -> None:
    server.times = 1000
    with pytest.raises(ServerBusy, match=r"too much waits \(asked \d+ times in 0\.\d s\)"):
        ask(channel, 0.4)
    assert server.asked > 1


NEVER = {
    "memory that is short": (errors.Exhausted("full", reason="OUT_OF_MEMORY", retry_after_s="0.01"), OutOfMemoryError),
    "a limit that time does not move": (errors.Exhausted("full"), ServerBusy),
    "what the server failed at": (errors.ServerError("it broke"), TensorError),
}


@pytest.mark.parametrize(("error", "raised"), NEVER.values(), ids=NEVER)
def test_what_names_no_time_or_may_have_run_is_not_asked_for_again(
    server: Refusing, channel: Channel, error: errors.ServerError, raised: type[TensorError]
) -> None:
    server.times, server.error = 1, error
    with pytest.raises(raised):
        _info(channel)
    assert server.asked == 1


def test_a_time_beyond_that_of_the_call_is_not_waited_for(server: Refusing, channel: Channel) -> None:
    server.times, server.error = 1, errors.Exhausted("later", retry_after_s="3600")
    with pytest.raises(ServerBusy, match=r"later$"):
        _info(channel)
    assert server.asked == 1


def test_waits_grow_and_differ_by_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    spreads: list[float] = []

    def sleep(seconds: float) -> None:
        nonlocal now
        now += max(seconds, 1e-9)

    def chance(low: float, high: float) -> float:
        spreads.append(high - low)
        return high

    monkeypatch.setattr("tclient._transport.patience.time.monotonic", lambda: now)
    monkeypatch.setattr("tclient._transport.patience.time.sleep", sleep)
    monkeypatch.setattr("tclient._transport.patience.random.uniform", chance)
    tried = patience.Patience(60.0)
    waits = []
    for _ in range(4):
        began = now
        assert tried.wait(0.1)
        waits.append(now - began)
    assert spreads == [pytest.approx(0.1 * 2**number) for number in range(4)]
    assert waits == [pytest.approx(0.1 + spread) for spread in spreads]


def test_an_interrupt_ends_the_wait_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tclient._transport.patience.time.sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        patience.Patience(60.0).wait(30.0)
