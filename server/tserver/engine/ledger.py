"""What a session's memory adds up to, without going through all of it for every call.

Knows torch; does not know ids, nor what holds the memory. A storage counts once, whatever is a view of it, and for as
long as anything refers to it: a tensor, a gradient, or a graph that will need it for a backward pass.
"""

from __future__ import annotations

import weakref
from collections import Counter, defaultdict
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tserver.engine.sparse import memory_of

_PARTS = 1024
# Addresses of storages are multiples of some power of two.
_GRAIN = 64


@dataclass(slots=True)
class Totals:
    """What is held, counted once through."""

    # Those that have a name of their own.
    tensors: int = 0
    storages: int = 0
    # By the device; and elements on the host that wait to be fetched.
    tensor_bytes: Counter[torch.device] = field(default_factory=Counter)
    staged_bytes: int = 0
    # In parts: a set that grows large is made anew at one go, which takes long.
    _seen: defaultdict[int, set[int]] = field(default_factory=lambda: defaultdict(set))

    @property
    def held_bytes(self) -> int:
        """All of it."""
        return self.tensor_bytes.total() + self.staged_bytes

    def add(self, tensor: Tensor) -> None:
        """Count the memory of a tensor, if that of no other before it was the same."""
        if tensor.is_meta:
            return
        for part in memory_of(tensor):
            storage = part.untyped_storage()
            address = storage._cdata
            seen = self._seen[address // _GRAIN % _PARTS]
            if address not in seen:
                seen.add(address)
                self.storages += 1
                self.tensor_bytes[tensor.device] += storage.nbytes()

    def close(self) -> Generator[None, None, None]:
        """Everything has been counted."""
        while self._seen:
            for _ in range(min(_PARTS // 8, len(self._seen))):
                self._seen.popitem()
            yield


class _Counted(weakref.ref[Any]):
    """Memory that is counted until it is gone."""

    __slots__ = ("device", "key", "size")
    key: int
    size: int
    device: torch.device | None


class Ledger:
    """Running totals, each entry taken off when its memory goes. For the engine's thread."""

    def __init__(self, apart: Iterable[torch.device] = ()) -> None:
        """Of each device in `apart` there is a total of its own."""
        self._counted: dict[int, _Counted] = {}
        # Memory goes at any line of any thread: it is only noted then.
        self._gone: list[_Counted] = []
        self._totals: dict[torch.device | None, int] = {None: 0, **dict.fromkeys(apart, 0)}

    def totals(self) -> dict[torch.device | None, int]:
        """Bytes that are there now: on the devices with a total of their own, and under None on all others."""
        gone = self._gone
        while gone:
            counted = gone.pop()
            self._totals[counted.device] -= counted.size
            if self._counted.get(counted.key) is counted:
                del self._counted[counted.key]
        return self._totals

    def add_tensor(self, tensor: Tensor) -> None:
        """Count the memory of a tensor; if it is counted already, its size as it is now."""
        if tensor.is_meta:
            return
        for part in memory_of(tensor):
            storage = part.untyped_storage()
            # As long as anything refers to the storage, this is the same Python object each time.
            self.add(storage, storage.nbytes(), part.device)

    def forget(self, memory: Any) -> None:
        """It counts no more, though it is there."""
        counted = self._counted.get(id(memory))
        if counted is not None and counted() is memory:
            del self._counted[counted.key]
            self._totals[counted.device] -= counted.size
            counted.size = 0

    def add(self, memory: Any, size: int, device: torch.device | None = None) -> None:
        """Count something that takes so many bytes."""
        key = id(memory)
        counted = self._counted.get(key)
        if counted is None or counted() is not memory:
            counted = _Counted(memory, self._gone.append)
            counted.key, counted.size = key, 0
            counted.device = device if device in self._totals else None
            self._counted[key] = counted
        self._totals[counted.device] += size - counted.size
        counted.size = size
