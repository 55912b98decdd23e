"""Arrays of values, of host data, and of the shape of others."""

from __future__ import annotations

from typing import Any

import numpy as np

import tclient as tc
from tclient import Tensor
from tclient import device as Device
from tclient import dtype as DType
from tclient.array_api._arguments import as_shape
from tclient.array_api._dtypes import Scalar, is_scalar, result_type


def asarray(
    obj: Any, /, *, dtype: DType | None = None, device: Device | str | None = None, copy: bool | None = None
) -> Tensor:
    """An array of an array, a number, nested sequences of them, or an object that lends its memory.

    Raises: ValueError for copy=False, if the elements have to be copied: all do that are not on the server.
    """
    if isinstance(obj, Tensor):
        if copy is False:
            if dtype not in (None, obj.dtype) or (device is not None and tc.device(device) != obj.device):
                raise ValueError("asarray: the array has another dtype or device, which needs a copy")
            return obj
        made: Tensor = obj.to(device=device or obj.device, dtype=dtype or obj.dtype, copy=bool(copy))
        return made
    if copy is False:
        raise ValueError("asarray: the elements are not on the server yet, which needs a copy")
    obj = _lent(obj)
    if dtype is None and isinstance(obj, (list, tuple)):
        dtype = _dtype_of_arrays(obj)
    if isinstance(obj, np.ndarray) and not obj.flags.writeable:
        obj = obj.copy()  # torch warns of memory that it could not share, and nothing is shared here
    made = tc.asarray(obj, dtype=dtype, device=device)
    return made


def _lent(obj: Any) -> Any:
    """An object that lends its bytes, as an array of what they are; torch would take them for bytes alone."""
    if is_scalar(obj) or isinstance(obj, (np.ndarray, np.generic, list, tuple, str)):
        return obj
    if hasattr(obj, "__dlpack__") or hasattr(obj, "__array__"):
        return obj
    try:
        return np.asarray(memoryview(obj))
    except TypeError:
        return obj


def _dtype_of_arrays(items: Any) -> DType | None:
    """The dtype of a sequence of arrays and numbers: that of the arrays, which torch does not look at."""
    if not any(isinstance(each, Tensor) for each in items):
        return None
    if not all(isinstance(each, Tensor) or is_scalar(each) for each in items):
        return None
    return result_type(*items)


def arange(
    start: float,
    /,
    stop: float | None = None,
    step: float = 1,
    *,
    dtype: DType | None = None,
    device: Device | str | None = None,
) -> Tensor:
    """Numbers from `start` up to and without `stop`, a step apart; none if that is not in the direction of the step."""
    if stop is None:
        start, stop = 0, start
    if dtype is None:
        whole = all(isinstance(each, int) for each in (start, stop, step))
        dtype = tc.int64 if whole else tc.get_default_dtype()
    if (step > 0 and stop <= start) or (step < 0 and stop >= start):
        return tc.empty(0, dtype=dtype, device=device)
    return tc.arange(start, stop, step, dtype=dtype, device=device)


def empty(shape: int | tuple[int, ...], *, dtype: DType | None = None, device: Device | str | None = None) -> Tensor:
    """An array of no particular values."""
    return tc.empty(as_shape(shape), dtype=dtype, device=device)


def zeros(shape: int | tuple[int, ...], *, dtype: DType | None = None, device: Device | str | None = None) -> Tensor:
    """An array of zeros."""
    return tc.zeros(as_shape(shape), dtype=dtype, device=device)


def ones(shape: int | tuple[int, ...], *, dtype: DType | None = None, device: Device | str | None = None) -> Tensor:
    """An array of ones."""
    return tc.ones(as_shape(shape), dtype=dtype, device=device)


def full(
    shape: int | tuple[int, ...],
    fill_value: Scalar,
    *,
    dtype: DType | None = None,
    device: Device | str | None = None,
) -> Tensor:
    """An array of one value; its dtype is the default one for such numbers."""
    return tc.full(as_shape(shape), fill_value, dtype=dtype, device=device)


def empty_like(x: Tensor, /, *, dtype: DType | None = None, device: Device | str | None = None) -> Tensor:
    """An array of no particular values, in the shape of another."""
    return tc.empty_like(x, dtype=dtype, device=device)


def zeros_like(x: Tensor, /, *, dtype: DType | None = None, device: Device | str | None = None) -> Tensor:
    """An array of zeros, in the shape of another."""
    return tc.zeros_like(x, dtype=dtype, device=device)


def ones_like(x: Tensor, /, *, dtype: DType | None = None, device: Device | str | None = None) -> Tensor:
    """An array of ones, in the shape of another."""
    return tc.ones_like(x, dtype=dtype, device=device)


def full_like(
    x: Tensor, /, fill_value: Scalar, *, dtype: DType | None = None, device: Device | str | None = None
) -> Tensor:
    """An array of one value, in the shape of another."""
    return tc.full_like(x, fill_value, dtype=dtype, device=device)


def eye(
    n_rows: int,
    n_cols: int | None = None,
    /,
    *,
    k: int = 0,
    dtype: DType | None = None,
    device: Device | str | None = None,
) -> Tensor:
    """A matrix with ones on a diagonal, k above the main one."""
    columns = tc.arange(n_rows if n_cols is None else n_cols, device=device)
    rows = tc.arange(n_rows, device=device)
    made: Tensor = (columns - k == rows[:, None]).to(tc.get_default_dtype() if dtype is None else dtype)
    return made


def linspace(
    start: complex,
    stop: complex,
    /,
    num: int,
    *,
    dtype: DType | None = None,
    device: Device | str | None = None,
    endpoint: bool = True,
) -> Tensor:
    """`num` numbers from `start` to `stop`, with it or without."""
    if endpoint:
        return tc.linspace(start, stop, num, dtype=dtype, device=device)
    return tc.linspace(start, stop, num + 1, dtype=dtype, device=device)[:num]


def meshgrid(*arrays: Tensor, indexing: str = "xy") -> tuple[Tensor, ...]:
    """The coordinates of a grid, of those along each axis."""
    return tuple(tc.meshgrid(*arrays, indexing=indexing)) if arrays else ()


def tril(x: Tensor, /, *, k: int = 0) -> Tensor:
    """The lower triangles of matrices."""
    return tc.tril(x, k)


def triu(x: Tensor, /, *, k: int = 0) -> Tensor:
    """The upper triangles of matrices."""
    return tc.triu(x, k)


def from_dlpack(x: Any, /, *, device: Device | str | None = None, copy: bool | None = None) -> Tensor:
    """An array of the elements of an object that hands out its memory.

    Raises: ValueError for copy=False, if the elements are not on the server yet.
    """
    if copy is False and not isinstance(x, Tensor):
        raise ValueError("from_dlpack: the elements are not on the server yet, which needs a copy")
    made: Tensor = tc.from_dlpack(x, device=device, copy=copy)
    return made
