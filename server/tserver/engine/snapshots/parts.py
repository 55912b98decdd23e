"""The words of a snapshot's text: plain Python values with tensors among them, and the blobs that bytes are in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tserver.engine.dtypes import DTYPES

FORMAT_VERSION = 1
_MAX_DEPTH = 64
_MAX_DIGITS = 1000


class Damaged(ValueError):
    """What was read is no snapshot that a server has written."""


class NotKept(Exception):
    """Something that a snapshot cannot hold; the text says why."""


@dataclass(slots=True)
class Snapshot:
    """A store, written down: a text that is JSON, and the blobs that it counts on."""

    text: dict[str, Any]
    # Tensors of bytes, in one dimension each; on whatever device.
    blobs: list[Tensor] = field(default_factory=list)
    # What is not in it, in words.
    left_out: list[str] = field(default_factory=list)

    @property
    def sizes(self) -> list[int]:
        """Of the blobs, in bytes."""
        return [blob.numel() for blob in self.blobs]


def write(value: Any, tensor: Callable[[Tensor], int]) -> Any:
    """A plain value in words of JSON; `tensor` gives the number of one. Raises: NotKept."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return ["int", str(value)]
    if isinstance(value, float):
        return ["float", value.hex()]
    if isinstance(value, Tensor):
        return ["tensor", tensor(value)]
    if isinstance(value, list):
        return ["list", [write(item, tensor) for item in value]]
    if isinstance(value, tuple):
        return ["tuple", [write(item, tensor) for item in value]]
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return ["dict", [[name, write(item, tensor)] for name, item in value.items()]]
    if isinstance(value, torch.dtype):
        return ["dtype", str(value).removeprefix("torch.")]
    raise NotKept(f"a {type(value).__name__} in it")


def read(said: Any, tensor: Callable[[Any], Tensor], depth: int = 0) -> Any:
    """The value again. Raises: Damaged."""
    if said is None or isinstance(said, bool | str):
        return said
    if not isinstance(said, list) or len(said) != 2 or not isinstance(said[0], str) or depth > _MAX_DEPTH:
        raise Damaged("a value is none")
    kind, content = said
    if kind == "tensor":
        return tensor(content)
    if kind in ("int", "float", "dtype") and isinstance(content, str) and len(content) <= _MAX_DIGITS:
        try:
            if kind == "dtype":
                return dtype_of(content)
            return int(content) if kind == "int" else float.fromhex(content)
        except (ValueError, OverflowError):
            raise Damaged(f"{content[:40]!r} is no number") from None
    if isinstance(content, list):
        if kind in ("list", "tuple"):
            items = [read(item, tensor, depth + 1) for item in content]
            return items if kind == "list" else tuple(items)
        if kind == "dict" and all(isinstance(pair, list) and len(pair) == 2 for pair in content):
            return {text(name): read(item, tensor, depth + 1) for name, item in content}
    raise Damaged(f"a value is of the kind {kind[:40]!r}")


def dtype_of(name: Any) -> torch.dtype:
    """torch's dtype of that name. Raises: Damaged."""
    for dtype in DTYPES.values():
        if name == str(dtype).removeprefix("torch."):
            return dtype
    raise Damaged(f"{str(name)[:40]!r} is no dtype")


def text(value: Any) -> str:
    """A text of the snapshot's. Raises: Damaged."""
    if not isinstance(value, str):
        raise Damaged(f"a {type(value).__name__} is where a text is to be")
    return value


def number(value: Any, most: int = 1 << 62) -> int:
    """A number of 0 or more. Raises: Damaged."""
    if type(value) is not int or not 0 <= value <= most:
        raise Damaged(f"{str(value)[:40]} is where a number of 0 to {most} is to be")
    return value


def numbers(value: Any, most: int = 1 << 62) -> list[int]:
    """Several. Raises: Damaged."""
    return [number(item, most) for item in items(value)]


def items(value: Any) -> list[Any]:
    """A list. Raises: Damaged."""
    if not isinstance(value, list):
        raise Damaged(f"a {type(value).__name__} is where a list is to be")
    return value


def pair(value: Any) -> tuple[Any, Any]:
    """A list of two. Raises: Damaged."""
    found = items(value)
    if len(found) != 2:
        raise Damaged(f"{len(found)} things are where two are to be")
    return found[0], found[1]


def flag(value: Any) -> bool:
    """A truth. Raises: Damaged."""
    if not isinstance(value, bool):
        raise Damaged(f"a {type(value).__name__} is where a truth is to be")
    return value
