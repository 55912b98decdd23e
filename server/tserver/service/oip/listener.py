"""The gRPC server that the protocol is on: a port of its own, since its clients send messages of up to 2 GiB.

Binds methods to RPCs; turns errors into statuses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor

from tensorcompute.oip import inference_pb2 as oip
from tserver.config import Config
from tserver.service import ports
from tserver.service.binding import parse
from tserver.service.calls import Context
from tserver.service.health import Health
from tserver.service.oip.errors import oip_code_of
from tserver.service.oip.inference import MAX_MESSAGE_BYTES
from tserver.service.oip.servicer import InferenceServicer
from tserver.service.rpc_counts import RpcCounts
from tserver.service.status import abort

if TYPE_CHECKING:
    from tserver.engine.models import ModelDoor

SERVICE = oip.DESCRIPTOR.services_by_name["GRPCInferenceService"]
# They read and write bytes: see `wire`.
_BY_BYTES = frozenset({"ModelInfer", "ModelStreamInfer"})


class OipListener:
    """The listener of one server."""

    def __init__(self, config: Config, door: ModelDoor, rpcs: RpcCounts | None) -> None:
        """With `rpcs`, what is asked of it is counted there."""
        self._config = config
        self._servicer = InferenceServicer(config, door)
        self._server = grpc.aio.server(options=ports.options(MAX_MESSAGE_BYTES))
        self._health = Health(self._server, [SERVICE.full_name])
        handler = bind(self._servicer)
        self._server.add_generic_rpc_handlers((handler if rpcs is None else rpcs.counting(handler),))

    async def start(self) -> str:
        """Listen; the address. Raises: ValueError, OSError where that cannot be."""
        server = self._server
        address = ports.listen(server, "--oip-listen", self._config.oip_listen, self._config)
        await server.start()
        await self._health.say_serving()
        return address

    async def drain(self) -> None:
        """Say that no more requests are wanted; those that come are answered still."""
        self._servicer.is_ready = False
        await self._health.say_stopping()

    async def stop(self, grace_s: float) -> None:
        """End, once the requests under way are answered or the time is up."""
        await self._server.stop(grace_s)


def bind(servicer: InferenceServicer) -> grpc.GenericRpcHandler:
    """Handlers for all RPCs of the service."""
    handlers = {method.name: _handler(method, getattr(servicer, method.name)) for method in SERVICE.methods}
    return grpc.method_handlers_generic_handler(SERVICE.full_name, handlers)


def _handler(method: MethodDescriptor, function: Callable[..., Awaitable[Any]]) -> grpc.RpcMethodHandler[Any, Any]:
    kind = message_factory.GetMessageClass(method.input_type)
    by_bytes = method.name in _BY_BYTES

    async def guarded(argument: Any, context: Context) -> Any:
        try:
            if by_bytes:
                return await function(argument, context)
            return (await function(parse(kind, argument), context)).SerializeToString()
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except Exception as error:
            await abort(context, error, oip_code_of)

    if method.client_streaming:
        return grpc.stream_stream_rpc_method_handler(guarded)
    return grpc.unary_unary_rpc_method_handler(guarded)
