"""Tensors of a session on their way to a safetensors file, and back.

They are taken as they are at one place among the calls, and made of bytes that have come from a file. Both are done in
pieces, on the engine's thread; in between bytes move elsewhere. Knows torch and what a session holds; knows no disk.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import NamedTuple

import torch

from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.wire.safetensors import CODES, Entry
from tserver.engine import streams
from tserver.engine.device import check_device
from tserver.engine.inspect import description, staged
from tserver.engine.memory import check_bytes, telling_of_memory
from tserver.engine.object_store import FIRST_SERVER_ID, ObjectStore, Parts, Staged
from tserver.engine.transfers import send
from tserver.engine.uploads import Upload
from tserver.engine.values import device_name, tensor_from_bytes
from tserver.errors import InvalidArgument

# Of what is read at one go from memory that may be lent.
_PIECE_BYTES = 4 << 20


class Taken(NamedTuple):
    """A tensor as it was, and where."""

    dtype: str
    shape: tuple[int, ...]
    device: str
    elements: Staged

    @property
    def size_bytes(self) -> int:
        """Of its elements."""
        return len(self.elements.data)

    def chunks(self) -> Iterator[bytes]:
        """Its elements. From any thread but the engine's. Raises: InvalidArgument behind the last one, if they changed
        meanwhile; what the device failed of.
        """
        source = self.elements
        if source.arrival is not None:
            source.arrival.wait()
        size = self.size_bytes
        for start in range(0, size, _PIECE_BYTES):
            with source.lock:
                piece = bytes(source.data[start : start + _PIECE_BYTES])
            yield piece
        if not source.intact():
            raise InvalidArgument("a tensor was changed while it was kept; do it again")


def take(store: ObjectStore, refs: Sequence[pb.Ref]) -> Generator[None, None, list[Taken]]:
    """Tensors as they are now. Raises: UnknownId, CallFailed, InvalidArgument, Exhausted, NotImplementedError."""
    taken = []
    for ref in refs:
        tensor = store.tensor(ref)
        if tensor.is_meta:
            raise InvalidArgument("a tensor on the device meta has no elements that could be kept")
        if tensor.layout is not torch.strided or tensor.is_quantized:
            raise InvalidArgument(
                f"a tensor of layout {str(tensor.layout).removeprefix('torch.')} and dtype "
                f"{str(tensor.dtype).removeprefix('torch.')} is not kept; keep what it is made of, such as "
                "indices() and values(), or to_dense()"
            )
        dtype = str(tensor.dtype).removeprefix("torch.")
        if dtype not in CODES:
            raise InvalidArgument(
                f"{dtype} is not a dtype of safetensors files; keep the tensor in another one, such as "
                "view_as_real() of a complex one"
            )
        taken.append(Taken(dtype, tuple(tensor.shape), device_name(tensor.device), staged(store, ref)))
        yield
    return taken


def reserve(
    store: ObjectStore, entries: Sequence[Entry], devices: Sequence[str]
) -> Generator[None, None, list[Upload]]:
    """Memory for the elements of tensors that are to be on these devices, counted from now on.

    Raises: InvalidArgument where there is no such device, Exhausted.
    """
    reserved: list[Upload] = []
    try:
        with telling_of_memory():
            for name in dict.fromkeys(devices):
                check_device(name)
                check_bytes(
                    "recall",
                    sum(_size(e) for e, d in zip(entries, devices, strict=True) if d == name),
                    torch.device(name),
                )
            for entry in entries:
                dtype = torch.__dict__[entry.dtype]
                shape = list(entry.shape)
                reserved.append(store.begin_upload("recall", 0, dtype, shape, _size(entry)))
                yield
    except BaseException:
        drop(store, reserved)
        raise
    return reserved


def drop(store: ObjectStore, reserved: Sequence[Upload]) -> None:
    """Let memory go that is of no use. From any thread."""
    for upload in reserved:
        store.uploads.drop(upload)


def restore(
    store: ObjectStore, result_id: int, filled: Sequence[Upload], devices: Sequence[str]
) -> Generator[None, None, list[pb.TensorMeta]]:
    """Make tensors of memory that is filled, the parts of one result, and describe them. Raises: Exhausted."""
    result_id = result_id or store.new_server_id()
    made: list[torch.Tensor] = []
    try:
        with telling_of_memory():
            for upload, name in zip(filled, devices, strict=True):
                host = tensor_from_bytes(upload.dtype, upload.shape, upload.data, copy=False)
                apart = streams.apart(name)
                made.append(host.to(name) if apart is None else send(host, apart))
                yield
    finally:
        drop(store, filled)
    if made:
        store.keep(result_id, Parts(made))
    return [description(tensor, pb.Ref(id=result_id, path=[index])) for index, tensor in enumerate(made)]


def check_id(result_id: int) -> None:
    """Raises: InvalidArgument."""
    if result_id >= FIRST_SERVER_ID:
        raise InvalidArgument(f"id {result_id} is one that the server makes; choose one below {FIRST_SERVER_ID}, or 0")


def _size(entry: Entry) -> int:
    return entry.stop - entry.start
