"""A store, written down. On the engine's thread, between two of its jobs; no bytes of tensors are copied here."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tensorcompute.v1 import tensor_pb2 as pb
from tserver.engine import lending
from tserver.engine.callers_code import kind_of
from tserver.engine.networks import Network
from tserver.engine.object_store import Failed, ObjectStore, Parts, Staged
from tserver.engine.optimizers import Optimizer
from tserver.engine.programs import Program
from tserver.engine.snapshots.parts import FORMAT_VERSION, NotKept, Snapshot, write
from tserver.engine.storages import address_of
from tserver.engine.values import held_as

# What is said of what is not kept, behind its name; by what objects are called.
_NOT_KEPT = {
    "pass": "a suspended backward pass",
    "parcel": "tensors that another session was to take over; hand them over again",
    "loan": "a loan to other sessions; share the tensors again",
}
_SPARSE = {
    torch.sparse_csr: ("sparse_csr", Tensor.crow_indices, Tensor.col_indices),
    torch.sparse_bsr: ("sparse_bsr", Tensor.crow_indices, Tensor.col_indices),
    torch.sparse_csc: ("sparse_csc", Tensor.ccol_indices, Tensor.row_indices),
    torch.sparse_bsc: ("sparse_bsc", Tensor.ccol_indices, Tensor.row_indices),
}


def take(store: ObjectStore) -> Snapshot:
    """What the store holds, with the session's share of the state of the process, which is in force on this thread."""
    store.state.save()
    with torch.inference_mode(False), torch.no_grad():
        return _Taking(store).snapshot()


class _Taking:
    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._blobs: list[Tensor] = []
        self._tensors: list[dict[str, Any]] = []
        # By the object, and by the memory; what they are found by stays as long as this.
        self._numbers: dict[int, tuple[Tensor, int]] = {}
        self._storages: dict[int, tuple[torch.UntypedStorage, int]] = {}
        self._memory: list[dict[str, Any]] = []
        self._left_out: list[str] = []
        # The ids of what is no tensor, and that may be held under several.
        self._ids: dict[int, int] = {}

    def snapshot(self) -> Snapshot:
        """All of it."""
        store = self._store
        objects = [[call_id, self._object(call_id, found)] for call_id, found in list(store.objects.items())]
        text = {
            "snapshot": FORMAT_VERSION,
            "objects": objects,
            "uploads": self._uploads(),
            "state": self._state(),
            "operations": [operation.name for operation in store.operations],
            "contexts": [_in_base64(context) for context in store.contexts],
            "flags": [store.has_meta, store.has_giants, store.has_sparse, store.graphs_on_zeros],
            "next_address": store.next_address,
            "names": [[name, call_id] for name, call_id in store.names.items() if call_id in store.objects],
            # What is code of the caller goes with its graph, but for hooks of leaves.
            "gone": [*store.callers_code.gone, *(store.callers_code.hooks.keys() - self._hooks())],
            "tensors": self._tensors,
            "memory": self._memory,
        }
        return Snapshot(text, self._blobs, self._left_out)

    # ---- objects -------------------------------------------------------------------------------------------------

    def _object(self, call_id: int, found: Any) -> Any:
        if (
            call_id
            and not isinstance(found, Tensor)
            and (before := self._ids.setdefault(id(found), call_id)) != call_id
        ):
            return ["same", before]
        try:
            return self._described(found)
        except NotKept as why:
            name = f"id {call_id}"
            return self._failed(name, str(why))

    def _failed(self, name: str, why: str) -> Any:
        self._left_out.append(f"{name}: {why}")
        error = pb.Error(
            type="RuntimeError",
            reason="NOT_KEPT",
            message=f"this is not there any more, as it could not be kept: {why}",
        )
        return ["failed", _in_base64(error)]

    def _described(self, found: Any) -> Any:
        if isinstance(found, Tensor):
            return ["tensor", self._tensor(found)]
        if isinstance(found, Failed):
            return ["failed", _in_base64(found.error)]
        if isinstance(found, Parts):
            held = list(found.by_path.items())
            return ["parts", [[list(path), self._object(0, item)] for path, item in held]]
        if isinstance(found, torch.Generator):
            return self._generator(found)
        if isinstance(found, Optimizer):
            groups, defaults, state = found.written()
            told = [write(each, self._tensor) for each in (groups, defaults, state)]
            return ["optimizer", [found.kind, *told]]
        if isinstance(found, Network):
            return ["network", write(list(found.layers), self._tensor)]
        if isinstance(found, Program):
            names, contexts = found.tables()
            told = [names, [_in_base64(context) for context in contexts]]
            return ["program", [self._blob(found.message), *told]]
        if isinstance(found, Staged):
            found.copy_out()
            with found.lock:
                return ["staged", [int(found.dtype), list(found.shape), self._blob(found.data)]]
        name = held_as(found) or type(found).__name__
        raise NotKept(_NOT_KEPT.get(name, f"a node of a graph ({name})"))

    def _generator(self, found: torch.Generator) -> Any:
        if found.device.type == "cpu":
            return ["generator", ["cpu", self._blob(found.get_state())]]
        for index, known in enumerate(torch.cuda.default_generators):
            if known is found:
                return ["generator_of_gpu", index]
        return ["generator", [str(found.device), self._blob(found.get_state())]]

    def _uploads(self) -> list[Any]:
        return [
            [upload.id, str(upload.dtype).removeprefix("torch."), list(upload.shape), self._blob(upload.data)]
            for upload in self._store.uploads.complete()
        ]

    def _state(self) -> dict[str, Any]:
        random, cuda, dtype, options = self._store.state.written()
        return {
            "random": self._blob(random),
            "cuda": None if cuda is None else [self._blob(each) for each in cuda],
            "dtype": str(dtype).removeprefix("torch."),
            "print_options": write(options, self._tensor),
        }

    def _hooks(self) -> set[int]:
        """The keys of those that are kept."""
        return {key for told in self._tensors for _, key, _ in told.get("hooks", ())}

    # ---- tensors -------------------------------------------------------------------------------------------------

    def _tensor(self, tensor: Tensor) -> int:
        """The number of a tensor, which is described once. Raises: NotKept."""
        known = self._numbers.get(id(tensor))
        if known is not None:
            return known[1]
        told = self._elements(tensor)
        if tensor.requires_grad:
            told["requires_grad"] = True
        if tensor.grad_fn is not None:
            told["graph"] = type(tensor.grad_fn).__name__
        elif hooks := _hooks_of(tensor):
            told["hooks"] = hooks
        if tensor.is_inference():
            told["inference"] = True
        if tensor.retains_grad:
            told["retains_grad"] = True
        self._tensors.append(told)
        number = len(self._tensors) - 1
        self._numbers[id(tensor)] = tensor, number
        # A gradient is described behind its tensor: it may have one, too.
        if (tensor.is_leaf or tensor.retains_grad) and tensor.grad is not None:
            try:
                told["grad"] = self._tensor(tensor.grad)
            except NotKept as why:
                self._left_out.append(f"a gradient: {why}")
        return number

    def _elements(self, tensor: Tensor) -> dict[str, Any]:
        """What a tensor is but for autograd."""
        if type(tensor) not in (Tensor, torch.nn.Parameter):
            raise NotKept(f"a tensor of the class {type(tensor).__name__}")
        if tensor.is_quantized or tensor.is_nested or tensor.layout not in (torch.strided, torch.sparse_coo, *_SPARSE):
            raise NotKept(f"a {'quantized' if tensor.is_quantized else 'nested'} tensor")
        dtype = str(tensor.dtype).removeprefix("torch.")
        if tensor.layout is not torch.strided:
            return self._sparse(tensor) | {"dtype": dtype, "shape": list(tensor.shape)}
        told: dict[str, Any] = {"dtype": dtype, "shape": list(tensor.shape), "stride": list(tensor.stride())}
        if tensor.is_meta:
            return {"kind": "meta", **told}
        if lending.is_borrowed(self._store, tensor):
            raise NotKept("a tensor that another session shares; take it again")
        if tensor._is_zerotensor():
            raise NotKept("a tensor without memory")
        told |= {"kind": "strided", "offset": tensor.storage_offset(), "memory": self._memory_of(tensor)}
        if tensor.is_conj():
            told["conj"] = True
        if tensor.is_neg():
            told["neg"] = True
        if base := _base_of(tensor):
            told["view_of"] = self._tensor(base[0])
        return told

    def _sparse(self, tensor: Tensor) -> dict[str, Any]:
        plain = tensor.detach()
        if tensor.layout is torch.sparse_coo:
            indices, values = plain._indices(), plain._values()
            parts = [self._tensor(indices), self._tensor(values)]
            return {"kind": "sparse_coo", "parts": parts, "coalesced": tensor.is_coalesced()}
        kind, compressed, others = _SPARSE[tensor.layout]
        parts = [self._tensor(each) for each in (compressed(plain), others(plain), plain.values())]
        return {"kind": kind, "parts": parts}

    def _memory_of(self, tensor: Tensor) -> int:
        """The number of a tensor's storage."""
        storage = tensor.untyped_storage()
        known = self._storages.get(storage._cdata)
        if known is not None:
            return known[1]
        size = storage.nbytes()
        blob = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage, 0, (size,), (1,))
        self._blobs.append(blob)
        # Kernels may add up in another order where memory begins at another place of a line of the cache.
        begins = storage.data_ptr() % 64 if storage.device.type == "cpu" and size else 0
        told = {"device": str(storage.device), "blob": len(self._blobs) - 1, "begins": begins}
        if address := address_of(self._store, storage):
            told["address"] = address
        self._memory.append(told)
        number = len(self._memory) - 1
        self._storages[storage._cdata] = storage, number
        return number

    def _blob(self, data: Any) -> int:
        """The number of a blob of other bytes."""
        if not isinstance(data, Tensor):
            array = np.frombuffer(bytearray(data), np.uint8)
            data = torch.from_numpy(array) if array.size else torch.empty(0, dtype=torch.uint8)
        self._blobs.append(data.reshape(-1))
        return len(self._blobs) - 1


def _base_of(tensor: Tensor) -> tuple[Tensor] | None:
    """The tensor that this is a view of, where that can be said again by shape and strides."""
    if not tensor._is_view() or tensor.grad_fn is not None or tensor.is_inference():
        return None
    base = tensor._base
    if (
        base is None
        or base.dtype != tensor.dtype
        or base.grad_fn is not None
        or base.layout is not torch.strided
        or tensor.is_conj() != base.is_conj()
        or tensor.is_neg() != base.is_neg()
        or base.untyped_storage()._cdata != tensor.untyped_storage()._cdata
    ):
        return None
    return (base,)


def _hooks_of(tensor: Tensor) -> list[list[Any]]:
    hooks: Any = tensor._backward_hooks
    found = [kind_of(hook) for hook in (hooks or {}).values()]
    return [[kind, hook.key, hook.__name__] for kind, hook in filter(None, found)]


def _in_base64(message: Any) -> str:
    return base64.b64encode(message.SerializeToString()).decode()
