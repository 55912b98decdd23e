"""Kinds: what is known of the results of a call before it is answered, because such a call was answered before.

Shape, dtype and device of most results follow from those of the arguments. A kind stands for what such a call returns:
calls of one operation with arguments of the same kinds have results of one kind, and the first of them that is asked
for its shape tells those of all. Knows descriptions; does not know which operations are like that.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Protocol

from tclient._codec.device import device
from tclient._codec.dtypes import BY_CODE, LAYOUTS, dtype, layout
from tclient._codec.size import Size, size_of
from tclient._native import KindFields, KindsFields
from tensorcompute.v1 import tensor_pb2 as pb

# So many are remembered; then it begins anew. A loop has some dozens.
_MOST = 8192


class Meta:
    """What is known of a tensor without its elements."""

    __slots__ = ("device", "dtype", "layout", "requires_grad", "shape")

    shape: Size
    dtype: dtype
    device: device
    layout: layout
    requires_grad: bool | None  # None: not known

    def __init__(self, meta: pb.TensorMeta) -> None:
        self.shape = size_of(meta.shape)
        self.dtype = BY_CODE[meta.dtype]
        self.device = _device(meta.device)
        self.requires_grad = meta.requires_grad
        self.layout = LAYOUTS[meta.layout]

    def without_gradients(self) -> Meta:
        """The same, as far as it is that of another tensor too."""
        return self if self.requires_grad is None else known(self.shape, self.dtype, self.device, self.layout)


_devices: dict[str, device] = {}


def _device(name: str) -> device:
    found = _devices.get(name)
    if found is None:
        found = _devices[name] = device(name)
    return found


def known(shape: Size, dtype: dtype, device: device, layout: layout) -> Meta:
    """The description of a tensor, as far as the client knows it by itself."""
    made = object.__new__(Meta)
    made.shape, made.dtype, made.device, made.layout = shape, dtype, device, layout
    made.requires_grad = None
    return made


class Kind(KindFields):
    """What tensors have in common that have one shape, dtype and device."""

    __slots__ = ()

    def __init__(self) -> None:
        # None until one of them was described.
        self.meta: Meta | None = None
        # Whether they are known to have elements of floating point.
        self.floats = False
        # Whether it is the one kind of all that are described like this.
        self.is_leaf = False
        # Of a call that returns several: which of the items are tensors, in a list or tuple; the others are None.
        # None until one was answered.
        self.items: list[bool] | tuple[bool, ...] | None = None
        self.parts: list[Kind] = []

    def part(self, position: int) -> Kind:
        """Of one of several results."""
        parts = self.parts
        while len(parts) <= position:
            parts.append(Kind())
        return parts[position]

    def learn(self, meta: Meta) -> None:
        """Takes in the description of one of them."""
        if self.meta is None:
            self.meta = meta.without_gradients()
            self.floats = meta.dtype.is_floating_point


class Described(Protocol):
    """A reference to a tensor."""

    meta: Meta | None
    epoch: int
    kind: Kind | None
    since: int


class Kinds(KindsFields):
    """The kinds that a session has met."""

    __slots__ = ()

    found: dict[Hashable, Kind]

    def __init__(self) -> None:
        self.found = {}

    def of_call(self, key: Hashable) -> Kind:
        """What a call with this key returns: the operation, and all that its result's shape follows from."""
        kind = self.found.get(key)
        if kind is None:
            if len(self.found) >= _MOST:
                self.found.clear()
            kind = self.found[key] = Kind()
        elif kind.meta is not None and not kind.is_leaf:
            kind = self.found[key] = self.of_meta(kind.meta)
        return kind

    def of_meta(self, meta: Meta) -> Kind:
        """Of tensors that are described like this."""
        key = (Meta, meta.shape, meta.dtype, meta.device, meta.layout)
        kind = self.found.get(key)
        if kind is None:
            kind = self.found[key] = Kind()
            kind.learn(meta)
            kind.is_leaf = True
        return kind

    def of_factory(self, key: Hashable, meta: Callable[[], Meta | None]) -> Kind | None:
        """Of what is made of the numbers in the key; `meta` tells what that is."""
        kind = self.found.get(key)
        if kind is None:
            found = meta()
            if found is None:
                return None
            kind = self.found[key] = self.of_meta(found)
        return kind

    def of_ref(self, ref: Described, meta_epoch: int) -> Kind | None:
        """Of a result, if that is known, and no call since then may have changed it."""
        kind = ref.kind
        if kind is not None and ref.since >= meta_epoch:
            return kind
        meta = ref.meta
        if meta is None or ref.epoch < meta_epoch:
            return None
        ref.kind = kind = self.of_meta(meta)
        ref.since = ref.epoch
        return kind

    def forget(self) -> None:
        """Something has changed that results follow from without being an argument."""
        self.found = {}
