"""The GPUs of the server: how many there are, which one "cuda" means to this thread, and how to wait for one.

Knows what the server told at the beginning of the session.
"""

from __future__ import annotations

from typing import Any, NoReturn

from tclient._codec.device import device
from tclient._exceptions import AcceleratorError, TensorAssertionError
from tclient._issue import call_builtin
from tclient._session.current import current
from tclient._session.modes import MODES, set_gpu


def names() -> list[str]:
    """Those that the session may use, as tensors name them."""
    return [each.name for each in current().opened.devices if each.name.startswith("cuda")]


def require() -> None:
    """Raises: AssertionError where there is none."""
    if not names():
        refuse()


def refuse() -> NoReturn:
    """Say in torch's words that there is none."""
    error = TensorAssertionError("Torch not compiled with CUDA enabled")
    error.add_note(f"the server at {current().address} has no CUDA device")
    raise error


def current_index() -> int:
    """The number of the one that "cuda" means to this thread."""
    return _first() if MODES.gpu is None else MODES.gpu


def _first() -> int:
    """The number of the one that it means unless a program says otherwise."""
    usual = device(current().opened.default_device or "cpu")
    return usual.index or 0 if usual.type == "cuda" else 0


def index_of(place: Any, *, optional: bool = True) -> int:
    """The number by which a program names a GPU; of those without one it is the current one, where that is `optional`.

    Raises: AssertionError without any GPU; ValueError for another device, and where a number is needed.
    """
    require()
    if isinstance(place, int):
        return place
    found = None if place is None else device(place)
    if found is not None and found.type != "cuda":
        raise ValueError(f"Expected a cuda device, but got: {found}")
    if found is not None and found.index is not None:
        return found.index
    if not optional:
        raise ValueError(f"Expected a torch.device with a specified index or an integer, but got:{found}")
    return current_index()


def is_there(index: int) -> bool:
    """Whether the server has a GPU of that number."""
    return f"cuda:{index}" in names()


def choose(index: int) -> int | None:
    """Have "cuda" mean a GPU to this thread; what to give to `restore`. Raises: AcceleratorError if it is not there."""
    if not is_there(index):
        wait_for(index)
        raise AcceleratorError("CUDA error: invalid device ordinal")
    return set_gpu(None if index == _first() else index)


def restore(before: int | None) -> None:
    """Have "cuda" mean what it meant."""
    set_gpu(before)


def wait_for(index: int) -> None:
    """Wait until a GPU has done all that was issued.

    Raises: AcceleratorError if it is not there; the first failed effect that was not raised yet.
    """
    # A recorded function is timed where it is recorded, not where it is run.
    recorder, MODES.recorder = MODES.recorder, None
    try:
        call_builtin("tc.gpu_synchronize", index)
    finally:
        MODES.recorder = recorder
    current().synchronize()
