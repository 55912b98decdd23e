"""What a tensor tells of its memory: which other tensors share it, and where it begins there.

Addresses are the session's own numbers: equal for the same memory, and as far apart within it as torch's. Nothing is
found at them. Knows the server's answer; does not know storages, which are made of it (storage.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from tclient._codec.dtypes import SCALAR_TYPES
from tclient._session.modes import no_grad

if TYPE_CHECKING:
    from tclient.storage import TypedStorage, UntypedStorage

# Stands in the __dict__ of a tensor whose memory a program wants to share with other processes.
SHARED = "_is_to_be_shared"


class Memory:
    """The part of Tensor that is about its memory."""

    __slots__ = ()

    def _lie(self) -> list[Any]:
        """The address and the bytes of the storage, the offset in elements, the strides, whether it requires grad."""
        from tclient._issue import call_builtin

        told: list[Any] = call_builtin("tc.storages", [self])[0]
        return told

    def data_ptr(self: Any) -> int:
        """A number for where the elements begin: equal for what shares memory; 0 without elements. Waits."""
        address, _, offset, *_ = self._lie()
        return address + offset * self.itemsize if self.numel() else 0

    const_data_ptr = data_ptr

    def untyped_storage(self: Any) -> UntypedStorage:
        """The memory that the tensor is a view of, as bytes. Waits."""
        from tclient.storage import UntypedStorage

        return UntypedStorage._of(self)

    def storage(self: Any) -> TypedStorage:
        """The memory that the tensor is a view of, as elements of its dtype. Waits."""
        from tclient.storage import TypedStorage, warn_of_typed_storages

        warn_of_typed_storages()
        return TypedStorage._of(self)

    _typed_storage = storage

    def share_memory_(self) -> Self:
        """Note that other processes shall share the memory, which they cannot: it is refused where one gets it."""
        vars(self)[SHARED] = True
        return self

    def is_shared(self: Any) -> bool:
        """Whether `share_memory_` was called, or the tensor is on a GPU, as torch has it."""
        return SHARED in vars(self) or self.is_cuda

    def new(self: Any, *args: Any, device: Any = None) -> Any:
        """A tensor of the same dtype and device, by the arguments of the old constructors: sizes, or data."""
        from tclient._tensor import constructed

        where = self.device if device is None else device
        kind = f"{SCALAR_TYPES[self.dtype._name]}Tensor"
        made = constructed(kind, args, {})
        return made if str(where) == "cpu" else made.to(where)

    def as_subclass(self: Any, cls: type[Any]) -> Any:
        """The same tensor as an object of a class that is derived from Tensor."""
        return self.view_as(self)._alias(cls)

    @staticmethod
    def _make_subclass(kind: type[Any], data: Any, require_grad: bool = False, **options: Any) -> Any:
        with no_grad():
            made = data.detach()
        if require_grad:
            made.requires_grad_()
        return made._alias(kind)
