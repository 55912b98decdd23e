"""torch.storage: the memory that tensors are views of, as torch names it.

A storage here is a flat tensor of all there is. Knows tensors; what they share the server tells (_memory.py).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, Self

from tclient._codec.device import device
from tclient._codec.dtypes import DTYPES, SCALAR_TYPES, dtype
from tclient._tensor import Tensor

__all__ = ["TypedStorage", "UntypedStorage"]

_warned = False


def warn_of_typed_storages() -> None:
    """As torch does it: once."""
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            "TypedStorage is deprecated. It will be removed in the future and UntypedStorage will be the only storage "
            "class. This should only matter to you if you are using storages directly.  To access UntypedStorage "
            "directly, use tensor.untyped_storage() instead of tensor.storage()",
            UserWarning,
            stacklevel=3,
        )


class _Storage:
    """What both kinds of storages have."""

    def __init__(self, flat: Tensor, address: int) -> None:
        self._flat, self._address = flat, address

    @classmethod
    def _of(cls, tensor: Any) -> Self:
        address, size, *_ = tensor._lie()
        flat = tensor.detach().as_strided((size // tensor.itemsize,), (1,), 0)
        return cls(flat, address)

    @property
    def _cdata(self) -> int:
        return self._address

    def data_ptr(self) -> int:
        """A number for where it begins, as `Tensor.data_ptr` has them."""
        return self._address

    def size(self) -> int:
        """The number of elements."""
        return self._flat.numel()

    def nbytes(self) -> int:
        """The number of bytes."""
        return self._flat.nbytes

    def element_size(self) -> int:
        """The bytes of one element."""
        return self._flat.itemsize

    def get_device(self) -> int:
        """The number of the device; -1 for the memory of the server."""
        return int(self._flat.get_device())

    def is_shared(self) -> bool:
        """Whether it is on a GPU; no memory is shared with other processes."""
        return self._flat.is_cuda

    @property
    def is_cuda(self) -> bool:
        """Whether it is on a GPU."""
        return self._flat.is_cuda

    def tolist(self) -> list[Any]:
        """All elements. Waits."""
        found: list[Any] = self._flat.tolist()
        return found

    def clone(self) -> Self:
        """A copy."""
        return type(self)._of(self._flat.clone())

    def copy_(self, source: Any, non_blocking: bool | None = None) -> Self:
        """Takes over the elements of another storage."""
        self._flat.copy_(source._flat)
        return self

    def fill_(self, value: Any) -> Self:
        """Makes all elements the same."""
        self._flat.fill_(value)
        return self

    def __len__(self) -> int:
        return self.size()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.tolist())

    def __getitem__(self, index: Any) -> Any:
        found = self._flat[index]
        return type(self)._of(found) if isinstance(index, slice) else found.item()

    def __setitem__(self, index: Any, value: Any) -> None:
        self._flat[index] = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Storage) and self._address == other._address

    def __hash__(self) -> int:
        return hash(self._address)

    def __repr__(self) -> str:
        lines = "".join(f" {element}\n" for element in self.tolist())
        return f"{lines}[torch.storage.{self._text()} of size {len(self)}]"

    def _text(self) -> str:
        return f"{type(self).__name__}(device={self._flat.device})"


class UntypedStorage(_Storage):
    """Memory as bytes."""

    @classmethod
    def _of(cls, tensor: Any) -> Self:
        made = super()._of(tensor)
        made._flat = made._flat.view(DTYPES["uint8"])
        return made

    @property
    def device(self) -> device:
        """Where it is."""
        return self._flat.device


class TypedStorage(_Storage):
    """Memory as elements of a dtype."""

    @property
    def dtype(self) -> dtype:
        """The type of the elements."""
        return self._flat.dtype

    @property
    def device(self) -> device:
        """Where it is."""
        return self._flat.device

    def untyped(self) -> UntypedStorage:
        """The same memory as bytes."""
        return UntypedStorage._of(self._flat)

    _untyped_storage = property(untyped)

    def type(self) -> str:
        """The name of torch's class of such storages."""
        place = "cuda." if self.is_cuda else ""
        return f"torch.{place}{SCALAR_TYPES[self.dtype._name]}Storage"

    def _text(self) -> str:
        return f"TypedStorage(dtype={self.dtype}, device={self._flat.device})"


def is_storage(obj: Any) -> bool:
    """Whether it is a storage."""
    return isinstance(obj, _Storage)
