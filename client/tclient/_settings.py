"""Settings of torch that are the whole server's. A program may note them; it is warned where that hides a change.

Knows which devices the server has; sends nothing.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from tclient._codec.foreign import class_name
from tclient._session.session import connected

_noted: dict[str, Any] = {
    "threads": None,
    "interop threads": None,
    "matmul precision": "highest",
    "deterministic": 0,
    "warn always": False,
}
_DEBUG_MODES = ("default", "warn", "error")
_PRECISIONS = ("highest", "high", "medium")


def has_gpu() -> bool:
    """Whether the server of the current session has a GPU; without a session there is none to be changed."""
    session = connected()
    return session is not None and any(each.name.startswith("cuda") for each in session.opened.devices)


def not_changed(setting: str, remedy: str = "", *, stacklevel: int = 3) -> None:
    """Warn that a setting stays as the server has it."""
    text = f"{setting} is a setting of the whole server, which other sessions share: it stays as it is"
    warnings.warn(f"{text}{'; ' if remedy else ''}{remedy}", stacklevel=stacklevel)


def watch(module: str, of_gpu: Mapping[str, Any]) -> None:
    """Have a module warn when one of these is set to another value than the GPU of a server has."""
    prefix = module.removeprefix("tclient.")

    class Settings(ModuleType):
        def __setattr__(self, name: str, value: Any) -> None:
            if name in of_gpu and value != of_gpu[name] and has_gpu():
                not_changed(f"{prefix}.{name}")
            super().__setattr__(name, value)

    sys.modules[module].__class__ = Settings


# ---- threads ---------------------------------------------------------------------------------------------------------


def _count(function: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise RuntimeError(f"{function} expects an int, but got {class_name(value)}")
    if value <= 0:
        raise RuntimeError(f"{function} expects a positive integer")
    return value


def set_num_threads(threads: int) -> None:
    """Note a number of threads; the server keeps its own."""
    _noted["threads"] = _count("set_num_threads", threads)
    not_changed("the number of threads", "start it with `tserver serve --threads N`")


def get_num_threads() -> int:
    """The number that this program has set; before that, how many processors this machine has."""
    return _noted["threads"] or os.cpu_count() or 1


def set_num_interop_threads(threads: int) -> None:
    """Note a number of threads; the server keeps its own."""
    _noted["interop threads"] = _count("set_num_interop_threads", threads)
    not_changed("the number of threads", "start it with `tserver serve --threads N`")


def get_num_interop_threads() -> int:
    """The number that this program has set; before that, how many processors this machine has."""
    return _noted["interop threads"] or os.cpu_count() or 1


# ---- numbers ---------------------------------------------------------------------------------------------------------


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Note that results should be the same each time; the server chooses its algorithms as before."""
    set_deterministic_debug_mode(2 - bool(warn_only) if mode else 0, _stacklevel=4)


def are_deterministic_algorithms_enabled() -> bool:
    """Whether this program asked for it."""
    return get_deterministic_debug_mode() > 0


def is_deterministic_algorithms_warn_only_enabled() -> bool:
    """Whether this program asked for warnings only."""
    return get_deterministic_debug_mode() == 1


def set_deterministic_debug_mode(debug_mode: int | str, *, _stacklevel: int = 3) -> None:
    """Note it: "default", "warn" or "error", or 0, 1, 2."""
    if not isinstance(debug_mode, (int, str)):
        raise TypeError(f"debug_mode must be str or int, but got {type(debug_mode)}")
    if isinstance(debug_mode, str):
        if debug_mode not in _DEBUG_MODES:
            raise RuntimeError(
                "invalid value of debug_mode, expected one of `default`, `warn`, `error`, but got " + debug_mode
            )
        debug_mode = _DEBUG_MODES.index(debug_mode)
    if debug_mode not in range(3):
        raise RuntimeError(f"invalid value of debug_mode, expected 0, 1, or 2, but got {debug_mode}")
    _noted["deterministic"] = debug_mode
    if debug_mode:
        not_changed("the choice of deterministic algorithms", stacklevel=_stacklevel)


def get_deterministic_debug_mode() -> int:
    """What this program asked for."""
    mode: int = _noted["deterministic"]
    return mode


def set_float32_matmul_precision(precision: str) -> None:
    """Note how exact products should be at least; the server's are as exact as they were."""
    if precision not in _PRECISIONS:
        warnings.warn(
            f"{precision} is not one of 'highest', 'high', or 'medium'; the current"
            "setFloat32MatmulPrecision call has no effect.",
            stacklevel=2,
        )
        return
    _noted["matmul precision"] = precision
    if precision != "highest" and has_gpu():
        not_changed("the precision of products")


def get_float32_matmul_precision() -> str:
    """What this program has set."""
    precision: str = _noted["matmul precision"]
    return precision


def set_flush_denormal(mode: bool) -> bool:
    """Whether the server could be told: it cannot."""
    if mode:
        not_changed("the treatment of denormal numbers")
    return not mode


def set_warn_always(b: bool) -> None:
    """Note it: warnings come as the server gives them."""
    _noted["warn always"] = b


def is_warn_always_enabled() -> bool:
    """What this program has set."""
    always: bool = _noted["warn always"]
    return always
