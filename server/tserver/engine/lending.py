"""Memory that one session lends to others, to be read: whose it is, and that no other writes to it.

To those of its principal it lends for as long as they like; to another principal on terms, which may be to write, too,
and until they are revoked.

Whose it is stays written on the storage, so that it holds for every view. A borrower's calls go through `ReadOnly`,
which sees each kernel before it is run, also those of a function that is made of others and those of a backward pass.
Knows torch; does not know calls.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tserver.engine.extents import tensors_in

_LENDER = "tserver_lender"
_TERMS = "tserver_terms"
REVOKED = "the tensor was shared by another principal, which has taken it back"
# To hand elements on is not to change whose they are, or how much memory there is.
_NO_WRITES = ("resize", "set_", "_resize")


class Terms:
    """On which another principal was given memory."""

    __slots__ = ("is_revoked", "writes")

    def __init__(self, *, writes: bool) -> None:
        self.writes, self.is_revoked = writes, False


def grant(store: object, tensor: Tensor, terms: Terms) -> None:
    """Note on which terms a session has memory of another principal's."""
    found: dict[str, Any] = tensor.untyped_storage().__dict__
    given = found.setdefault(_TERMS, weakref.WeakKeyDictionary())
    given.setdefault(store, []).append(terms)


def terms_of(store: object, tensor: Tensor) -> Sequence[Terms]:
    """On which terms a session has the memory; none where it is of its own principal."""
    if tensor.layout is not torch.strided or tensor.is_meta:
        return ()
    given: Mapping[object, Sequence[Terms]] | None = tensor.untyped_storage().__dict__.get(_TERMS)
    return () if given is None else given.get(store, ())


def is_revoked(store: object, tensor: Tensor) -> bool:
    """Whether the session had the memory on terms that do not hold any more."""
    terms = terms_of(store, tensor)
    return bool(terms) and all(each.is_revoked for each in terms)


def may_write(store: object, tensor: Tensor) -> bool:
    """Whether the session may write to what is another's."""
    return any(each.writes and not each.is_revoked for each in terms_of(store, tensor))


def lend(store: object, tensor: Tensor) -> Tensor:
    """Note whose memory it is, and give a tensor over it that is somebody else's object.

    It has the same count of changes, so that a backward of a borrower notices what the lender has written.
    """
    # torch keeps the Python object of a storage for as long as the storage is.
    tensor.untyped_storage().__dict__.setdefault(_LENDER, weakref.ref(store))
    return tensor.detach()


def _lender_of(tensor: Tensor) -> weakref.ref[Any] | None:
    if tensor.layout is not torch.strided or tensor.is_meta:
        return None
    found: weakref.ref[Any] | None = tensor.untyped_storage().__dict__.get(_LENDER)
    return found


def is_lent(tensor: Tensor) -> bool:
    """Whether several sessions may read its memory, and one of them write."""
    return _lender_of(tensor) is not None


def is_borrowed(store: object, tensor: Tensor) -> bool:
    """Whether the memory is that of another session, also where that has ended."""
    lender = _lender_of(tensor)
    return lender is not None and lender() is not store


def is_counted_elsewhere(store: object, tensor: Tensor) -> bool:
    """Whether the memory counts for its lender, who is there."""
    found = _lender_of(tensor)
    lender = None if found is None else found()
    return lender is not None and lender is not store and not lender.is_over


class ReadOnly(TorchDispatchMode):
    """Refuses kernels that would write to what a session has borrowed, while it is entered."""

    def __init__(self, store: object) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._store = weakref.ref(store)
        # Whether some of it was taken back.
        self.has_revoked = False

    def check(self, value: Any) -> None:
        """Refuse what was taken back, among arguments or in a result. Raises: RuntimeError."""
        if self.has_revoked:
            store = self._store()
            if any(is_revoked(store, tensor) for tensor in tensors_in(value)):
                raise RuntimeError(REVOKED)

    def concerns(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], *, is_backward: bool) -> bool:
        """Whether a call may bring such memory to a kernel."""
        if is_backward or name.startswith("tc."):
            return True
        store = self._store()
        return any(is_borrowed(store, tensor) for tensor in tensors_in([list(args), dict(kwargs)]))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Raises: RuntimeError."""
        named = dict(kwargs or {})
        store = self._store()
        self.check([list(args), named])
        for tensor in _written(func, args, named):
            if is_borrowed(store, tensor) and (
                func.overloadpacket.__name__.startswith(_NO_WRITES) or not may_write(store, tensor)
            ):
                raise RuntimeError(
                    f"{func.overloadpacket.__name__}: the tensor is shared by another session, and can only be read "
                    "here; write to a copy, as clone() makes it"
                )
        return func(*args, **named)


def _written(func: Any, args: Sequence[Any], named: Mapping[str, Any]) -> Iterator[Tensor]:
    """The tensors that a kernel is to write to."""

    def given(position: int, name: str) -> Any:
        return named.get(name, args[position] if position < len(args) else None)

    targets, statistics, flag = _targets(func)
    for place in targets:
        yield from tensors_in(given(*place))
    if statistics and (flag is None or given(*flag) is not False):
        for place in statistics:
            yield from tensors_in(given(*place))


_Place = tuple[int, str]
# Kernels of batch norm write to them where they train, of which most say nothing.
_STATISTICS = frozenset({"running_mean", "running_var"})
_LEAVING_THEM = ("backward", "functional", "no_training", "no_update")


@cache
def _targets(func: Any) -> tuple[list[_Place], list[_Place], _Place | None]:
    """What a kernel writes to; running statistics, to which it writes where it trains; and what says that it does."""
    targets: list[_Place] = []
    statistics: list[_Place] = []
    flag = None
    leaves = any(word in func.overloadpacket.__name__ for word in _LEAVING_THEM)
    for position, argument in enumerate(func._schema.arguments):
        place = position, argument.name
        if argument.name in _STATISTICS:
            statistics += [] if leaves else [place]
        elif argument.alias_info is not None and argument.alias_info.is_write:
            targets.append(place)
        elif argument.name in ("training", "use_input_stats"):
            flag = place
    return targets, statistics, flag
