"""Functions with gradients of their own under autocast: what lower precision their forward and backward see.

Knows the modes of the calling thread; does not know how a function is applied.
"""

from __future__ import annotations

import functools
from typing import Any

from tclient._codec.dtypes import BY_CODE
from tclient._session.modes import MODES, autocast, is_autocast_enabled
from tclient._tensor import Tensor


def _cast(value: Any, device_type: str, dtype: Any) -> Any:
    if isinstance(value, Tensor):
        fits = value.is_floating_point() and value.device.type == device_type and value.dtype.itemsize < _DOUBLE
        return value.to(dtype) if fits else value
    if isinstance(value, (list, tuple)):
        return type(value)([_cast(each, device_type, dtype) for each in value])
    if isinstance(value, dict):
        return {name: _cast(each, device_type, dtype) for name, each in value.items()}
    return value


_DOUBLE = 8


def custom_fwd(fwd: Any = None, *, device_type: str, cast_inputs: Any = None) -> Any:
    """For the forward of a function: its backward sees the autocast that it saw, or its inputs come in one dtype."""
    if fwd is None:
        return functools.partial(custom_fwd, device_type=device_type, cast_inputs=cast_inputs)

    @functools.wraps(fwd)
    def run(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        is_on = is_autocast_enabled(device_type)
        ctx._autocast = MODES.autocasts.get(device_type)
        ctx._fwd_used_autocast = is_on and cast_inputs is None
        if cast_inputs is None or not is_on:
            return fwd(ctx, *args, **kwargs)
        with autocast(device_type, enabled=False):
            return fwd(ctx, *_cast(args, device_type, cast_inputs), **_cast(kwargs, device_type, cast_inputs))

    return run


def custom_bwd(bwd: Any = None, *, device_type: str) -> Any:
    """For the backward of a function: under the autocast of its forward."""
    if bwd is None:
        return functools.partial(custom_bwd, device_type=device_type)

    @functools.wraps(bwd)
    def run(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        code = ctx._autocast[0] if ctx._autocast else 0
        with autocast(device_type, dtype=BY_CODE[code] if code else None, enabled=ctx._fwd_used_autocast):
            return bwd(ctx, *args, **kwargs)

    return run
