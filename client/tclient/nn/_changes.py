"""A number that is another one after every change to any module.

A network made of a module may stand for it as long as nothing changed anywhere: looking at one number is much cheaper
than looking at every layer. Knows nothing of modules.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from typing import Any, TypeVar

K = TypeVar("K")
V = TypeVar("V")

_numbers = itertools.count(1)


class _State:
    """Where the number is: an attribute of a module would be copied by whoever imports it."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0


STATE = _State()


def changed() -> None:
    """To be called behind a change, not before it."""
    STATE.number = next(_numbers)


class Watched(OrderedDict[K, V]):
    """A dict that tells of its changes, whoever makes them."""

    def __repr__(self) -> str:
        return repr(dict(self))

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        changed()

    def __delitem__(self, key: K) -> None:
        super().__delitem__(key)
        changed()

    def clear(self) -> None:
        """Takes everything out."""
        super().clear()
        changed()

    def pop(self, *args: Any) -> Any:
        """Takes one out."""
        try:
            return super().pop(*args)
        finally:
            changed()

    def popitem(self, last: bool = True) -> tuple[K, V]:
        """Takes the last or the first one out."""
        try:
            return super().popitem(last)
        finally:
            changed()

    def move_to_end(self, key: K, last: bool = True) -> None:
        """Puts one last or first."""
        super().move_to_end(key, last)
        changed()
