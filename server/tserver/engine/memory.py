"""Refusals that come before memory is taken.

A factory is first run on torch's meta device, which computes shape and dtype and allocates nothing.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from tserver.engine.device import exact, free_bytes
from tserver.engine.failures import is_memory_refused
from tserver.errors import Exhausted

# Below this many elements a factory's result is small beside the reserve; it is not worth a dry run.
_SMALL_ELEMENTS = 1 << 22
_SMALL_SIDE = 1 << 11
# How long it is remembered how much was free.
_SEEN_S = 0.1
_seen: dict[torch.device, tuple[float, int]] = {}


def check_factory(name: str, function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> None:
    """Refuse a factory whose result is larger than the memory that is free.

    Raises: torch.OutOfMemoryError, saying how much was asked and how much is free.
    """
    sides = [abs(size) for size in _sizes(_asked(name, args, kwargs))]
    if not sides or (max(sides) < _SMALL_SIDE and math.prod(max(1, side) for side in sides) < _SMALL_ELEMENTS):
        return
    dry = {key: value for key, value in kwargs.items() if key not in ("generator", "pin_memory", "out")}
    dry["device"] = "meta"
    try:
        planned = function(*args, **dry)
    except Exception:
        return
    if not isinstance(planned, torch.Tensor) or planned.layout is not torch.strided:
        return
    like = next((argument.device for argument in args if isinstance(argument, torch.Tensor)), "cpu")
    device = exact(kwargs.get("device") or like)
    wanted = max(planned.numel() * planned.itemsize, planned.untyped_storage().nbytes())
    free = free_bytes(device)
    if wanted > free:
        raise torch.OutOfMemoryError(
            f"{name}: shape {list(planned.shape)} of {str(planned.dtype).removeprefix('torch.')} needs {wanted} bytes, "
            f"but {device} has {free} bytes free; free tensors or ask for less"
        )


def check_bytes(what: str, wanted: int, device: torch.device) -> None:
    """Refuse `wanted` bytes if the device has less. Raises torch.OutOfMemoryError."""
    now = time.monotonic()
    seen_at, seen = _seen.get(device, (0.0, 0))
    if now < seen_at + _SEEN_S and wanted < seen // 16:
        # To ask anew costs as much as to move a megabyte, and what is free does not vanish in that time.
        return
    free = free_bytes(device)
    _seen[device] = now, free
    if wanted > free:
        raise torch.OutOfMemoryError(
            f"{what} needs {wanted} bytes, but {device} has {free} bytes free; free tensors or ask for less"
        )


def check_host_bytes(what: str, wanted: int) -> None:
    """The same for the memory of the host."""
    check_bytes(what, wanted, torch.device("cpu"))


@contextlib.contextmanager
def telling_of_memory() -> Iterator[None]:
    """What torch and Python say of memory that ran out, as what callers are told. Raises: Exhausted."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise Exhausted(str(error) or "the memory of the host is full", reason="OUT_OF_MEMORY") from error
        raise


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch says that memory ran out."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    if not isinstance(error, RuntimeError):
        return False
    text = str(error)
    return "can't allocate memory" in text or text.startswith("std::bad_alloc") or is_memory_refused(error)


def _asked(name: str, args: list[Any], kwargs: dict[str, Any]) -> list[Any]:
    """The arguments that say how large the result is; the others may be as large as they like, and cost no dry run."""
    if name in _RANGES:
        return _length(args, kwargs)
    if name == "randint":
        return [value for value in (*args, *kwargs.values()) if isinstance(value, (tuple, list))]
    place = _PLACES.get(name)
    if place is None:
        return [*args, *kwargs.values()]
    position, keyword = place
    return [*args[position : position + 1], kwargs.get(keyword)]


def _length(args: list[Any], kwargs: dict[str, Any]) -> list[Any]:
    names = ("end",) if len(args) == 1 and "end" not in kwargs else ("start", "end", "step")
    told = {"start": 0, "end": 0, "step": 1, **kwargs, **dict(zip(names, args, strict=False))}
    start, end, step = told["start"], told["end"], told["step"]
    try:
        return [abs(end - start) / abs(step)]
    except (ArithmeticError, TypeError):
        return []  # no range: torch says why


# Where the size stands in the factories that are told other numbers, too.
_PLACES: dict[str, tuple[int, str]] = {
    "full": (0, "size"),
    "Tensor.new_full": (1, "size"),
    **dict.fromkeys(("full_like", "randint_like"), (0, "input")),
    **dict.fromkeys(("linspace", "logspace"), (2, "steps")),
    **dict.fromkeys(("fft.fftfreq", "fft.rfftfreq"), (0, "n")),
    **dict.fromkeys(("hamming_window", "kaiser_window"), (0, "window_length")),
}
_RANGES = frozenset({"arange", "range"})


def _sizes(arguments: Iterable[Any]) -> list[float]:
    found: list[float] = []
    for argument in arguments:
        if isinstance(argument, bool):
            continue
        if isinstance(argument, int):
            # What no size can be, torch refuses.
            found.append(argument if abs(argument) < 1 << 63 else 0)
        elif isinstance(argument, float):
            found.append(argument if math.isfinite(argument) else 0)
        elif isinstance(argument, torch.Tensor):
            found.append(argument.numel())
        elif isinstance(argument, (tuple, list)):
            found.extend(item for item in argument if isinstance(item, int) and abs(item) < 1 << 63)
    return found
