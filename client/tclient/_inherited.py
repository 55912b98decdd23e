"""Tensors that a forked process inherits: what is handed to it is read before the fork, and made anew where it is used.

A session belongs to the process that opened it. What multiprocessing runs in a forked process, and what that refers to,
finds its tensors there by value, as where it is pickled. Their bytes are the parent's memory until they are used.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from tclient._by_value import elements_of, restored
from tclient._memory import SHARED
from tclient._native import REF_FIELDS
from tclient._session.refs import RemoteRef
from tclient._session.session import SESSIONS, Session
from tclient._tensor import Tensor

# So many objects are gone through at most.
_MOST = 500_000
_ATOMS = frozenset((str, int, float, bool, complex, bytes, bytearray, type(None), np.ndarray, range, slice))


class _Inherited(RemoteRef):
    """The reference to a tensor of the parent process; the first look at it makes the tensor."""

    __slots__ = ()

    def __del__(self) -> None:
        _values.pop(id(self), None)


_values: dict[int, tuple[Any, ...]] = {}


def _made(name: str) -> property:
    def look(ref: RemoteRef) -> Any:
        value = _values.pop(id(ref))
        made = restored(*value)._ref
        ref.__class__ = RemoteRef
        for each in REF_FIELDS:
            setattr(ref, each, getattr(made, each))
        # The tensor lives on in this reference.
        made.__class__ = _Inherited
        return getattr(ref, name)

    return property(look)


for _name in REF_FIELDS:
    setattr(_Inherited, _name, _made(_name))


def read(root: object) -> list[tuple[RemoteRef, tuple[Any, ...]]]:
    """The tensors that an object refers to, and what is in them. Waits."""
    if not SESSIONS:
        return []
    # One whose memory shall be shared is refused at its first use there.
    found = {id(tensor._ref): tensor for tensor in _tensors(root) if _is_copied(tensor)}
    return [
        (
            tensor._ref,
            (Tensor, tensor.dtype._name, tensor.shape, elements_of(tensor), str(tensor.device), tensor.requires_grad),
        )
        for tensor in found.values()
    ]


def _is_copied(tensor: Tensor) -> bool:
    return type(tensor._ref) is RemoteRef and SHARED not in tensor.__dict__


def inherit(values: list[tuple[RemoteRef, tuple[Any, ...]]]) -> None:
    """In the forked process: have its tensors made of what was read. Opens no session yet."""
    for ref, value in values:
        _values[id(ref)] = value
        ref.__class__ = _Inherited


def _tensors(root: object) -> Iterator[Tensor]:
    """The tensors that an object refers to, wherever they are; of what is global, those that its functions name."""
    seen: set[int] = set()
    waiting: list[Any] = [root]
    while waiting and len(seen) < _MOST:
        each = waiting.pop()
        if id(each) in seen or isinstance(each, type | ModuleType | Session):
            continue
        seen.add(id(each))
        waiting += [inner for inner in _inner(each) if type(inner) not in _ATOMS]
        if isinstance(each, Tensor):
            yield each


def _inner(each: Any) -> list[Any]:
    if isinstance(each, Tensor):
        return list(each.__dict__.values())
    if isinstance(each, MethodType):
        return [each.__self__, each.__func__]
    if isinstance(each, FunctionType):
        named = [each.__globals__[name] for name in each.__code__.co_names if name in each.__globals__]
        return [*named, *(each.__closure__ or ()), each.__defaults__, each.__kwdefaults__]
    return gc.get_referents(each)
