"""The modes of the calling thread: no_grad, inference_mode, autocast, and which GPU "cuda" means to it.

Stamped on each call as an interned context.

They belong to the thread, as in torch; the server enters them for each call. Knows nothing of sessions.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from tclient._codec import wire
from tclient._codec.dtypes import DTYPES, dtype
from tclient._native import ModeFields
from tensorcompute.wire.varint import varint

_F = TypeVar("_F", bound=Callable[..., Any])
# What an autocast computes in where it is not told.
_LOWER = {"cpu": "bfloat16", "cuda": "float16"}
_Key = tuple[bool, bool, tuple[tuple[str, int, bool, bool], ...], int | None]

# All contexts that any thread has used; Call.context is the position + 1. Sessions define them in this order.
CONTEXTS: list[bytes] = []
_known: dict[_Key, tuple[bytes, int]] = {(False, False, (), None): (b"", 0)}
_lock = threading.Lock()


class State(ModeFields):
    """Of a thread, what its calls need to know."""

    __slots__ = ()

    # What goes into a call: the encoded field, or nothing; and its number.
    stamp: bytes
    context: int
    # Whether it is within an autocast, be it a disabled one.
    autocasts: bool
    # What records the calls of this thread; see _compile.
    recorder: Any

    def __init__(self) -> None:
        self.stamp, self.context = b"", 0
        self.autocasts = False
        self.recorder = None


class _Modes(threading.local):
    def __init__(self) -> None:
        self.grad = True
        self.inference = False
        self.autocasts: dict[str, tuple[int, bool, bool]] = {}
        # The number of the current GPU; None where that is the server's first.
        self.gpu: int | None = None
        self.state = State()

    @property
    def stamp(self) -> bytes:
        """What goes into a call."""
        return self.state.stamp

    @property
    def recorder(self) -> Any:
        """What records the calls of this thread."""
        return self.state.recorder

    @recorder.setter
    def recorder(self, recorder: Any) -> None:
        self.state.recorder = recorder


MODES = _Modes()


def _restamp() -> None:
    # torch has no gradient mode within inference mode, whatever it is set to.
    key: _Key = (
        not MODES.grad,
        MODES.inference,
        tuple((kind, *settings) for kind, settings in sorted(MODES.autocasts.items())),
        MODES.gpu,
    )
    stamp = _known.get(key)
    if stamp is None:
        with _lock:
            stamp = _known.get(key)
            if stamp is None:
                CONTEXTS.append(wire.context(*key))
                stamp = _known[key] = wire.CONTEXT + varint(len(CONTEXTS)), len(CONTEXTS)
    state = MODES.state
    state.stamp, state.context = stamp
    state.autocasts = bool(MODES.autocasts)


def set_gpu(gpu: int | None) -> int | None:
    """Have "cuda" mean another GPU to this thread; what it meant before."""
    before = MODES.gpu
    if gpu != before:
        MODES.gpu = gpu
        _restamp()
    return before


def is_grad_enabled() -> bool:
    """Whether this thread records gradients."""
    return MODES.grad


def is_inference_mode_enabled() -> bool:
    """Whether this thread is within inference_mode."""
    return MODES.inference


class _Mode:
    """A context manager that is a decorator too, for functions and generator functions."""

    def __init__(self) -> None:
        self._before: list[tuple[bool, bool, dict[str, tuple[int, bool, bool]]]] = []

    def _apply(self) -> None:
        raise NotImplementedError

    def _again(self) -> _Mode:
        """A fresh one of the same kind, for each use as a decorator."""
        return type(self)()

    def __enter__(self) -> None:
        self._before.append((MODES.grad, MODES.inference, dict(MODES.autocasts)))
        self._apply()
        _restamp()

    def __exit__(self, *exc: object) -> None:
        MODES.grad, MODES.inference, MODES.autocasts = self._before.pop()
        _restamp()

    def __call__(self, function: _F) -> _F:
        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def generator(*args: Any, **kwargs: Any) -> Any:
                source = function(*args, **kwargs)
                value: Any = None
                while True:
                    try:
                        with self._again():
                            item = source.send(value)
                    except StopIteration as end:
                        return end.value
                    try:
                        value = yield item
                    except GeneratorExit:
                        with self._again():
                            source.close()
                        raise
                    except BaseException as error:
                        with self._again():
                            item = source.throw(error)
                        value = yield item

            return generator  # type: ignore[return-value]

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with self._again():
                return function(*args, **kwargs)

        return wrapper  # type: ignore[return-value]


class no_grad(_Mode):
    """Within it no gradients are recorded. Also `@no_grad()` and `@no_grad`."""

    def __new__(cls, function: Any = None) -> Any:
        return super().__new__(cls) if function is None else cls()(function)

    def __init__(self, function: None = None) -> None:
        super().__init__()

    def _apply(self) -> None:
        MODES.grad = False


class enable_grad(_Mode):
    """Within it gradients are recorded. Also `@enable_grad()` and `@enable_grad`."""

    def __new__(cls, function: Any = None) -> Any:
        return super().__new__(cls) if function is None else cls()(function)

    def __init__(self, function: None = None) -> None:
        super().__init__()

    def _apply(self) -> None:
        MODES.grad = True


class set_grad_enabled(_Mode):
    """Sets whether gradients are recorded, at once; as a context manager, until its end."""

    def __init__(self, mode: bool) -> None:
        super().__init__()
        self.mode = bool(mode)
        self._set_before = MODES.grad
        MODES.grad = self.mode
        _restamp()

    def __enter__(self) -> None:
        MODES.grad = self.mode
        _restamp()

    def __exit__(self, *exc: object) -> None:
        MODES.grad = self._set_before
        _restamp()

    def __call__(self, function: _F) -> _F:
        MODES.grad = self._set_before
        _restamp()
        return super().__call__(function)

    def _again(self) -> set_grad_enabled:
        return set_grad_enabled(self.mode)


class inference_mode(_Mode):
    """Within it nothing of autograd is recorded at all. Also `@inference_mode()` and `@inference_mode`."""

    def __new__(cls, mode: Any = True) -> Any:
        return super().__new__(cls) if isinstance(mode, bool) else cls()(mode)

    def __init__(self, mode: bool = True) -> None:
        super().__init__()
        self.mode = mode

    def _apply(self) -> None:
        MODES.inference = self.mode
        MODES.grad = not self.mode

    def _again(self) -> inference_mode:
        made: inference_mode = inference_mode(self.mode)
        return made


class autocast(_Mode):
    """Within it the server runs suitable operations in lower precision, as torch.autocast does.

    Raises: RuntimeError if device_type is neither "cpu" nor "cuda".
    """

    def __init__(
        self,
        device_type: str,
        dtype: dtype | None = None,
        enabled: bool = True,
        cache_enabled: bool | None = None,
    ) -> None:
        super().__init__()
        if device_type not in ("cpu", "cuda"):
            raise RuntimeError(f"User specified an unsupported autocast device_type '{device_type}'")
        self.device = device_type
        self.fast_dtype = dtype
        self._enabled = enabled
        self._cached = True if cache_enabled is None else cache_enabled

    def _apply(self) -> None:
        code = 0 if self.fast_dtype is None else self.fast_dtype.code
        # A disabled autocast is the default, and need not travel, unless it hides an outer one.
        MODES.autocasts = {**MODES.autocasts, self.device: (code, self._enabled, self._cached)}

    def _again(self) -> autocast:
        return autocast(self.device, self.fast_dtype, self._enabled, self._cached)


def is_autocast_enabled(device_type: str = "cuda") -> bool:
    """Whether this thread is within an autocast for that kind of device."""
    found = MODES.autocasts.get(device_type)
    return found is not None and found[1]


def is_autocast_cpu_enabled() -> bool:
    """Whether this thread is within an autocast for the processor."""
    return is_autocast_enabled("cpu")


def is_autocast_cache_enabled() -> bool:
    """Whether an autocast keeps the weights that it has cast; so unless one was told otherwise."""
    return all(cached for _, _, cached in MODES.autocasts.values())


def get_autocast_dtype(device_type: str) -> dtype:
    """What an autocast for that kind of device computes in.

    Raises: RuntimeError if device_type is neither "cpu" nor "cuda".
    """
    if device_type not in _LOWER:
        raise RuntimeError(
            f"unknown device type for autocast in get_autocast_dispatch_key_from_device_type: {device_type}"
        )
    code = MODES.autocasts.get(device_type, (0, False, True))[0]
    return next(each for name, each in DTYPES.items() if (each.code == code if code else name == _LOWER[device_type]))


def get_autocast_cpu_dtype() -> dtype:
    """What an autocast for the processor computes in."""
    return get_autocast_dtype("cpu")


def get_autocast_gpu_dtype() -> dtype:
    """What an autocast for a GPU computes in."""
    return get_autocast_dtype("cuda")
