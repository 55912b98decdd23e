"""Arrays that are moved: where their bytes go. Knows numpy; does not know how they travel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tclient._codec.dtypes import BY_CODE
from tclient._exceptions import ServerFailed, TensorTypeError, TensorValueError

Array = np.ndarray[Any, Any]
# The code of the dtype, the shape, and the bytes.
Fetched = tuple[int, tuple[int, ...], Array]


def check_out(out: Array, dtype_code: int, shape: Sequence[int]) -> None:
    """Raises: TypeError or ValueError if `out` is not an array for these elements."""
    wanted = BY_CODE[dtype_code]
    if wanted.numpy != out.dtype:
        raise TensorTypeError(f"numpy: out has dtype {out.dtype}, but the tensor is {wanted}")
    if tuple(shape) != out.shape:
        raise TensorValueError(f"numpy: out has shape {out.shape}, but the tensor has shape {tuple(shape)}")
    if not out.flags.writeable:
        raise TensorValueError("numpy: out is read-only; give an array that can be written")


def memory_for(dtype_code: int, shape: Sequence[int], size_bytes: int, out: Array | None) -> Array:
    """Where the bytes go: into `out`, where that can be filled as it is."""
    if dtype_code not in BY_CODE:
        raise ServerFailed(f"download: dtype {dtype_code} is not known to this client")
    if out is not None:
        check_out(out, dtype_code, shape)
        if out.flags.c_contiguous and out.nbytes == size_bytes:
            return out.reshape(-1).view(np.uint8)
    return np.empty(size_bytes, np.uint8)
