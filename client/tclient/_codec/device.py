"""torch.device, which needs no device at hand. Knows names only."""

from __future__ import annotations

import re
import threading
from typing import Any

_TYPES = (
    "cpu, cuda, ipu, xpu, mkldnn, opengl, opencl, ideep, hip, ve, fpga, maia, xla, lazy, vulkan, mps, meta, hpu, mtia, "
    "privateuseone"
)
_KNOWN = frozenset(_TYPES.split(", "))
_TEXT = re.compile(r"([a-zA-Z_]+)(?::(0|[1-9][0-9]*))?")


class device:
    """Where a tensor lives, as the server sees it: `device("cuda:0")`, `device("cpu")`, `device("cuda", 1)`.

    `with device("cpu"):` has new tensors go there that are not told otherwise.

    Raises: RuntimeError for a text that names no device.
    """

    __slots__ = ("index", "type")

    type: str
    index: int | None

    def __init__(self, type: Any, index: int | None = None) -> None:
        if isinstance(type, device):
            self.type, self.index = type.type, type.index
            return
        if isinstance(type, int) and not isinstance(type, bool):
            # torch numbers its accelerators; on this wire that is CUDA.
            self.type, self.index = "cuda", type
            return
        if not isinstance(type, str):
            raise TypeError(
                f"device() received an invalid combination of arguments - got ({_type_name(type)}), "
                "but expected one of:\n"
                " * (torch.device device)\n"
                f"      didn't match because some of the arguments have invalid types: (!{_type_name(type)}!)\n"
                " * (str type, int index = -1)\n"
            )
        match = _TEXT.fullmatch(type)
        if match is None:
            raise RuntimeError(f"Invalid device string: '{type}'")
        name, number = match.groups()
        if name not in _KNOWN:
            raise RuntimeError(f"Expected one of {_TYPES} device type at start of device string: {name}")
        if number is not None and index is not None:
            raise RuntimeError(f"type (string) must not include an index because index was passed explicitly: {type}")
        self.type = name
        self.index = int(number) if number is not None else index

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __repr__(self) -> str:
        return (
            f"device(type='{self.type}')" if self.index is None else f"device(type='{self.type}', index={self.index})"
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, device):
            return NotImplemented
        return self.type == other.type and self.index == other.index

    def __hash__(self) -> int:
        return hash((self.type, self.index))

    def __enter__(self) -> device:
        DEFAULT.outer.append(DEFAULT.place)
        DEFAULT.place = self
        return self

    def __exit__(self, *exc: object) -> None:
        DEFAULT.place = DEFAULT.outer.pop()

    def __reduce__(self) -> tuple[Any, ...]:
        return device, (str(self),)


class Default(threading.local):
    """Where this thread wants new tensors, if it has said so; and what it wanted outside of each `with device(...)`."""

    def __init__(self) -> None:
        self.place: device | None = None
        self.outer: list[device | None] = []


DEFAULT = Default()


def _type_name(value: object) -> str:
    return value.__class__.__name__
