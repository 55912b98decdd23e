"""The server's torch, as programs ask for it: `torch.__version__` and `torch.version`.

Knows what the server tells of itself. It is a text that compares as torch's own does, without the library that torch
takes for that.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tclient._info import server_info

_PARTS = re.compile(r"v?(\d+(?:\.\d+)*)(?:\.?(a|alpha|b|beta|rc|dev)\.?(\d*))?(?:\+([a-z0-9.]+))?.*", re.IGNORECASE)
_STAGES = {"dev": 0, "a": 1, "alpha": 1, "b": 2, "beta": 2, "rc": 3}
_RELEASED = 4
_Key = tuple[tuple[int, ...], int, int, str]


def _key(value: Any) -> _Key | None:
    """What a version is ordered by; None for what is none. Zeros at the end mean nothing."""
    text = ".".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
    found = _PARTS.fullmatch(text)
    if found is None:
        return None
    release = [int(part) for part in found[1].split(".")]
    while len(release) > 1 and release[-1] == 0:
        release.pop()
    stage = _RELEASED if found[2] is None else _STAGES[found[2].lower()]
    return tuple(release), stage, int(found[3] or 0), found[4] or ""


class TorchVersion(str):
    """torch's version: a text that is compared with texts and tuples by its numbers: "2.10" is more than "2.9".

    As in torch, != alone compares the texts.
    """

    __slots__ = ()

    def _compare(self, other: Any, holds: Callable[[Any, Any], bool]) -> bool:
        mine, its = _key(str(self)), _key(other)
        return holds(str(self), other) if mine is None or its is None else holds(mine, its)

    def __eq__(self, other: object) -> bool:
        return self._compare(other, lambda a, b: a == b)

    def __lt__(self, other: Any) -> bool:
        return self._compare(other, lambda a, b: a < b)

    def __le__(self, other: Any) -> bool:
        return self._compare(other, lambda a, b: a <= b)

    def __gt__(self, other: Any) -> bool:
        return self._compare(other, lambda a, b: a > b)

    def __ge__(self, other: Any) -> bool:
        return self._compare(other, lambda a, b: a >= b)

    __hash__ = str.__hash__


def torch_version() -> TorchVersion:
    """The version of the torch that the server runs. Raises NotConnectedError."""
    return TorchVersion(server_info().torch_version)


def cuda_version() -> str | None:
    """The CUDA that the server's torch was built for, as its version tells ("2.11.0+cu130"); None without CUDA."""
    found = re.fullmatch(r"cu(\d+)(\d)", str(torch_version()).partition("+")[2])
    return f"{found[1]}.{found[2]}" if found else None


def _ignored(*args: Any) -> None:
    """Libraries count their uses by this, and torch has nobody to tell either."""


# What torch has and tclient has not, since it means the server: made when a program asks.
MADE: dict[str, Callable[[], Any]] = {
    "__version__": torch_version,
    "version.__version__": torch_version,
    "version.cuda": cuda_version,
    "version.hip": lambda: None,
    "version.xpu": lambda: None,
    "version.debug": lambda: False,
    "torch_version.TorchVersion": lambda: TorchVersion,
    "_C._log_api_usage_once": lambda: _ignored,
}
