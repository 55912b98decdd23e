"""A client for a tensor server that reads like torch, and needs no torch.

    import tclient as torch

    torch.connect("127.0.0.1:50051")
    x = torch.ones(2, 3)
    print(x @ x.T)

Operations run on the server, in order, without waiting for each other; reading (print, item, numpy) waits.
"""

from __future__ import annotations

import math as _math
from typing import Any as _Any

from tclient import _polling as _polling  # isort: skip
from tclient import _namespace, _types
from tclient._codec.device import device as device
from tclient._codec.dtypes import ALIASES as _ALIASES
from tclient._codec.dtypes import DTYPES as _DTYPES
from tclient._codec.dtypes import LAYOUTS as _LAYOUTS
from tclient._codec.dtypes import MEMORY_FORMATS as _MEMORY_FORMATS
from tclient._codec.dtypes import (
    dtype as dtype,
)
from tclient._codec.dtypes import (
    finfo as finfo,
)
from tclient._codec.dtypes import (
    iinfo as iinfo,
)
from tclient._codec.dtypes import (
    layout as layout,
)
from tclient._codec.dtypes import (
    memory_format as memory_format,
)
from tclient._codec.size import Size as Size
from tclient._compile import (
    compile as compile,
)
from tclient._exceptions import (
    AcceleratorError as AcceleratorError,
)
from tclient._exceptions import (
    CallCancelled as CallCancelled,
)
from tclient._exceptions import (
    ConnectFailed as ConnectFailed,
)
from tclient._exceptions import (
    InvalidAddress as InvalidAddress,
)
from tclient._exceptions import (
    LimitReached as LimitReached,
)
from tclient._exceptions import (
    LinAlgError as LinAlgError,
)
from tclient._exceptions import (
    MemoryLimitReached as MemoryLimitReached,
)
from tclient._exceptions import (
    NotAuthenticated as NotAuthenticated,
)
from tclient._exceptions import (
    NotConnectedError as NotConnectedError,
)
from tclient._exceptions import (
    OutOfMemoryError as OutOfMemoryError,
)
from tclient._exceptions import (
    ReadTimeout as ReadTimeout,
)
from tclient._exceptions import (
    RequestRefused as RequestRefused,
)
from tclient._exceptions import (
    ServerBusy as ServerBusy,
)
from tclient._exceptions import (
    ServerError as ServerError,
)
from tclient._exceptions import (
    ServerFailed as ServerFailed,
)
from tclient._exceptions import (
    SessionLost as SessionLost,
)
from tclient._exceptions import (
    SessionTakenOver as SessionTakenOver,
)
from tclient._exceptions import (
    TensorError as TensorError,
)
from tclient._exceptions import (
    UseLimitReached as UseLimitReached,
)
from tclient._exceptions import (
    VersionMismatch as VersionMismatch,
)
from tclient._functions import (
    borrow as borrow,
)
from tclient._functions import (
    forget as forget,
)
from tclient._functions import (
    from_dlpack as from_dlpack,
)
from tclient._functions import (
    from_numpy as from_numpy,
)
from tclient._functions import (
    frombuffer as frombuffer,
)
from tclient._functions import (
    get_default_device as get_default_device,
)
from tclient._functions import (
    get_default_dtype as get_default_dtype,
)
from tclient._functions import (
    is_complex as is_complex,
)
from tclient._functions import (
    is_floating_point as is_floating_point,
)
from tclient._functions import (
    is_tensor as is_tensor,
)
from tclient._functions import (
    keep as keep,
)
from tclient._functions import (
    move as move,
)
from tclient._functions import (
    names as names,
)
from tclient._functions import (
    numel as numel,
)
from tclient._functions import (
    recall as recall,
)
from tclient._functions import (
    set_default_device as set_default_device,
)
from tclient._functions import (
    set_default_dtype as set_default_dtype,
)
from tclient._functions import (
    set_default_tensor_type as set_default_tensor_type,
)
from tclient._functions import (
    share as share,
)
from tclient._functions import (
    synchronize as synchronize,
)
from tclient._functions import (
    synchronize_async as synchronize_async,
)
from tclient._functions import (
    typename as typename,
)
from tclient._info import (
    DeviceInfo as DeviceInfo,
)
from tclient._info import (
    ServerInfo as ServerInfo,
)
from tclient._info import (
    server_info as server_info,
)
from tclient._launcher.alias import as_torch as as_torch
from tclient._launcher.alias import load_ipython_extension as load_ipython_extension
from tclient._libraries import tell as _tell_libraries
from tclient._namespace import Generator as Generator
from tclient._session.credentials import SessionCredentials as SessionCredentials
from tclient._session.current import (
    attach as attach,
)
from tclient._session.current import (
    cancel as cancel,
)
from tclient._session.current import (
    connect as connect,
)
from tclient._session.current import (
    disconnect as disconnect,
)
from tclient._session.current import install as _install
from tclient._session.current import (
    resume as resume,
)
from tclient._session.current import (
    synchronous as synchronous,
)
from tclient._session.modes import (
    autocast as autocast,
)
from tclient._session.modes import (
    enable_grad as enable_grad,
)
from tclient._session.modes import (
    get_autocast_cpu_dtype as get_autocast_cpu_dtype,
)
from tclient._session.modes import (
    get_autocast_dtype as get_autocast_dtype,
)
from tclient._session.modes import (
    get_autocast_gpu_dtype as get_autocast_gpu_dtype,
)
from tclient._session.modes import (
    inference_mode as inference_mode,
)
from tclient._session.modes import (
    is_autocast_cache_enabled as is_autocast_cache_enabled,
)
from tclient._session.modes import (
    is_autocast_cpu_enabled as is_autocast_cpu_enabled,
)
from tclient._session.modes import (
    is_autocast_enabled as is_autocast_enabled,
)
from tclient._session.modes import (
    is_grad_enabled as is_grad_enabled,
)
from tclient._session.modes import (
    is_inference_mode_enabled as is_inference_mode_enabled,
)
from tclient._session.modes import (
    no_grad as no_grad,
)
from tclient._session.modes import (
    set_grad_enabled as set_grad_enabled,
)
from tclient._session.session import Session as Session
from tclient._settings import (
    are_deterministic_algorithms_enabled as are_deterministic_algorithms_enabled,
)
from tclient._settings import (
    get_deterministic_debug_mode as get_deterministic_debug_mode,
)
from tclient._settings import (
    get_float32_matmul_precision as get_float32_matmul_precision,
)
from tclient._settings import (
    get_num_interop_threads as get_num_interop_threads,
)
from tclient._settings import (
    get_num_threads as get_num_threads,
)
from tclient._settings import (
    is_deterministic_algorithms_warn_only_enabled as is_deterministic_algorithms_warn_only_enabled,
)
from tclient._settings import (
    is_warn_always_enabled as is_warn_always_enabled,
)
from tclient._settings import (
    set_deterministic_debug_mode as set_deterministic_debug_mode,
)
from tclient._settings import (
    set_float32_matmul_precision as set_float32_matmul_precision,
)
from tclient._settings import (
    set_flush_denormal as set_flush_denormal,
)
from tclient._settings import (
    set_num_interop_threads as set_num_interop_threads,
)
from tclient._settings import (
    set_num_threads as set_num_threads,
)
from tclient._settings import (
    set_warn_always as set_warn_always,
)
from tclient._settings import (
    use_deterministic_algorithms as use_deterministic_algorithms,
)
from tclient._tensor import Tensor as Tensor
from tclient.random import default_generator as default_generator
from tclient.random import manual_seed as manual_seed
from tclient.serialization import load as load
from tclient.serialization import save as save
from tclient.storage import TypedStorage as TypedStorage
from tclient.storage import UntypedStorage as UntypedStorage
from tclient.storage import is_storage as is_storage
from tensorcompute import __version__ as __version__

inf = _math.inf
nan = _math.nan
pi = _math.pi
e = _math.e
newaxis = None

# Generated names do not replace what is written above. Functions of this module must not use builtins that torch hides
# (abs, max, float…): from here on those names are torch's.
_written = {*globals()}
globals().update({name: each for name, each in _namespace.functions().items() if name not in _written})
globals().update(_DTYPES)
globals().update(_types.typed_classes("cpu"))
globals().update({alias: _DTYPES[name] for alias, name in _ALIASES.items()})
globals().update({repr(each).removeprefix("torch."): each for each in _MEMORY_FORMATS.values()})
globals().update({repr(each).removeprefix("torch."): each for each in _LAYOUTS.values()})
_install()

_tell_libraries()

# They are built of what is above.
from tclient import autograd as autograd  # noqa: E402
from tclient import cuda as cuda  # noqa: E402
from tclient import fft as fft  # noqa: E402
from tclient import linalg as linalg  # noqa: E402
from tclient import special as special  # noqa: E402
from tclient.autograd.anomaly_mode import is_anomaly_check_nan_enabled as is_anomaly_check_nan_enabled  # noqa: E402
from tclient.autograd.anomaly_mode import is_anomaly_enabled as is_anomaly_enabled  # noqa: E402
from tclient.autograd.anomaly_mode import set_anomaly_enabled as set_anomaly_enabled  # noqa: E402

_LAZY = (
    "accelerator",
    "amp",
    "array_api",
    "backends",
    "compiler",
    "distributed",
    "distributions",
    "func",
    "futures",
    "fx",
    "hub",
    "jit",
    "masked",
    "library",
    "models",
    "mps",
    "multiprocessing",
    "nn",
    "onnx",
    "ops",
    "optim",
    "signal",
    "sparse",
    "testing",
    "types",
    "utils",
    "version",
    "xpu",
)


_SELDOM = ("_assert", "_check", "_foreach_", "_shape_as_tensor")


def __getattr__(name: str) -> _Any:
    if name in _LAZY:
        import importlib

        return importlib.import_module(f"tclient.{name}")
    if name == "vmap":
        from tclient._transforms import vmap

        return vmap
    if name.startswith(_SELDOM):
        from tclient import _foreach, _private

        found = _private.FUNCTIONS.get(name) or _foreach.FUNCTIONS.get(name)
        if found is not None:
            return found
    _namespace.missing("tclient", name, globals())


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, "vmap"})
