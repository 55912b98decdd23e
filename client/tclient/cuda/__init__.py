"""torch.cuda, of the server: is there a GPU, what is it, how full is it. Without one it is that of a torch for CPUs.

amp       autocast and GradScaler by their old names
streams   streams and events: work is issued in one order, and timed by when it was done

Knows what the server tells.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from tclient._codec.device import DEFAULT as _DEFAULT
from tclient._codec.device import device as _device
from tclient._exceptions import OutOfMemoryError as OutOfMemoryError
from tclient._exceptions import TensorAssertionError, TensorRuntimeError
from tclient._info import server_info
from tclient._namespace import missing
from tclient._session import current as _state
from tclient._types import typed_classes
from tclient.cuda.streams import Event as Event
from tclient.cuda.streams import Stream as Stream
from tclient.cuda.streams import StreamContext as StreamContext
from tclient.cuda.streams import stream as stream
from tclient.random import get_rng_state as _get_rng_state
from tclient.random import initial_seed as _initial_seed
from tclient.random import manual_seed as _manual_seed
from tclient.random import seed as _seed
from tclient.random import set_rng_state as _set_rng_state

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

# The most bytes that this program saw in use, by the number of the GPU.
_most: dict[int, int] = {}


class DeviceProperties(NamedTuple):
    """What the server tells of a GPU."""

    name: str
    total_memory: int


# ---- which GPUs there are --------------------------------------------------------------------------------------------


def _devices() -> list[str]:
    return [each.name for each in _state.current().opened.devices if each.name.startswith("cuda")]


def is_available() -> bool:
    """Whether the server has a GPU."""
    return bool(_devices())


def device_count() -> int:
    """How many GPUs the server has."""
    return len(_devices())


def init() -> None:
    """Nothing, where the server has a GPU. Raises: AssertionError where it has none."""
    if not _devices():
        _refuse()


def is_initialized() -> bool:
    """Whether the server has a GPU, ready."""
    return is_available()


def _refuse() -> NoReturn:
    error = TensorAssertionError("Torch not compiled with CUDA enabled")
    error.add_note(f"the server at {_state.current().address} has no CUDA device")
    raise error


def _index(device: Any) -> int:
    """The number of a GPU. Raises: AssertionError without any; ValueError for another device."""
    init()
    place = _device("cuda") if device is None else _device(device)
    if place.type != "cuda":
        raise ValueError(f"Expected a cuda device, but got: {place}")
    return current_device() if place.index is None else place.index


def _info(device: Any) -> Any:
    index = _index(device)
    for each in server_info().devices:
        if each.name == f"cuda:{index}":
            return each
    raise TensorRuntimeError(
        f"the server at {_state.current().address} has no device cuda:{index}; it has {', '.join(_devices())}"
    )


def current_device() -> int:
    """The index of the GPU where new tensors go, or would go if they went to a GPU."""
    init()
    for place in (_DEFAULT.place, _device(_state.current().opened.default_device or "cpu")):
        if place is not None and place.type == "cuda":
            return place.index or 0
    return 0


def set_device(device: Any) -> None:
    """Have this thread's new tensors go to a GPU. Raises: AssertionError where the server has none."""
    place = _device(device) if not isinstance(device, int) or device >= 0 else None
    if place is not None:
        _DEFAULT.place = _device("cuda", _index(place))


class device:
    """Within it new tensors go to a GPU: `with torch.cuda.device(0):`."""

    def __init__(self, device: Any) -> None:
        self._chosen = device
        self._within: _device | None = None

    def __enter__(self) -> None:
        if isinstance(self._chosen, int) and self._chosen < 0:
            return
        self._within = _device("cuda", _index(self._chosen))
        self._within.__enter__()

    def __exit__(self, *exc: object) -> None:
        if self._within is not None:
            self._within.__exit__(*exc)
            self._within = None


class device_of(device):
    """Within it new tensors go to the GPU of a tensor; nowhere else if that is on none."""

    def __init__(self, obj: Any) -> None:
        super().__init__(obj.device if obj.is_cuda else -1)


def get_device_name(device: Any = None) -> str:
    """What the maker calls the GPU."""
    name: str = _info(device).description
    return name


def get_device_properties(device: Any = None) -> DeviceProperties:
    """The name and the memory of the GPU; more the server does not tell."""
    info = _info(device)
    return DeviceProperties(info.description, info.total_bytes)


def get_device_capability(device: Any = None) -> NoReturn:
    """Always raises: the server does not tell what its GPU can; ask is_bf16_supported, or try."""
    _index(device)
    raise TensorRuntimeError("the server does not tell the compute capability of its GPU")


def get_arch_list() -> list[str]:
    """Empty: the server does not tell what its torch was built for."""
    return []


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """Whether the server has a GPU: each that torch runs on computes with bfloat16, if slowly."""
    return is_available()


# ---- memory ----------------------------------------------------------------------------------------------------------


def _allocated(device: Any) -> tuple[int, int]:
    """The number of a GPU, and the bytes in use on it."""
    info = _info(device)
    index = int(info.name.partition(":")[2] or 0)
    _most[index] = max(_most.get(index, 0), info.allocated_bytes)
    return index, info.allocated_bytes


def memory_allocated(device: Any = None) -> int:
    """The bytes that tensors of all sessions take on the GPU; 0 without one."""
    return _allocated(device)[1] if is_available() else 0


def max_memory_allocated(device: Any = None) -> int:
    """The most that this program has seen of `memory_allocated`; what lay between its looks it does not know."""
    return _most[_allocated(device)[0]] if is_available() else 0


def memory_reserved(device: Any = None) -> int:
    """As `memory_allocated`: what else the server keeps it does not tell."""
    return memory_allocated(device)


def max_memory_reserved(device: Any = None) -> int:
    """As `max_memory_allocated`."""
    return max_memory_allocated(device)


memory_cached = memory_reserved
max_memory_cached = max_memory_reserved


def reset_peak_memory_stats(device: Any = None) -> None:
    """Forget what was seen of memory before. Nothing without a GPU."""
    if is_available():
        _most.pop(_index(device), None)


reset_max_memory_allocated = reset_peak_memory_stats
reset_max_memory_cached = reset_peak_memory_stats


def memory_stats(device: Any = None) -> OrderedDict[str, int]:
    """What is known of memory, by torch's names."""
    if not is_available():
        return OrderedDict()
    index, allocated = _allocated(device)
    return OrderedDict(
        {"allocated_bytes.all.current": allocated, "allocated_bytes.all.peak": _most[index]},
    )


def memory_summary(device: Any = None, abbreviated: bool = False) -> str:
    """What is known of memory, to be read by people."""
    stats = memory_stats(device)
    if not stats:
        raise KeyError("allocated_bytes.all.current")
    free, total = mem_get_info(device)
    rows = {"in use by tensors": stats["allocated_bytes.all.current"], "at most": stats["allocated_bytes.all.peak"]}
    rows |= {"free": free, "total": total}
    return "\n".join(f"{name:<20}{value / 2**20:>12.1f} MiB" for name, value in rows.items())


def mem_get_info(device: Any = None) -> tuple[int, int]:
    """The free and the total bytes of the GPU."""
    info = _info(device)
    return info.free_bytes, info.total_bytes


def empty_cache() -> None:
    """Nothing: the memory of the server is the server's to manage."""


def ipc_collect() -> None:
    """Nothing, where the server has a GPU: memory is not shared with other processes."""
    init()


# ---- time ------------------------------------------------------------------------------------------------------------


def synchronize(device: Any = None) -> None:
    """Wait until everything that was issued has run. Raises the first failed effect that was not raised yet."""
    _index(device)
    _state.current().synchronize()


def current_stream(device: Any = None) -> Stream:
    """The stream that work is issued to."""
    return Stream(_device("cuda", _index(device)))


default_stream = current_stream


# ---- random numbers --------------------------------------------------------------------------------------------------


def manual_seed(seed: int) -> None:
    """The seed of this session, as `tclient.manual_seed`."""
    _manual_seed(int(seed))


manual_seed_all = manual_seed


def seed() -> None:
    """Set a seed of this session that nobody knows before, where the server has a GPU."""
    if is_available():
        _seed()


seed_all = seed


def initial_seed() -> int:
    """The seed that was set last."""
    init()
    return _initial_seed()


def get_rng_state(device: Any = "cuda") -> Any:
    """The random state of this session, as a tensor of bytes."""
    init()
    return _get_rng_state()


def set_rng_state(new_state: Any, device: Any = "cuda") -> None:
    """Go back to a random state of this session, where the server has a GPU."""
    if is_available():
        _set_rng_state(new_state)


def get_rng_state_all() -> list[Any]:
    """The random state, once for each GPU."""
    return [_get_rng_state() for _ in _devices()]


def set_rng_state_all(new_states: Any) -> None:
    """Go back to a random state of this session."""
    for state in new_states:
        _set_rng_state(state)


if not TYPE_CHECKING:  # a checker refuses unknown names by itself

    def __getattr__(name: str) -> Any:
        if name == "amp":
            import importlib

            return importlib.import_module("tclient.cuda.amp")
        missing(__name__, name, globals())
