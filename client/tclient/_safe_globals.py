"""Which classes and functions a file may name: those that hold data only, and those that the program allows.

Knows names; does not know files.
"""

from __future__ import annotations

import builtins
import collections
import importlib
import pickle
import sys
from collections.abc import Callable, Iterable
from typing import Any

from tclient._exceptions import TensorValueError

_FAILED = (
    "Weights only load failed. This file can still be loaded, to do so you have two options, \033[1mdo those steps "
    "only if you trust the source of the checkpoint\033[0m. \n\t(1) In PyTorch 2.6, we changed the default value of "
    "the `weights_only` argument in `torch.load` from `False` to `True`. Re-running `torch.load` with `weights_only` "
    "set to `False` will likely succeed, but it can result in arbitrary code execution. Do it only if you got the file "
    "from a trusted source.\n\t(2) Alternatively, to load with `weights_only=True` please check the recommended steps "
    "in the following error message.\n\tWeightsUnpickler error: "
)
_MORE = (
    "\n\nCheck the documentation of torch.load to learn more about types accepted by default with weights_only "
    "https://pytorch.org/docs/stable/generated/torch.load.html."
)

# torch's names of what is elsewhere here.
_MOVED = (("tclient.nn.", "torch.nn.modules."), ("tclient.", "torch."))
_NOT_MOVED = ("tclient.nn.parameter", "tclient.nn.functional", "tclient.nn.init", "tclient.nn.utils")
_ALGORITHMS = "tclient.optim.algorithms"
_SCHEDULES = "tclient.optim.lr_scheduler"
_NAMED: dict[tuple[str, str], str] = {
    ("tclient._namespace", "Generator"): "torch._C.Generator",
    ("tclient._tensor", "Tensor"): "torch.Tensor",
}


class WeightsOnly(TensorValueError, pickle.UnpicklingError):
    """A file names what it may not."""


def torch_name(module: str, name: str) -> str:
    """The name that torch has for it, under which a program finds it."""
    if module in ("builtins", "__builtin__"):
        kind = getattr(builtins, name, None)
        return f"exceptions.{name}" if isinstance(kind, type) and issubclass(kind, BaseException) else name
    if (module, name) in _NAMED:
        return _NAMED[module, name]
    if module == _ALGORITHMS:
        return f"torch.optim.{name.lower()}.{name}"
    if module.startswith(_SCHEDULES):
        return f"torch.{_SCHEDULES.removeprefix('tclient.')}.{name}"
    for mine, its in _MOVED:
        if module.startswith(mine) and not (mine == "tclient.nn." and module.startswith(_NOT_MOVED)):
            return f"{its}{module[len(mine) :]}.{name}"
    return f"torch.{name}" if module == "tclient" else f"{module}.{name}"


def refused(name: str) -> WeightsOnly:
    """The error for a name that is not allowed, in torch's words."""
    return WeightsOnly(
        f"{_FAILED}Unsupported global: GLOBAL {name} was not an allowed global by default. Please use "
        f"`torch.serialization.add_safe_globals([{name}])` or the `torch.serialization.safe_globals([{name}])` context "
        f"manager to allowlist this global if you trust this class/function.{_MORE}"
    )


# ---- what the program allows -----------------------------------------------------------------------------------------

Allowed = Callable[..., Any] | tuple[Callable[..., Any], str]
_allowed: list[Allowed] = []


def add_safe_globals(safe_globals: list[Allowed]) -> None:
    """Let files name these classes and functions: each as it is, or in a pair with the name that files have for it."""
    _allowed.extend(each for each in safe_globals if each not in _allowed)


def get_safe_globals() -> list[Allowed]:
    """What files may name beside data."""
    return list(_allowed)


def clear_safe_globals() -> None:
    """Let files name nothing but data."""
    _allowed.clear()


class safe_globals:
    """Within it, files may name these classes and functions, too."""

    def __init__(self, safe_globals: list[Allowed]) -> None:
        self._given = safe_globals
        self._before: list[Allowed] = []

    def __enter__(self) -> None:
        self._before = get_safe_globals()
        add_safe_globals(self._given)

    def __exit__(self, *exc: object) -> None:
        _allowed[:] = self._before


def _by_name(allowed: Iterable[Allowed]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in allowed:
        if isinstance(each, tuple):
            found[each[1]] = each[0]
        else:
            found[torch_name(each.__module__, each.__qualname__)] = each
    return found


# ---- finding ---------------------------------------------------------------------------------------------------------

# Containers of data, which torch reads, too; and what stands for them here.
_DATA = {
    "collections.OrderedDict": collections.OrderedDict,
    "collections.Counter": collections.Counter,
}
_OWN_DATA = frozenset(
    {("tclient.nn._changes", "Watched"), ("tclient.nn.parameter", "Parameter"), ("tclient.nn.parameter", "Buffer")}
)


class Finder:
    """Finds what a file names. With weights_only, that is data, and what the program allows."""

    def __init__(self, *, weights_only: bool) -> None:
        self._weights_only = weights_only

    def check(self, *names: str) -> None:
        """Raise WeightsOnly unless each of these names may be used."""
        if self._weights_only:
            allowed = _by_name(_allowed)
            for name in names:
                if name not in allowed and name not in _DATA:
                    raise refused(name)

    def __call__(self, module: str, name: str) -> Any:
        """The class or function of that name. Raises: WeightsOnly; what the import raises; AttributeError."""
        whole = torch_name(module, name)
        if self._weights_only and (module, name) not in _OWN_DATA:
            found = {**_DATA, **_by_name(_allowed)}.get(whole)
            if found is None:
                raise refused(whole)
            return found
        owner: Any = sys.modules.get(module) or importlib.import_module(module)
        for part in name.split("."):
            try:
                owner = getattr(owner, part)
            except AttributeError:
                raise AttributeError(f"Can't get attribute {name!r} on {sys.modules[module]!r}") from None
        if not callable(owner):
            raise TypeError(f"{module}.{name} is neither a class nor a function")
        return owner
