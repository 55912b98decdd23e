"""What a new model is made of: a description with tensors, or a safetensors file. Knows torch; does not know gRPC."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tensorcompute.v1 import model_service_pb2 as ms
from tserver.engine.models import files
from tserver.engine.models.model import Model, specified
from tserver.engine.object_store import ObjectStore
from tserver.engine.values import dtype_of
from tserver.errors import InvalidArgument


class SpecSource:
    """Layers that are described, with the weights that the request gives."""

    def __init__(self, request: ms.CreateMlpRequest) -> None:
        self._request = request

    def model(self, store: ObjectStore, given: Sequence[torch.Tensor | None], device: torch.device) -> Model:
        """The network; `given` are the weight and the bias of each layer. Raises: InvalidArgument, OutOfMemoryError."""
        dtype = dtype_of(self._request.dtype) if self._request.dtype else torch.float32
        layers, weights = specified(self._request.layers, given, dtype, device)
        return Model(layers, weights, dtype, device)


class FileSource:
    """A file, parsed beforehand off the engine's thread, or taken from the session's uploads in its place."""

    def __init__(self, request: ms.CreateMlpRequest) -> None:
        """Raises: InvalidArgument if the layers bring weights of their own."""
        for index, spec in enumerate(request.layers):
            if spec.HasField("weight") or spec.HasField("bias"):
                raise InvalidArgument(f"layer {index} has weights, and so has the file; give one of them")
        self._request = request
        self._parsed: tuple[list[ms.LayerSummary], files.Weights] | None = None

    def parse(self, data: bytes | bytearray | memoryview) -> None:
        """Read the file. Raises: InvalidArgument."""
        tensors, metadata = files.read(data)
        self._parsed = files.layers_of(tensors, metadata, self._request.layers, self._request.file.layers)

    def model(self, store: ObjectStore, given: Sequence[torch.Tensor | None], device: torch.device) -> Model:
        """The network. Raises: InvalidArgument, UnknownId, OutOfMemoryError."""
        if self._parsed is None:
            self.parse(store.take_upload(self._request.file.upload).data)
        assert self._parsed is not None
        layers, weights = self._parsed
        if self._request.dtype:
            return Model(layers, weights, dtype_of(self._request.dtype), device)
        dtypes = {tensor.dtype for pair in weights for tensor in pair if tensor is not None}
        if len(dtypes) > 1:
            names = ", ".join(sorted(str(dtype)[6:] for dtype in dtypes))
            raise InvalidArgument(f"the file has tensors of several dtypes ({names}); give the one to use")
        return Model(layers, weights, dtypes.pop(), device)
