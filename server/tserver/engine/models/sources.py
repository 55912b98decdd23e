"""What a new model is made of: a description with tensors, or a safetensors file. Knows torch; does not know gRPC."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tensorcompute.v1 import model_service_pb2 as ms
from tserver.engine.models import files
from tserver.engine.models.contents import program_of
from tserver.engine.models.model import Content, LayeredContent, LayeredModel, Model, NewStore, specified
from tserver.engine.models.program_model import ProgramContent
from tserver.engine.object_store import ObjectStore
from tserver.engine.values import dtype_of
from tserver.errors import InvalidArgument


class SpecSource:
    """Layers that are described, with the weights that the request gives."""

    def __init__(self, request: ms.CreateMlpRequest) -> None:
        self._request = request

    def model(
        self, store: ObjectStore, given: Sequence[torch.Tensor | None], new_store: NewStore, device: torch.device
    ) -> Model:
        """The network; `given` are the weight and the bias of each layer. Raises: InvalidArgument, OutOfMemoryError."""
        dtype = dtype_of(self._request.dtype) if self._request.dtype else torch.float32
        layers, weights = specified(self._request.layers, given, dtype, device)
        return LayeredModel(layers, weights, dtype, device)


class FileSource:
    """A file, parsed beforehand off the engine's thread, or taken from the session's uploads in its place."""

    def __init__(self, request: ms.CreateMlpRequest) -> None:
        """Raises: InvalidArgument if the layers bring weights of their own."""
        for index, spec in enumerate(request.layers):
            if spec.HasField("weight") or spec.HasField("bias"):
                raise InvalidArgument(f"layer {index} has weights, and so has the file; give one of them")
        self._request = request
        self._content: Content | None = None

    def parse(self, data: bytes | bytearray | memoryview) -> None:
        """Read the file. Raises: InvalidArgument."""
        tensors, metadata = files.read(data)
        request = self._request
        program = program_of(tensors, metadata)
        if program is not None:
            if request.layers or request.dtype or request.file.layers:
                raise InvalidArgument("the file has a program, which says all itself; leave layers and dtype out")
            self._content = program
            return
        layers, weights = files.layers_of(tensors, metadata, request.layers, request.file.layers)
        dtypes = {tensor.dtype for pair in weights for tensor in pair if tensor is not None}
        if request.dtype:
            dtypes = {dtype_of(request.dtype)}
        if len(dtypes) > 1:
            names = ", ".join(sorted(str(dtype)[6:] for dtype in dtypes))
            raise InvalidArgument(f"the file has tensors of several dtypes ({names}); give the one to use")
        self._content = LayeredContent(layers, weights, dtypes.pop())

    def model(
        self, store: ObjectStore, given: Sequence[torch.Tensor | None], new_store: NewStore, device: torch.device
    ) -> Model:
        """The network. Raises: InvalidArgument, UnknownId, OutOfMemoryError."""
        if self._content is None:
            self.parse(store.take_upload(self._request.file.upload).data)
        assert self._content is not None
        return self._content.model(new_store, device)


class ProgramSource:
    """A program, with the weights that the request gives."""

    def __init__(self, program: ms.ServedProgram) -> None:
        self._program = program

    def model(
        self, store: ObjectStore, given: Sequence[torch.Tensor | None], new_store: NewStore, device: torch.device
    ) -> Model:
        """The network. Raises: InvalidArgument, OutOfMemoryError."""
        weights = [weight for weight in given if weight is not None]
        return ProgramContent(self._program, weights).model(new_store, device)
