"""A server in this process that knows its callers: by a header that says who they are, which it believes.

How callers are really known is tested elsewhere; here it is what becomes of those who are.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tests.support.in_memory import PEER, InMemoryChannel, serving_in_memory
from tests.support.raw import Raw
from tserver.config import Config
from tserver.engine.engine import Engine
from tserver.engines.in_process import InProcessEngine
from tserver.errors import Unauthenticated
from tserver.front.authentication import Headers, Unconfigured, host_of, is_loopback
from tserver.front.binding import bind
from tserver.front.health import Health
from tserver.front.http.messages import HttpRequest, Routes
from tserver.front.interceptor import Interceptor
from tserver.front.oip.listener import BY_BYTES, SERVICE
from tserver.front.oip.routes import InferenceRoutes
from tserver.front.oip.service import Service
from tserver.front.oip.servicer import InferenceServicer
from tserver.front.rpc import OPEN
from tserver.identity import Identity, Role

OIP_METHODS = {method.name: method for method in SERVICE.methods}
TIMEOUT_S = 20.0


class Believing(Unconfigured):
    """Believes what the header says: "Bearer NAME" or "Bearer NAME ROLE"."""

    def identify(self, peer: str, headers: Headers, certificate: Mapping[str, list[bytes]]) -> Identity:
        """See Authenticator."""
        said = headers.get("authorization")
        if said is None:
            raise Unauthenticated("no valid credentials")
        _, name, *role = str(said).split()
        rank = Role[role[0].upper()] if role else Role.USER
        return Identity(name, rank, "token", host_of(peer), is_loopback(peer))


class Server:
    """One that is served in memory, with the Open Inference Protocol over both its wires."""

    def __init__(self, channel: InMemoryChannel, loop: asyncio.AbstractEventLoop, http: Any) -> None:
        self._channel = channel
        self._loop = loop
        self._http = http

    def raw(self, name: str, role: str = "", peer: str = PEER) -> Raw:
        """A connection of a principal; without a name, of nobody who is known."""
        headers = (("authorization", f"Bearer {name} {role}".strip()),) if name else ()
        return Raw("in memory", channel=InMemoryChannel(self._channel.server, headers, peer))

    def http(self, name: str, method: str, path: str, told: Any = None, role: str = "") -> tuple[int, Any]:
        """What a request of a principal over HTTP is answered: the status, and the JSON."""
        body = [b"" if told is None else json.dumps(told).encode(), b""]

        async def read() -> bytes:
            return body.pop(0) if body else b""

        headers = {"Authorization": f"Bearer {name} {role}".strip()}
        request = HttpRequest(method, path, "", headers, PEER, read, lambda size: None)
        answer = asyncio.run_coroutine_threadsafe(self._http(request), self._loop).result(TIMEOUT_S)
        return answer.status, json.loads(b"".join(bytes(part) for part in answer.body) or b"null")


def oip(raw: Raw, method: str, **fields: Any) -> Any:
    """Call an RPC of the protocol."""
    return oip_call(raw, method, message_of(OIP_METHODS[method], **fields))


def oip_call(raw: Raw, method: str, request: Message) -> Any:
    """The same with a request that is made; all responses of a stream."""
    described = OIP_METHODS[method]
    parse = GetMessageClass(described.output_type).FromString
    path = f"/{SERVICE.full_name}/{method}"
    if described.server_streaming:
        return list(raw.channel.stream_stream(path, None, parse)(iter([request.SerializeToString()]), TIMEOUT_S))
    return raw.channel.unary_unary(path, None, parse)(request.SerializeToString(), TIMEOUT_S)


def message_of(method: MethodDescriptor, **fields: Any) -> Message:
    """A request."""
    return GetMessageClass(method.input_type)(**fields)


@contextlib.contextmanager
def serving_principals(data_dir: Path | None = None, *, known: bool = True, **settings: Any) -> Iterator[Server]:
    """Such a server; one that knows nobody by credentials where it is not `known` who comes."""
    made: list[tuple[asyncio.AbstractEventLoop, Any]] = []
    stores: list[Any] = []

    def also(engine: InProcessEngine, interceptor: Interceptor) -> Sequence[grpc.GenericRpcHandler]:
        service = Service(config, engine.models, Health(grpc.aio.server(), ()))
        http = interceptor.http(Routes(InferenceRoutes(config, service).routes()))
        stores.append(engine.models._store)
        made.append((asyncio.get_running_loop(), http))
        return (bind(SERVICE, InferenceServicer(service), BY_BYTES),)

    config = Config(
        device="cpu",
        data_dir=str(data_dir or ""),
        oip_model_control=True,
        oip_shared_memory=True,
        **settings,
    )
    authenticator = Believing() if known else OPEN
    with pytest.MonkeyPatch.context() as patch:
        # The settings of torch in this process are left alone.
        patch.setattr(Engine, "_prepare", lambda self: None)
        with serving_in_memory(config, authenticator, also) as channel:
            yield Server(channel, *made[0])
        if data_dir is not None:
            # A process that ends lets go of it.
            stores[0].close()
