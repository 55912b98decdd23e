"""Other shapes of the same elements, arrays joined and taken apart, and conversions."""

from __future__ import annotations

import itertools

import tclient as tc
from tclient import Tensor
from tclient import device as Device
from tclient import dtype as DType
from tclient.array_api._arguments import Axes, as_shape, normalized, normalized_all, of_one_dtype


def astype(x: Tensor, dtype: DType, /, *, copy: bool = True, device: Device | str | None = None) -> Tensor:
    """The array in a dtype; itself, if it has it and no copy is asked for."""
    made: Tensor = x.to(device=device or x.device, dtype=dtype, copy=copy)
    return made


def broadcast_shapes(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that arrays of these shapes have together. Raises: ValueError if there is none."""
    found = []
    for sizes in itertools.zip_longest(*map(reversed, shapes), fillvalue=1):
        others = {each for each in sizes if each != 1} or {1}
        if len(others) > 1:
            raise ValueError(f"the shapes {', '.join(map(str, map(tuple, shapes)))} do not go together")
        found.append(others.pop())
    return tuple(reversed(found))


def broadcast_to(x: Tensor, /, shape: tuple[int, ...]) -> Tensor:
    """The array in a larger shape, where its elements stand repeatedly. Raises: ValueError if it is not one of its."""
    if broadcast_shapes(x.shape, shape) != tuple(shape):
        raise ValueError(f"an array of the shape {tuple(x.shape)} cannot be broadcast to {tuple(shape)}")
    return tc.broadcast_to(x, tuple(shape))


def broadcast_arrays(*arrays: Tensor) -> tuple[Tensor, ...]:
    """Arrays in the shape that they have together."""
    shape = broadcast_shapes(*(each.shape for each in arrays))
    return tuple(tc.broadcast_to(each, shape) for each in arrays)


def concat(arrays: tuple[Tensor, ...] | list[Tensor], /, *, axis: int | None = 0) -> Tensor:
    """Arrays one after the other along an axis; without one, all of their elements."""
    parts = of_one_dtype(*arrays)
    if axis is None:
        return tc.cat([each.flatten() for each in parts])
    for part in parts:
        normalized(axis, part.ndim)
    return tc.cat(parts, axis)


def stack(arrays: tuple[Tensor, ...] | list[Tensor], /, *, axis: int = 0) -> Tensor:
    """Arrays of one shape along a new axis."""
    return tc.stack(of_one_dtype(*arrays), axis)


def unstack(x: Tensor, /, *, axis: int = 0) -> tuple[Tensor, ...]:
    """The arrays along an axis. Raises: IndexError if there is none; ValueError for an array of no axes."""
    if not x.ndim:
        raise ValueError("an array of no axes cannot be taken apart")
    return tuple(tc.unbind(x, normalized(axis, x.ndim)))


def expand_dims(x: Tensor, /, axis: int | tuple[int, ...] = 0) -> Tensor:
    """The array with new axes of the size 1. Raises: IndexError for a place that it does not have then."""
    count = len(axis) if isinstance(axis, tuple) else 1
    for place in sorted(normalized_all(axis, x.ndim + count)):
        x = tc.unsqueeze(x, place)
    return x


def squeeze(x: Tensor, /, axis: int | tuple[int, ...]) -> Tensor:
    """The array without axes of the size 1. Raises: ValueError for one of another size."""
    axes = normalized_all(axis, x.ndim)
    if any(x.shape[each] != 1 for each in axes):
        raise ValueError(f"an axis of {axis} is not of the size 1; the shape is {tuple(x.shape)}")
    return tc.squeeze(x, axes)


def flip(x: Tensor, /, *, axis: Axes = None) -> Tensor:
    """The array in the opposite order along axes, or all."""
    return tc.flip(x, tuple(range(x.ndim)) if axis is None else normalized_all(axis, x.ndim))


def roll(x: Tensor, /, shift: int | tuple[int, ...], *, axis: Axes = None) -> Tensor:
    """The array with its elements moved on, and in again at the other side."""
    if axis is None:
        return tc.roll(x, shift)
    if isinstance(shift, int) and isinstance(axis, tuple):
        shift = (shift,) * len(axis)
    return tc.roll(x, shift, axis)


def moveaxis(x: Tensor, source: int | tuple[int, ...], destination: int | tuple[int, ...], /) -> Tensor:
    """The array with axes in other places."""
    return tc.moveaxis(x, normalized_all(source, x.ndim), normalized_all(destination, x.ndim))


def permute_dims(x: Tensor, /, axes: tuple[int, ...]) -> Tensor:
    """The array with its axes in another order."""
    return tc.permute(x, tuple(axes))


def matrix_transpose(x: Tensor, /) -> Tensor:
    """Matrices with rows and columns exchanged. Raises: ValueError for an array of fewer than two axes."""
    if x.ndim < 2:
        raise ValueError(f"an array of {x.ndim} axes is no matrix")
    return tc.transpose(x, -2, -1)


def reshape(x: Tensor, /, shape: tuple[int, ...], *, copy: bool | None = None) -> Tensor:
    """The elements in another shape. Raises: ValueError for copy=False, if they have to be copied."""
    sizes = as_shape(shape)
    if copy is None:
        return tc.reshape(x, sizes)
    if copy:
        return tc.reshape(x, sizes).clone()
    made = x.view(sizes)
    try:
        made.shape  # noqa: B018 (waits, and says whether there is such a view)
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    return made


def repeat(x: Tensor, repeats: int | Tensor, /, *, axis: int | None = None) -> Tensor:
    """Each element several times."""
    if isinstance(repeats, Tensor):
        repeats = repeats.to(tc.int64)
        if not repeats.ndim:
            repeats = repeats.reshape(1)
    return tc.repeat_interleave(x, repeats, axis)


def tile(x: Tensor, repetitions: tuple[int, ...], /) -> Tensor:
    """The array several times along each axis."""
    return tc.tile(x, tuple(repetitions))
