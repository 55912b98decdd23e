"""torch.cuda, of the server: which GPUs are there, what are they, how full. Without one it is that of a torch for CPUs.

_gpus     which GPU is the current one
amp       autocast and GradScaler by their old names
streams   streams and events: work is issued in one order, and timed by when it was done

Knows what the server tells.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from tclient._codec.device import device as _device
from tclient._exceptions import OutOfMemoryError as OutOfMemoryError
from tclient._exceptions import TensorAssertionError, TensorRuntimeError
from tclient._info import own_devices
from tclient._issue import call_builtin
from tclient._namespace import missing
from tclient._types import typed_classes
from tclient.cuda import _gpus
from tclient.cuda.streams import Event as Event
from tclient.cuda.streams import Stream as Stream
from tclient.cuda.streams import StreamContext as StreamContext
from tclient.cuda.streams import stream as stream

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


def is_available() -> bool:
    """Whether the server has a GPU."""
    return bool(_gpus.names())


def device_count() -> int:
    """How many GPUs the session may use."""
    return len(_gpus.names())


def init() -> None:
    """Nothing, where the server has a GPU. Raises: AssertionError where it has none."""
    _gpus.require()


def is_initialized() -> bool:
    """Whether the server has a GPU, ready."""
    return is_available()


def _info(index: int) -> Any:
    return next(each for each in own_devices() if each.name == f"cuda:{index}")


def current_device() -> int:
    """The number of the GPU that "cuda" means to this thread, and where new tensors go if they go to a GPU."""
    init()
    return _gpus.current_index()


def set_device(device: Any) -> None:
    """Have "cuda" mean a GPU to this thread from now on. A number below 0 changes nothing.

    Raises: AssertionError where the server has no GPU; ValueError for no number; AcceleratorError for one without GPU.
    """
    index = device if isinstance(device, int) and device < 0 else _gpus.index_of(device, optional=False)
    if index >= 0:
        _gpus.choose(index)


class device:
    """Within it "cuda" means a GPU to this thread: `with torch.cuda.device(1):`. A number below 0 changes nothing."""

    def __init__(self, device: Any) -> None:
        self.idx = device if isinstance(device, int) else _gpus.index_of(device)
        self._before: list[int | None] = []

    def __enter__(self) -> None:
        if self.idx >= 0:
            _gpus.require()
            self._before.append(_gpus.choose(self.idx))

    def __exit__(self, *exc: object) -> None:
        if self.idx >= 0:
            _gpus.restore(self._before.pop())


class device_of(device):
    """Within it "cuda" means the GPU of a tensor; what it meant before, if that is on none."""

    def __init__(self, obj: Any) -> None:
        super().__init__(obj.get_device() if obj.is_cuda else -1)


def get_device_name(device: Any = None) -> str:
    """What the maker calls the GPU."""
    name: str = _properties(device).description
    return name


def _properties(device: Any) -> Any:
    index = _gpus.index_of(device)
    if not _gpus.is_there(index):
        raise TensorAssertionError("Invalid device id")
    return _info(index)


def get_device_properties(device: Any = None) -> DeviceProperties:
    """The name and the memory of the GPU; more the server does not tell."""
    info = _properties(device)
    return DeviceProperties(info.description, info.total_bytes)


def get_device_capability(device: Any = None) -> NoReturn:
    """Always raises: the server does not tell what its GPU can; ask is_bf16_supported, or try."""
    _gpus.index_of(device)
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
    index = _counted(device)
    allocated: int = _info(index).allocated_bytes
    _most[index] = max(_most.get(index, 0), allocated)
    return index, allocated


def _counted(device: Any) -> int:
    """The number of a GPU whose memory is counted."""
    index = _gpus.index_of(device)
    if not _gpus.is_there(index):
        raise TensorRuntimeError(f"Invalid device argument {index}: did you call init?")
    return index


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
        _most.pop(_counted(device), None)


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
    index = _gpus.index_of(device)
    if not _gpus.is_there(index):
        _gpus.wait_for(index)
    info = _info(index)
    return info.free_bytes, info.total_bytes


def empty_cache() -> None:
    """Nothing: the memory of the server is the server's to manage."""


def ipc_collect() -> None:
    """Nothing, where the server has a GPU: memory is not shared with other processes."""
    init()


# ---- time ------------------------------------------------------------------------------------------------------------


def synchronize(device: Any = None) -> None:
    """Wait until a GPU has done everything that was issued. Raises the first failed effect that was not raised yet."""
    index = _gpus.index_of(device)
    _gpus.wait_for(index if index >= 0 else current_device())


def current_stream(device: Any = None) -> Stream:
    """The stream that work on a GPU is issued to."""
    return Stream(_device("cuda", _gpus.index_of(device)))


default_stream = current_stream


# ---- random numbers --------------------------------------------------------------------------------------------------


def _generator(index: int) -> Any:
    """What draws the numbers of a GPU for this session."""
    return call_builtin("tc.Generator.of_gpu", index)


def _generator_at(place: Any) -> Any:
    index = place if isinstance(place, int) else _device(place).index
    return _generator(_gpus.current_index() if index is None else index)


def manual_seed(seed: int) -> None:
    """Set the seed of the current GPU's numbers in this session. Nothing without a GPU."""
    seed = int(seed)
    if is_available():
        _generator(_gpus.current_index()).manual_seed(seed)


def manual_seed_all(seed: int) -> None:
    """The same for all GPUs."""
    seed = int(seed)
    for index in range(device_count()):
        _generator(index).manual_seed(seed)


def seed() -> None:
    """Set a seed of the current GPU's numbers that nobody knows before. Nothing without a GPU."""
    if is_available():
        _generator(_gpus.current_index()).seed()


def seed_all() -> None:
    """The same for all GPUs, which get one seed."""
    chosen: int | None = None
    for index in range(device_count()):
        if chosen is None:
            chosen = _generator(index).seed()
        else:
            _generator(index).manual_seed(chosen)


def initial_seed() -> int:
    """The seed of the current GPU's numbers that was set last."""
    found: int = _generator(current_device()).initial_seed()
    return found


def get_rng_state(device: Any = "cuda") -> Any:
    """The random state of a GPU in this session, as a tensor of bytes."""
    init()
    return _generator_at(device).get_state()


def set_rng_state(new_state: Any, device: Any = "cuda") -> None:
    """Go back to a random state of a GPU in this session. Nothing without a GPU."""
    if is_available():
        _generator_at(device).set_state(new_state)


def get_rng_state_all() -> list[Any]:
    """The random state of each GPU."""
    return [get_rng_state(index) for index in range(device_count())]


def set_rng_state_all(new_states: Any) -> None:
    """Go back to a random state of each GPU."""
    for index, state in enumerate(new_states):
        set_rng_state(state, index)


if not TYPE_CHECKING:  # a checker refuses unknown names by itself

    def __getattr__(name: str) -> Any:
        if name == "amp":
            import importlib

            return importlib.import_module("tclient.cuda.amp")
        if name == "default_generators":
            return tuple(_generator(index) for index in range(device_count()))
        missing(__name__, name, globals())
