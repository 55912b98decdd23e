"""What an engine of a house knows of the models that others have, and how it asks the front, which knows all.

What changes models, and forward passes of those that are not here, go to the front as they are. Where models are, the
front tells whenever that changes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc

from tensorcompute.v1 import model_service_pb2 as ms
from tserver.errors import ModelElsewhere, Unreachable
from tserver.front.forwards import failure_of
from tserver.front.replicas.upstream import Upstream
from tserver.front.rpc import HOUSE_ENGINE, Rpc, house_metadata
from tserver.front.status import error_of, is_of_connection
from tserver.models.names import bare

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from tserver.engines.house import House
    from tserver.engines.port import ServedModel
    from tserver.identity import Identity

_SERVICE = "/tensorcompute.v1.ModelService/"
_OPTIONS = (
    # The listeners have said what is too large.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", 16 << 10),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)
# A front that ended is there again after that, and how often it is looked for.
_FRONT_S = 15.0
_AGAIN_S = 0.2


@dataclass(frozen=True, slots=True)
class Known:
    """What there is of a name in the whole house."""

    latest: int
    # The engines that have a version, and whether it serves.
    engines: Mapping[int, Sequence[str]]
    ready: frozenset[int]

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Known:
        """What the front has told."""
        versions = {int(number): each for number, each in told["versions"].items()}
        ready = frozenset(number for number, each in versions.items() if each["ready"])
        return cls(told["latest"], {number: each["engines"] for number, each in versions.items()}, ready)


class Elsewhere:
    """The models of other engines, for one engine."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._loop = asyncio.get_running_loop()
        self._channel: grpc.aio.Channel | None = None
        # Replaced, not changed: who looks needs no lock.
        self._known: dict[str, Known] = {}

    # --- from any thread ---

    def has(self, name: str) -> bool:
        """See Elsewhere in the registry."""
        return name in self._known

    def check(self, name: str, version: int, here: Mapping[int, ServedModel]) -> None:
        """See Elsewhere in the registry."""
        known = self._known.get(name)
        if known is None:
            return
        number = version or known.latest
        if number not in known.ready:
            return
        served = here.get(number)
        if served is None or served.state != "READY":
            there = ", ".join(known.engines[number]) or "no engine now"
            raise ModelElsewhere(
                f"version {number} of {bare(name)!r} is on other engines than this one ({there}; this is "
                f"{self._house.engine}): give arrays in the place of tensors, or have it on more engines (replicas)"
            )

    # --- on the event loop ---

    def tell(self, told: Mapping[str, Any], *, is_all: bool) -> None:
        """The front says what there is of these names, or of all names."""
        found = {name: Known.read(each) for name, each in told.items() if each["versions"]}
        rest = {} if is_all else {name: each for name, each in self._known.items() if name not in told}
        self._known = {**rest, **found}

    async def ask(self, method: str, request: Message, rpc: Rpc) -> bytes:
        """The front's answer to a request of a caller. Raises: AioRpcError, Unreachable, as the front refuses it."""
        call: Any = self._front().unary_unary(_SERVICE + method)
        try:
            answer: bytes = await call(request.SerializeToString(), **self._terms(rpc))
        except grpc.aio.AioRpcError as told:
            raise _refusal(told) from None
        return answer

    async def pass_on(self, method: str, request: Message, rpc: Rpc) -> None:
        """The same with many answers, which are sent to the caller as they come."""
        begin: Any = self._front().unary_stream(_SERVICE + method)
        call = begin(request.SerializeToString(), **self._terms(rpc))
        try:
            while (message := await call.read()) is not grpc.aio.EOF:
                await rpc.write(message)
        except grpc.aio.AioRpcError as told:
            raise _refusal(told) from None
        finally:
            call.cancel()

    def relay(self, run: Callable[[Callable[[], None]], None], identity: Identity) -> Relay:
        """What takes forward passes of one caller to the front. `run` runs a function on the caller's thread; this is
        called from there.
        """
        metadata = (*house_metadata(self._house.key, identity), (HOUSE_ENGINE, self._house.engine))
        return Relay(self._front, metadata, run, self._loop)

    def _front(self) -> grpc.aio.Channel:
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(self._house.front, options=_OPTIONS)
        return self._channel

    def _terms(self, rpc: Rpc) -> dict[str, Any]:
        deadline = rpc.deadline
        metadata = house_metadata(self._house.key, rpc.identity)
        return {
            "metadata": (*metadata, (HOUSE_ENGINE, self._house.engine)),
            "timeout": None if deadline is None else max(0.0, deadline - time.monotonic()),
        }


class Relay:
    """Forward passes of one caller on their way to the front and back."""

    def __init__(
        self,
        front: Callable[[], grpc.aio.Channel],
        metadata: Sequence[tuple[str, str | bytes]],
        run: Callable[[Callable[[], None]], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._front = front
        self._metadata = metadata
        self._run = run
        self._loop = loop
        self._upstream: Upstream | None = None
        self._pending: dict[int, tuple[ms.MlpForwardCall, Callable[[ms.MlpForwardAnswer], None]]] = {}
        self._broken_at: float | None = None
        self._is_over = False

    # --- on the caller's thread ---

    def begin(self, call: ms.MlpForwardCall, done: Callable[[ms.MlpForwardAnswer], None]) -> None:
        """Send a request; `done` gets the answer, on this thread."""
        self._loop.call_soon_threadsafe(self._put, call, done)

    def cancel(self) -> None:
        """The caller has gone."""
        self._loop.call_soon_threadsafe(self._cancel)

    # --- on the event loop ---

    def _put(self, call: ms.MlpForwardCall, done: Callable[[ms.MlpForwardAnswer], None]) -> None:
        if self._is_over:
            return
        self._pending[call.id] = call, done
        if self._upstream is not None:
            self._upstream.put(call)
        elif self._broken_at is None:
            self._open()

    def _cancel(self) -> None:
        self._is_over = True
        self._pending.clear()
        if self._upstream is not None:
            self._upstream.cancel()

    def _open(self) -> None:
        if self._is_over or not self._pending:
            self._broken_at = None
            return
        self._upstream = Upstream(self._front(), self._metadata, self._answers, self._ended)
        for call, _ in self._pending.values():
            self._upstream.put(call)

    async def _answers(self, upstream: Upstream, answers: Sequence[ms.MlpForwardAnswer]) -> None:
        self._broken_at = None
        found = [(answer, self._pending.pop(answer.id, None)) for answer in answers]

        def tell() -> None:
            for answer, pending in found:
                if pending is not None:
                    pending[1](answer)

        self._run(tell)

    def _ended(self, upstream: Upstream, failure: Exception | None) -> None:
        """A forward pass by value may be asked for again: a front that ended comes back."""
        self._upstream = None
        now = time.monotonic()
        self._broken_at = self._broken_at or now
        is_of_front = isinstance(failure, grpc.aio.AioRpcError) and not is_of_connection(failure)
        if not is_of_front and now < self._broken_at + _FRONT_S:
            self._loop.call_later(_AGAIN_S, self._open)
            return
        error = error_of(failure) if isinstance(failure, grpc.aio.AioRpcError) else _no_front("it ended")
        failed, self._pending, self._broken_at = self._pending, {}, None

        def tell() -> None:
            for number, (_, done) in failed.items():
                done(ms.MlpForwardAnswer(id=number, failure=failure_of(error)))

        self._run(tell)


def _refusal(told: grpc.aio.AioRpcError) -> Exception:
    return _no_front(told.details() or "") if is_of_connection(told) else told


def _no_front(cause: str) -> Unreachable:
    return Unreachable(f"the front of this house, which knows all models, does not answer: {cause}; try again")
