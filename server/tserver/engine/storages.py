"""Which tensors of a session share memory, told in addresses of its own.

An address is a number of the session's: equal for the same memory, and as far apart as in torch within it. It says
nothing of where the memory is, nor of what else the server holds.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch

from tserver.engine.object_store import ObjectStore

# As far apart as torch's allocator has them.
_ALIGNMENT = 64


def storages(store: ObjectStore, tensors: list[torch.Tensor]) -> list[list[Any]]:
    """Of each tensor: the address and the bytes of its storage, where it begins there in elements, its strides, and
    whether it requires gradients.
    """
    return [_storage(store, tensor) for tensor in tensors]


def _storage(store: ObjectStore, tensor: torch.Tensor) -> list[Any]:
    storage = tensor.untyped_storage()
    size = storage.nbytes()
    return [_address(store, storage, size), size, tensor.storage_offset(), list(tensor.stride()), tensor.requires_grad]


def address_of(store: ObjectStore, storage: torch.UntypedStorage) -> list[int] | None:
    """The address of a storage and the room there, where it was asked for."""
    places = storage.__dict__.get("tserver_places")
    found = None if places is None else places.get(store)
    return None if found is None else list(found)


def put_at(store: ObjectStore, storage: torch.UntypedStorage, address: int, room: int) -> None:
    """Say where a storage is, as it was said before."""
    storage.__dict__["tserver_places"] = weakref.WeakKeyDictionary({store: (address, room)})


def _address(store: ObjectStore, storage: torch.UntypedStorage, size: int) -> int:
    """The address of a storage; of one without bytes 0, as in torch."""
    if not size:
        return 0
    # torch keeps the object, and what is noted on it, for as long as there is the memory. Sessions may share it.
    places = storage.__dict__.setdefault("tserver_places", weakref.WeakKeyDictionary())
    address, room = places.get(store, (0, 0))
    if size > room:
        room = -(-size // _ALIGNMENT) * _ALIGNMENT
        address, store.next_address = store.next_address, store.next_address + room
        places[store] = (address, room)
    return int(address)
