"""torch.cuda, of the server: is there a GPU, what is it, how full is it. Knows what the server tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tclient._codec.device import device as _device
from tclient._exceptions import TensorRuntimeError
from tclient._info import server_info
from tclient._namespace import missing
from tclient._session import current as _state
from tclient._types import typed_classes
from tclient.random import manual_seed as _manual_seed

if TYPE_CHECKING:
    from tclient._types import tensortype

    FloatTensor: tensortype
    DoubleTensor: tensortype
    HalfTensor: tensortype
    BFloat16Tensor: tensortype
    ByteTensor: tensortype
    CharTensor: tensortype
    ShortTensor: tensortype
    IntTensor: tensortype
    LongTensor: tensortype
    BoolTensor: tensortype
else:
    globals().update(typed_classes("cuda"))


def _devices() -> list[str]:
    return [each.name for each in _state.current().opened.devices if each.name.startswith("cuda")]


def is_available() -> bool:
    """Whether the server has a GPU."""
    return bool(_devices())


def device_count() -> int:
    """How many GPUs the server has."""
    return len(_devices())


def current_device() -> int:
    """The index of the GPU where new tensors go."""
    place = _device(_state.current().opened.default_device or "cpu")
    if place.type != "cuda":
        _refuse()
    return place.index or 0


def is_initialized() -> bool:
    """Whether the server has a GPU, ready."""
    return is_available()


def _refuse() -> None:
    raise TensorRuntimeError(f"the server at {_state.current().address} has no CUDA device")


def _info(device: Any) -> Any:
    place = _device("cuda") if device is None else _device(device)
    if place.type != "cuda":
        raise ValueError(f"Expected a cuda device, but got: {place}")
    index = current_device() if place.index is None and is_available() else place.index or 0
    for each in server_info().devices:
        if each.name == f"cuda:{index}":
            return each
    raise TensorRuntimeError(
        f"the server at {_state.current().address} has no device cuda:{index}; "
        f"it has {', '.join(_devices()) or 'no GPU'}"
    )


def get_device_name(device: Any = None) -> str:
    """What the maker calls the GPU."""
    name: str = _info(device).description
    return name


def memory_allocated(device: Any = None) -> int:
    """The bytes that tensors of all sessions take on the GPU."""
    allocated: int = _info(device).allocated_bytes
    return allocated


def mem_get_info(device: Any = None) -> tuple[int, int]:
    """The free and the total bytes of the GPU."""
    info = _info(device)
    return info.free_bytes, info.total_bytes


def synchronize(device: Any = None) -> None:
    """Wait until everything that was issued has run. Raises the first failed effect that was not raised yet."""
    _state.current().synchronize()


def empty_cache() -> None:
    """Nothing: the memory of the server is the server's to manage."""


def manual_seed(seed: int) -> None:
    """The seed of this session, as `tclient.manual_seed`."""
    _manual_seed(seed)


manual_seed_all = manual_seed


if not TYPE_CHECKING:  # a checker refuses unknown names by itself

    def __getattr__(name: str) -> Any:
        missing(__name__, name, globals())
