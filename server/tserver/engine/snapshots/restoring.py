"""A store, made of what was written. On the engine's thread; nothing that was written is believed.

What is said of sizes, places, kinds and numbers is checked before memory is used by it. Raises everywhere: Damaged, and
what torch raises for what it does not take.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Generator
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from google.protobuf.message import DecodeError
from torch import Tensor

from tensorcompute.v1 import tensor_pb2 as pb
from tserver.engine import cost
from tserver.engine.callers_code import KINDS, Hook
from tserver.engine.dtypes import DTYPES
from tserver.engine.networks import build
from tserver.engine.object_store import FIRST_SERVER_ID, Failed, ObjectStore, Parts, Staged
from tserver.engine.optimizers import Optimizer
from tserver.engine.programs import Program
from tserver.engine.snapshots.graphs import with_graph_gone
from tserver.engine.snapshots.parts import (
    FORMAT_VERSION,
    Damaged,
    dtype_of,
    flag,
    items,
    number,
    numbers,
    pair,
    read,
    text,
)
from tserver.engine.storages import put_at
from tserver.engine.values import checked_numel

_LINE = 64
# What every language holds as a number.
_MAX_ID = (1 << 53) - 1
_COMPRESSED = {
    "sparse_csr": torch.sparse_csr,
    "sparse_csc": torch.sparse_csc,
    "sparse_bsr": torch.sparse_bsr,
    "sparse_bsc": torch.sparse_bsc,
}
# How many objects are made at one go.
_PIECE = 256
# Fills the memory of a blob, in pieces, after which others have their time.
Fill = Callable[[int, Tensor], Generator[None, None, None]]


def restore(store: ObjectStore, said: Any, sizes: list[int], fill: Fill) -> Generator[None, None, None]:
    """Put into an empty store what was written. `sizes` are those of the blobs, and `fill` brings their bytes, in the
    order of their numbers.
    """
    made = _Restoring(store, said, sizes)
    for index in range(len(sizes)):
        yield from fill(index, made.room_for(index))
    yield from made.everything()


class _Restoring:
    def __init__(self, store: ObjectStore, said: Any, sizes: list[int]) -> None:
        if not isinstance(said, dict) or said.get("snapshot") != FORMAT_VERSION:
            version = said.get("snapshot") if isinstance(said, dict) else said
            raise Damaged(f"it has the version {str(version)[:40]}; this server reads {FORMAT_VERSION}")
        self._store, self._said, self._sizes = store, said, sizes
        self._tensors: list[Tensor] = []
        # What is said of memory, by the blob that it is in.
        self._memory = items(self._field(said, "memory"))
        self._of_blob = {number(self._field(told, "blob"), len(sizes) - 1): told for told in self._memory}
        if len(self._of_blob) != len(self._memory):
            raise Damaged("a blob is the memory of two")
        self._blobs: list[Tensor] = []

    def room_for(self, index: int) -> Tensor:
        """Memory for a blob, where it is to be."""
        size = self._sizes[index]
        told = self._of_blob.get(index)
        begins = 0
        device = torch.device("cpu")
        if told is not None:
            begins = number(self._field(told, "begins"), _LINE - 1)
            device = torch.device(text(self._field(told, "device")))
            if device.type not in ("cpu", "cuda"):
                raise Damaged(f"memory is on the device {str(device)[:40]!r}")
        if begins and size:
            room = np.empty(size + 2 * _LINE, np.uint8)
            start = (begins - room.ctypes.data) % _LINE
            blob = torch.frombuffer(room[start : start + size], dtype=torch.uint8)
        else:
            blob = torch.empty(size, dtype=torch.uint8, device=device)
        self._blobs.append(blob)
        return blob

    def everything(self) -> Generator[None, None, None]:
        """All that is there but bytes."""
        store, said = self._store, self._said
        names = [text(name) for name in items(self._field(said, "operations"))]
        store.define(names, [self._message(pb.Context, each) for each in items(self._field(said, "contexts"))])
        for each in self._memory:
            if (address := each.get("address")) is not None:
                put_at(store, self._blob(each["blob"]).untyped_storage(), *numbers(list(pair(address)), 1 << 60))
        store.next_address = number(self._field(said, "next_address"), 1 << 60)
        flags = [flag(each) for each in items(self._field(said, "flags"))]
        store.has_meta, store.has_giants, store.has_sparse, store.graphs_on_zeros = (*flags, *[False] * 4)[:4]
        described = items(self._field(said, "tensors"))
        for position, told in enumerate(described):
            if position % _PIECE == 0:
                yield
            self._tensors.append(self._tensor(told))
        for tensor, told in zip(self._tensors, described, strict=True):
            self._join(tensor, told)
        found: dict[int, Any] = {}
        for position, entry in enumerate(items(self._field(said, "objects"))):
            if position % _PIECE == 0:
                yield
            call_id, what = pair(entry)
            if call_id in found or not number(call_id, _MAX_ID):
                raise Damaged(f"the id {call_id} is there twice, or is 0")
            is_same = isinstance(what, list) and what[:1] == ["same"]
            found[call_id] = found[pair(what)[1]] if is_same else self._object(what)
        for call_id, dtype, shape, blob in (_four(each) for each in items(self._field(said, "uploads"))):
            self._upload(number(call_id), dtype_of(dtype), numbers(shape), self._bytes(blob))
        store.callers_code.gone.extend(numbers(self._field(said, "gone"), 1 << 63))
        self._put_state_back(self._field(said, "state"))
        store.objects.update(found)
        for name, call_id in map(pair, items(self._field(said, "names"))):
            named = found.get(call_id)
            if not isinstance(named, Tensor) or name in store.names or id(named) in store.named:
                raise Damaged("a name is that of no tensor, or is there twice")
            store.names[text(name)], store.named[id(named)] = call_id, name
        store.skip_server_ids(max((each for each in found if each >= FIRST_SERVER_ID), default=0))
        store.watched = True
        for each in found.values():
            store.count_restored(each)

    # ---- tensors -------------------------------------------------------------------------------------------------

    def _tensor(self, told: Any) -> Tensor:
        kind = text(self._field(told, "kind"))
        graph = told.get("graph")
        if graph is not None:
            return with_graph_gone(text(graph), lambda: self._elements(kind, told))
        with torch.inference_mode(bool(told.get("inference"))), torch.no_grad():
            return self._elements(kind, told)

    def _elements(self, kind: str, told: dict[str, Any]) -> Tensor:
        dtype = dtype_of(self._field(told, "dtype"))
        shape = numbers(self._field(told, "shape"))
        checked_numel(shape)
        if kind == "sparse_coo":
            indices, values = (self._part(each) for each in pair(self._field(told, "parts")))
            return torch.sparse_coo_tensor(
                indices,
                values,
                shape,
                dtype=dtype,
                check_invariants=True,
                is_coalesced=flag(self._field(told, "coalesced")) or None,
            )
        if kind in _COMPRESSED:
            parts = [self._part(each) for each in items(self._field(told, "parts"))]
            if len(parts) != 3:
                raise Damaged("a sparse tensor has other than three parts")
            compressed, plain, values = parts
            return torch.sparse_compressed_tensor(
                compressed, plain, values, shape, dtype=dtype, layout=_COMPRESSED[kind], check_invariants=True
            )
        stride = numbers(self._field(told, "stride"))
        if len(stride) != len(shape):
            raise Damaged("a tensor has not one stride for each size")
        if kind == "meta":
            return torch.empty_strided(shape, stride, dtype=dtype, device="meta")
        if kind != "strided":
            raise Damaged(f"a tensor is of the kind {kind[:40]!r}")
        return self._strided(told, dtype, shape, stride)

    def _strided(self, told: dict[str, Any], dtype: torch.dtype, shape: list[int], stride: list[int]) -> Tensor:
        offset = number(self._field(told, "offset"))
        memory = self._memory[number(self._field(told, "memory"), len(self._memory) - 1)]
        blob = self._blob(memory["blob"])
        # Python's numbers do not overflow.
        last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True)) + 1
        if 0 in shape:
            last = 0
        if last * dtype.itemsize > blob.numel():
            raise Damaged(f"a tensor of shape {shape} and strides {stride} ends behind its {blob.numel()} bytes")
        view_of = told.get("view_of")
        if view_of is not None:
            base = self._part(view_of)
            if base.untyped_storage()._cdata != blob.untyped_storage()._cdata or base.dtype != dtype:
                raise Damaged("a view is one of other memory")
            # Under which it was made says whether a graph may go through it.
            with nullcontext() if self._grad_of(view_of) else torch.enable_grad():
                tensor = base.as_strided(shape, stride, offset)
        else:
            empty = torch.empty(0, dtype=dtype, device=blob.device)
            tensor = empty.set_(blob.untyped_storage(), offset, shape, stride)
            if told.get("conj"):
                torch._C._set_conj(tensor, True)
            if told.get("neg"):
                torch._C._set_neg(tensor, True)
        if dtype is torch.bool and tensor.numel() and int(blob.max()) > 1:
            # Any byte but 0 and 1 in a bool is undefined behaviour in the kernels that read it.
            raise Damaged("a truth is neither 0 nor 1")
        if cost.is_giant(tensor):
            self._store.has_giants = True
        return tensor

    def _grad_of(self, index: int) -> bool:
        """Whether the base of a view requires gradients."""
        return bool(self._said["tensors"][index].get("requires_grad"))

    def _join(self, tensor: Tensor, told: dict[str, Any]) -> None:
        """What a tensor is in autograd, when all are there."""
        if told.get("graph") is None and told.get("requires_grad"):
            tensor.requires_grad_()
        if told.get("retains_grad") and not tensor.is_leaf:
            tensor.retain_grad()
        if (grad := told.get("grad")) is not None:
            tensor.grad = self._made(grad)
        code = self._store.callers_code
        for kind, key, name in (_three(each) for each in items(told.get("hooks", []))):
            if kind not in ("gradient", "accumulated") or key in code.hooks:
                raise Damaged(f"a hook is of the kind {str(kind)[:40]!r}, or is there twice")
            code.hooks[number(key, 1 << 63)] = KINDS[kind][1](tensor, Hook(code, key, text(name)))

    def _part(self, index: Any) -> Tensor:
        """One of those before this one."""
        return self._tensors[number(index, len(self._tensors) - 1)]

    _made = _part

    # ---- objects -------------------------------------------------------------------------------------------------

    def _object(self, said: Any) -> Any:
        kind, content = pair(said)
        if kind == "tensor":
            return self._made(content)
        if kind == "failed":
            return Failed(self._message(pb.Error, content))
        if kind == "parts":
            parts = Parts(())
            for path, what in map(pair, items(content)):
                parts.by_path[tuple(numbers(path, (1 << 32) - 1))] = self._object(what)
            return parts
        if kind == "generator":
            device, blob = pair(content)
            generator = torch.Generator(torch.device(text(device)))
            generator.set_state(self._bytes(blob))
            return generator
        if kind == "generator_of_gpu":
            generators = torch.cuda.default_generators
            return generators[number(content, len(generators) - 1)]
        if kind == "optimizer":
            name, groups, defaults, state = _four(content)
            return Optimizer.of(text(name), *(read(each, self._made) for each in (groups, defaults, state)))
        if kind == "network":
            return build(read(content, self._made))
        if kind == "program":
            return self._program(*_three(content))
        if kind == "staged":
            code, shape, blob = _three(content)
            data, dtype = self._bytes(blob), DTYPES.get(code)
            if dtype is None or checked_numel(numbers(shape)) * dtype.itemsize != data.numel():
                raise Damaged("elements that are to be fetched are others than is said")
            return Staged(code, numbers(shape), np.from_dlpack(data).copy())
        raise Damaged(f"an object is of the kind {str(kind)[:40]!r}")

    def _program(self, blob: Any, names: Any, contexts: Any) -> Program:
        store = self._store
        before = store.operations, store.modes, store.contexts
        store.operations, store.modes, store.contexts = [], [], []
        try:
            store.define([text(name) for name in items(names)], [self._message(pb.Context, each) for each in contexts])
            return Program(store, pb.Program.FromString(self._bytes(blob).numpy().tobytes()))
        except DecodeError:
            raise Damaged("a program is none") from None
        finally:
            store.operations, store.modes, store.contexts = before

    def _upload(self, upload_id: int, dtype: torch.dtype, shape: list[int], data: Tensor) -> None:
        if checked_numel(shape) * dtype.itemsize != data.numel():
            raise Damaged("an upload has other bytes than its shape needs")
        uploads = self._store.uploads
        upload = uploads.begin("an upload", upload_id, dtype, shape, data.numel())
        upload.data[:] = data.numpy().data
        upload.complete = True
        uploads.name(upload)

    def _put_state_back(self, said: Any) -> None:
        cuda = self._field(said, "cuda")
        options = read(self._field(said, "print_options"), self._made)
        if not isinstance(options, dict):
            raise Damaged("there are no print options")
        self._store.state.put_back(
            self._bytes(self._field(said, "random")),
            None if cuda is None else [self._bytes(each) for each in items(cuda)],
            dtype_of(self._field(said, "dtype")),
            options,
        )

    # ---- fields --------------------------------------------------------------------------------------------------

    def _blob(self, index: Any) -> Tensor:
        return self._blobs[number(index, len(self._blobs) - 1)]

    def _bytes(self, index: Any) -> Tensor:
        """A blob that is no tensor's memory."""
        if index in self._of_blob:
            raise Damaged("bytes are the memory of a tensor")
        return self._blob(index)

    def _field(self, said: Any, name: str) -> Any:
        if not isinstance(said, dict) or name not in said:
            raise Damaged(f"{name} is not there")
        return said[name]

    def _message(self, kind: Any, said: Any) -> Any:
        try:
            return kind.FromString(base64.b64decode(text(said), validate=True))
        except (DecodeError, binascii.Error):
            raise Damaged("a message is none") from None


def _three(value: Any) -> tuple[Any, Any, Any]:
    found = items(value)
    if len(found) != 3:
        raise Damaged(f"{len(found)} things are where three are to be")
    return found[0], found[1], found[2]


def _four(value: Any) -> tuple[Any, Any, Any, Any]:
    found = items(value)
    if len(found) != 4:
        raise Damaged(f"{len(found)} things are where four are to be")
    return found[0], found[1], found[2], found[3]
