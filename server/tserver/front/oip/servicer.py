"""The RPCs of inference.GRPCInferenceService.

A method takes the parsed request and returns the response; those of inference itself work on bytes. Errors are raised,
and become statuses in the interceptor.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import TYPE_CHECKING, Any

from tensorcompute.oip import inference_pb2 as oip
from tserver import __version__
from tserver.config import Config
from tserver.errors import InvalidArgument, NotFound, PermissionDenied, ServerError, Unimplemented
from tserver.front.oip import describe
from tserver.front.oip.inference import EMPTY_FINAL, FINAL, Answer, Caller, Inferences, parse, version_of
from tserver.front.oip.regions import Regions
from tserver.front.oip.stream import RequestStream
from tserver.front.oip.wire import join_response, join_stream_response
from tserver.front.rpc import Rpc

if TYPE_CHECKING:
    from tserver.engines.port import ModelManager, ServedModel

log = logging.getLogger("tserver.front")

_EXTENSIONS = ("model_repository", "model_configuration", "binary_tensor_data", "parameters", "statistics")
_SHARED_MEMORY = "system_shared_memory"


class InferenceServicer:
    """The RPCs of the service."""

    def __init__(self, config: Config, models: ModelManager) -> None:
        self._config = config
        self._models = models
        self._registry = models.registry
        self._inferences = Inferences(models, Regions() if config.oip_shared_memory else None)
        # Not any more once the server is told to stop.
        self.is_ready = True

    # --- the server and its models ---

    async def ServerLive(self, request: oip.ServerLiveRequest, rpc: Rpc) -> oip.ServerLiveResponse:
        """See the proto."""
        return oip.ServerLiveResponse(live=True)

    async def ServerReady(self, request: oip.ServerReadyRequest, rpc: Rpc) -> oip.ServerReadyResponse:
        """See the proto."""
        return oip.ServerReadyResponse(ready=self.is_ready)

    async def ModelReady(self, request: oip.ModelReadyRequest, rpc: Rpc) -> oip.ModelReadyResponse:
        """See the proto."""
        try:
            served = self._find(request.name, request.version)
        except NotFound:
            return oip.ModelReadyResponse(ready=False)
        return oip.ModelReadyResponse(ready=self.is_ready and served.state == "READY")

    async def ServerMetadata(self, request: oip.ServerMetadataRequest, rpc: Rpc) -> oip.ServerMetadataResponse:
        """See the proto."""
        extensions = [*_EXTENSIONS, *([_SHARED_MEMORY] if self._config.oip_shared_memory else [])]
        return oip.ServerMetadataResponse(name=describe.PLATFORM, version=__version__, extensions=extensions)

    async def ModelMetadata(self, request: oip.ModelMetadataRequest, rpc: Rpc) -> oip.ModelMetadataResponse:
        """See the proto."""
        served = self._find(request.name, request.version)
        return describe.metadata(served, self._registry.versions(served.name))

    async def ModelConfig(self, request: oip.ModelConfigRequest, rpc: Rpc) -> oip.ModelConfigResponse:
        """See the proto."""
        return oip.ModelConfigResponse(config=describe.config(self._find(request.name, request.version)))

    async def ModelStatistics(self, request: oip.ModelStatisticsRequest, rpc: Rpc) -> oip.ModelStatisticsResponse:
        """See the proto."""
        version = version_of(request.version)
        if not request.name:
            found = [served for served in self._registry.index() if version in (0, served.version)]
        elif version:
            found = [self._registry.find(request.name, version)]
        else:
            found = self._registry.versions(request.name)
        return oip.ModelStatisticsResponse(model_stats=map(describe.statistics, found))

    # --- inference ---

    async def ModelInfer(self, data: bytes, rpc: Rpc) -> bytes:
        """See the proto."""
        request, raw = parse(data)
        answer = await self._inferences.run(request, raw, _caller(rpc))
        return join_response(answer.header.SerializeToString(), answer.raw)

    async def ModelStreamInfer(self, messages: AsyncIterator[bytes], rpc: Rpc) -> None:
        """See the proto."""
        caller = _caller(rpc)
        ends_on_error = any(key == "triton_grpc_error" and value == "true" for key, value in rpc.metadata)

        def begin(data: bytes) -> tuple[int, Callable[[], Coroutine[Any, Any, bytes]]]:
            request, raw, refusal = oip.ModelInferRequest(), list[memoryview](), None
            try:
                request, raw = parse(data)
            except ServerError as error:
                refusal = error
            return self._inferences.answer_bytes(request), lambda: answer(request, raw, refusal)

        async def answer(request: oip.ModelInferRequest, raw: list[memoryview], refusal: ServerError | None) -> bytes:
            try:
                if refusal is not None:
                    raise refusal
                return _in_stream(request, await self._inferences.run(request, raw, caller))
            except Exception as error:
                if ends_on_error:
                    raise
                if not isinstance(error, ServerError):
                    log.error("a request of a stream failed in a way it should not", exc_info=error)
                return oip.ModelStreamInferResponse(
                    error_message=str(error) or type(error).__name__,
                    infer_response=oip.ModelInferResponse(id=request.id),
                ).SerializeToString()

        await RequestStream(begin, rpc.write).run(messages)

    # --- the repository ---

    async def RepositoryIndex(self, request: oip.RepositoryIndexRequest, rpc: Rpc) -> oip.RepositoryIndexResponse:
        """See the proto."""
        _check_repository(request.repository_name)
        return describe.index(self._registry.index(), only_ready=request.ready)

    async def RepositoryModelLoad(
        self, request: oip.RepositoryModelLoadRequest, rpc: Rpc
    ) -> oip.RepositoryModelLoadResponse:
        """See the proto."""
        self._check_control("load", request.repository_name)
        if request.parameters:
            raise Unimplemented(
                f"loading with {', '.join(sorted(request.parameters))[:200]} is not served: create and configure "
                "networks with tensorcompute.v1.ModelService"
            )
        await self._models.load(request.model_name)
        return oip.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(
        self, request: oip.RepositoryModelUnloadRequest, rpc: Rpc
    ) -> oip.RepositoryModelUnloadResponse:
        """See the proto."""
        self._check_control("unload", request.repository_name)
        await self._models.unload(request.model_name)
        return oip.RepositoryModelUnloadResponse()

    # --- shared memory ---

    async def SystemSharedMemoryStatus(
        self, request: oip.SystemSharedMemoryStatusRequest, rpc: Rpc
    ) -> oip.SystemSharedMemoryStatusResponse:
        """See the proto."""
        regions = self._regions(rpc)
        response = oip.SystemSharedMemoryStatusResponse()
        for region in [regions.find(request.name)] if request.name else regions.all():
            entry = response.regions[region.name]
            entry.name, entry.key = region.name, region.key
            entry.offset, entry.byte_size = region.offset, region.byte_size
        return response

    async def SystemSharedMemoryRegister(
        self, request: oip.SystemSharedMemoryRegisterRequest, rpc: Rpc
    ) -> oip.SystemSharedMemoryRegisterResponse:
        """See the proto."""
        self._regions(rpc).register(request.name, request.key, request.offset, request.byte_size)
        return oip.SystemSharedMemoryRegisterResponse()

    async def SystemSharedMemoryUnregister(
        self, request: oip.SystemSharedMemoryUnregisterRequest, rpc: Rpc
    ) -> oip.SystemSharedMemoryUnregisterResponse:
        """See the proto."""
        self._regions(rpc).unregister(request.name)
        return oip.SystemSharedMemoryUnregisterResponse()

    async def _no_cuda(self, request: Any, rpc: Rpc) -> Any:
        raise Unimplemented(
            "CUDA shared memory is not served; send elements in the request, or use system shared memory"
        )

    CudaSharedMemoryStatus = CudaSharedMemoryRegister = CudaSharedMemoryUnregister = _no_cuda

    def _find(self, name: str, version: str) -> ServedModel:
        return self._registry.find(name, version_of(version))

    def _regions(self, rpc: Rpc) -> Regions:
        return self._inferences.regions(rpc.is_local)

    def _check_control(self, what: str, repository: str) -> None:
        if not self._config.oip_model_control:
            raise PermissionDenied(
                f"to {what} models is not allowed here; start the server with --oip-model-control to allow it"
            )
        _check_repository(repository)


def _caller(rpc: Rpc) -> Caller:
    return Caller(rpc.is_local, rpc.deadline)


def _in_stream(request: oip.ModelInferRequest, answer: Answer) -> bytes:
    if EMPTY_FINAL in request.parameters and request.parameters[EMPTY_FINAL].bool_param:
        answer.header.parameters[FINAL].bool_param = True
    return join_stream_response(answer.header.SerializeToString(), answer.raw)


def _check_repository(name: str) -> None:
    if name:
        raise InvalidArgument(
            f"there is one repository, without a name; repository_name is {name[:200]!r}, leave it empty"
        )
