"""The RPCs by which the front moves models between the engines of a house, and tells each where they are.

No part of the contract: processes of one house are of one version.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import grpc

from tserver.errors import Unauthenticated
from tserver.front.replicas.messages import batching_of, packed, receive, send, unpacked
from tserver.front.rpc import Rpc
from tserver.models.requests import Given

if TYPE_CHECKING:
    from tserver.engines.port import Engine
    from tserver.front.replicas.elsewhere import Elsewhere

SERVICE = "tensorcompute.house.models"


class ReplicaService:
    """The models of this engine, for the front."""

    def __init__(self, engine: Engine, elsewhere: Elsewhere) -> None:
        self._models = engine.models
        self._replicas = engine.replicas
        self._elsewhere = elsewhere

    def handler(self) -> grpc.GenericRpcHandler:
        """What the server is to be given."""
        unary, stream_stream = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Export": grpc.unary_stream_rpc_method_handler(_within(self._export)),
            "Prepare": grpc.stream_unary_rpc_method_handler(_within(self._prepare)),
            "Commit": unary(_within(self._commit)),
            "Drop": unary(_within(self._drop)),
            "Tell": unary(_within(self._tell)),
            "Infer": unary(_within(self._infer)),
            "InferMuch": stream_stream(_within(self._infer_much)),
        }
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    async def _export(self, request: bytes, rpc: Rpc) -> None:
        asked = json.loads(request)
        _, manifest, data = await self._replicas.parts(asked["name"], asked["version"])
        await send(rpc.write, {"manifest": manifest, "bytes": len(data)}, [data])

    async def _prepare(self, _: AsyncIterator[bytes], rpc: Rpc) -> bytes:
        told, data = await receive(rpc.read)
        await self._replicas.prepare(
            told["name"],
            told["version"],
            told["manifest"],
            data,
            batching_of(told["batching"]),
            told["replicas"],
            is_persistent=told["is_persistent"],
            owner=told["owner"],
        )
        return b""

    async def _commit(self, request: bytes, rpc: Rpc) -> bytes:
        asked = json.loads(request)
        served = await self._models.whole(self._replicas.commit(asked["name"], asked["version"]))
        return served.summary().SerializeToString()

    async def _drop(self, request: bytes, rpc: Rpc) -> bytes:
        asked = json.loads(request)
        self._replicas.drop(asked["name"], asked["version"])
        return b""

    async def _tell(self, request: bytes, rpc: Rpc) -> bytes:
        """What there is in the house, and what of that is on disk: that is not kept in memory when it is unloaded."""
        told = json.loads(request)
        self._elsewhere.tell(told["names"], is_all=told["is_all"])
        for served in self._models.registry.index():
            known = told["names"].get(served.name, {"versions": {}})["versions"].get(str(served.version))
            if known is not None:
                served.is_persistent, served.replicas = known["is_persistent"], known["replicas"]
        return b""

    async def _infer(self, request: bytes, rpc: Rpc) -> bytes:
        return packed(*await self._outputs(*unpacked(request), rpc))

    async def _infer_much(self, _: AsyncIterator[bytes], rpc: Rpc) -> None:
        await send(rpc.write, *await self._outputs(*await receive(rpc.read), rpc))

    async def _outputs(self, told: dict[str, Any], data: memoryview, rpc: Rpc) -> tuple[dict[str, Any], Sequence[Any]]:
        served = self._models.registry.find_here(told["name"], told["version"])
        given, start = {}, 0
        for each in told["inputs"]:
            end = start + each["bytes"]
            given[each["name"]] = Given(each["dtype"], each["shape"], data[start:end])
            start = end
        request = self._models.request_by_name(served, given)
        request.priority, request.timeout_us = told["priority"], told["timeout_us"]
        request.deadline = rpc.deadline
        await self._models.run(served, request, told["principal"])
        assert request.outputs is not None
        shapes = [list(shape) for shape in request.output_shapes]
        sizes = [len(output) for output in request.outputs]
        return {"shapes": shapes, "bytes": sizes}, request.outputs


def _within(method: Callable[[Any, Rpc], Awaitable[Any]]) -> Callable[[Any, Rpc], Awaitable[Any]]:
    async def answered(request: Any, rpc: Rpc) -> Any:
        if not rpc.is_of_house:
            raise Unauthenticated("this is for the processes of the house alone")
        return await method(request, rpc)

    return answered
