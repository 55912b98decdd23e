"""The operators that numpy runs on the client: on constants, and on the sizes of tensors.

Exporters write the sizes of a Reshape as a graph of their own: Shape, Gather, Concat and arithmetic between them. Such
arrays are short, and none that is not is made here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tclient._exceptions import TensorValueError
from tclient._onnx.reading import DTYPES, Array, Node

# Elements of an array that is computed here. What is larger is the server's.
MOST = 1 << 16
# Places along an axis that are worked out here: where a resized or reflected one takes its elements from.
LONGEST = 1 << 20


class TooLarge(Exception):
    """The result is not for here."""


def fold(node: Node, inputs: Sequence[Array | None]) -> list[Array]:
    """The outputs of a node. Raises: TooLarge; ValueError for inputs that do not fit."""
    present = [found for found in inputs if found is not None]
    if sum(found.size for found in present) > MOST:
        raise TooLarge
    try:
        with np.errstate(all="ignore"):
            made = FOLDED[node.domain, node.kind](node, *inputs)
    except TooLarge:
        raise
    except (ArithmeticError, IndexError, TypeError, ValueError, MemoryError) as error:
        raise TensorValueError(f"onnx: {node}: {error}") from None
    results = list(made) if isinstance(made, (tuple, list)) else [made]
    return [np.asarray(found) for found in results]


def _sized(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape whose array is short enough to be made. Raises: TooLarge; ValueError for what is no shape."""
    sizes = tuple(int(size) for size in shape)
    if any(size < 0 for size in sizes):
        raise ValueError(f"the sizes {sizes} are not those of a tensor")
    if math.prod(sizes) > MOST:
        raise TooLarge
    return sizes


def axis_in(axis: int, ndim: int) -> int:
    """An axis, counted from the start. Raises: IndexError where there is none."""
    if not -ndim <= axis < ndim:
        raise IndexError(f"there is no axis {axis} among {ndim}")
    return axis % ndim


def axes_of(node: Node, given: Any) -> list[int] | None:
    """Axes, which are an attribute in old opsets and an input in new ones."""
    if given is not None:
        return [int(axis) for axis in np.atleast_1d(given)]
    found = node.get("axes")
    return None if found is None else [int(axis) for axis in found]


def slices_of(node: Node, ndim: int, starts: Any, ends: Any, axes: Any, steps: Any) -> list[tuple[int, slice]]:
    """What a Slice takes of each axis that it names."""
    starts, ends = node.get("starts", starts), node.get("ends", ends)
    axes = node.get("axes", axes)
    starts, ends = [int(at) for at in starts], [int(at) for at in ends]
    axes = range(len(starts)) if axes is None else [int(axis) % max(ndim, 1) for axis in axes]
    steps = [1] * len(starts) if steps is None else [int(step) for step in steps]
    if 0 in steps:
        raise ValueError("a step of 0")
    return [(axis, slice(*found)) for axis, *found in zip(axes, starts, ends, steps, strict=True)]


def _numpy(function: Callable[..., Any], *, same: bool = False) -> Callable[..., Any]:
    def run(node: Node, *inputs: Array) -> Any:
        _sized(np.broadcast_shapes(*(found.shape for found in inputs)))
        made = function(*inputs)
        return made.astype(inputs[0].dtype) if same else made

    return run


def _divided(x: Array, y: Array) -> Any:
    if np.issubdtype(x.dtype, np.inexact):
        return x / y
    quotient = np.floor_divide(x, y)
    return quotient + ((quotient < 0) & (quotient * y != x))


def _divide(x: Array, y: Array) -> Any:
    if not np.issubdtype(y.dtype, np.inexact) and not np.all(y):
        raise ZeroDivisionError("an integer is divided by 0")
    return _divided(x, y)


def _modulo(node: Node, x: Array, y: Array) -> Any:
    _sized(np.broadcast_shapes(x.shape, y.shape))
    return np.fmod(x, y) if node.get("fmod") else np.mod(x, y)


def _power(node: Node, x: Array, y: Array) -> Any:
    _sized(np.broadcast_shapes(x.shape, y.shape))
    if np.issubdtype(x.dtype, np.integer) and np.issubdtype(y.dtype, np.integer) and np.any(y < 0):
        raise ValueError("an integer to a negative power")
    return np.power(x, y).astype(x.dtype)


def _folded(*functions: Callable[..., Any]) -> Callable[..., Any]:
    """Of any number of inputs, two by two."""

    def run(node: Node, *inputs: Array) -> Any:
        made = inputs[0]
        for found in inputs[1:]:
            made = _numpy(functions[0])(node, made, found)
        return made

    return run


def _cast(node: Node, x: Array) -> Any:
    element = DTYPES[node.get("to")].numpy
    if element is None:
        raise TooLarge  # numpy lacks the type: the server casts
    return x.astype(element)


def _range(node: Node, start: Array, limit: Array, delta: Array) -> Any:
    if not np.all(delta):
        raise ValueError("a step of 0")
    length = max(0, math.ceil((limit.item() - start.item()) / delta.item()))
    _sized([length])
    return (start.item() + np.arange(length) * delta.item()).astype(start.dtype)


def _constant_of_shape(node: Node, shape: Array) -> Any:
    value = node.get("value", np.zeros(1, np.float32))
    return np.full(_sized(shape.tolist()), value.reshape(-1)[0], value.dtype)


def reshaped(node: Node, shape: Sequence[int], sizes: Sequence[int] | Callable[[], Sequence[int]]) -> list[int]:
    """The sizes that a Reshape asks for; those of the input are only looked at where it keeps some of them."""
    wanted = [int(size) for size in shape]
    if 0 not in wanted or node.get("allowzero", 0):
        return wanted
    old = sizes() if callable(sizes) else sizes
    if any(size == 0 and at >= len(old) for at, size in enumerate(wanted)):
        raise ValueError(f"the shape {wanted} keeps a size that {list(old)} does not have")
    return [old[at] if size == 0 else size for at, size in enumerate(wanted)]


def _reshape(node: Node, x: Array, shape: Array) -> Any:
    return x.reshape(reshaped(node, shape.tolist(), x.shape))


def _squeeze(node: Node, x: Array, axes: Array | None = None) -> Any:
    found = axes_of(node, axes)
    return x.squeeze() if found is None else x.squeeze(tuple(found))


def _unsqueeze(node: Node, x: Array, axes: Array | None = None) -> Any:
    return np.expand_dims(x, tuple(axes_of(node, axes) or ()))


def _slice(node: Node, x: Array, starts: Any = None, ends: Any = None, axes: Any = None, steps: Any = None) -> Any:
    taken: list[Any] = [slice(None)] * x.ndim
    for axis, found in slices_of(node, x.ndim, starts, ends, axes, steps):
        taken[axis] = found
    return x[tuple(taken)]


def _gather(node: Node, x: Array, indices: Array) -> Any:
    axis = node.get("axis", 0)
    _sized([x.size // max(x.shape[axis], 1), indices.size])
    return np.take(x, indices, axis)


def split_sizes(node: Node, size: int, split: Any) -> list[int]:
    """The sizes of the parts that a Split makes of an axis."""
    given = node.get("split", split)
    if given is not None:
        return [int(part) for part in given]
    count = node.get("num_outputs", len(node.outputs))
    if not 0 < count <= size:
        raise ValueError(f"an axis of {size} cannot be split into {count}")
    part = -(-size // count)
    return [part] * (count - 1) + [size - part * (count - 1)]


def _split(node: Node, x: Array, split: Array | None = None) -> Any:
    axis = node.get("axis", 0)
    sizes = split_sizes(node, x.shape[axis], split)
    if sum(sizes) != x.shape[axis] or min(sizes, default=0) < 0:
        raise ValueError(f"an axis of {x.shape[axis]} cannot be split into {sizes}")
    return np.split(x, np.cumsum(sizes)[:-1], axis)


def _expand(node: Node, x: Array, shape: Array) -> Any:
    return np.broadcast_to(x, _sized(np.broadcast_shapes(x.shape, _sized(shape.tolist()))))


def _tile(node: Node, x: Array, repeats: Array) -> Any:
    _sized([size * times for size, times in zip(x.shape, repeats.tolist(), strict=True)])
    return np.tile(x, repeats)


def _reduce(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(node: Node, x: Array, axes: Array | None = None) -> Any:
        found = axes_of(node, axes)
        if not found and node.get("noop_with_empty_axes"):
            return x
        made = function(x, axis=tuple(found) if found else None, keepdims=bool(node.get("keepdims", 1)))
        return np.asarray(made).astype(x.dtype)

    return run


def _transpose(node: Node, x: Array) -> Any:
    return x.transpose(node.get("perm"))


def _concat(node: Node, *xs: Array) -> Any:
    return np.concatenate(xs, node.get("axis", 1))


def _scatter_nd(node: Node, x: Array, indices: Array, updates: Array) -> Any:
    made = x.copy()
    made[tuple(np.moveaxis(indices, -1, 0))] = updates
    return made


def _identity(node: Node, x: Array) -> Any:
    return x


def _where(condition: Array, x: Array, y: Array) -> Any:
    return np.where(condition, x, y)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Abs": _numpy(np.abs),
    "Add": _numpy(np.add),
    "And": _numpy(np.logical_and),
    "Cast": _cast,
    "Ceil": _numpy(np.ceil),
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Div": _numpy(_divide),
    "Equal": _numpy(np.equal),
    "Expand": _expand,
    "Floor": _numpy(np.floor),
    "Gather": _gather,
    "Greater": _numpy(np.greater),
    "GreaterOrEqual": _numpy(np.greater_equal),
    "Identity": _identity,
    "Less": _numpy(np.less),
    "LessOrEqual": _numpy(np.less_equal),
    "Max": _folded(np.maximum),
    "Min": _folded(np.minimum),
    "Mod": _modulo,
    "Mul": _numpy(np.multiply),
    "Neg": _numpy(np.negative),
    "Not": _numpy(np.logical_not),
    "Or": _numpy(np.logical_or),
    "Pow": _power,
    "Range": _range,
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "Reshape": _reshape,
    "ScatterND": _scatter_nd,
    "Slice": _slice,
    "Split": _split,
    "Sqrt": _numpy(np.sqrt, same=True),
    "Squeeze": _squeeze,
    "Sub": _numpy(np.subtract),
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _numpy(_where),
}
FOLDED = {("", kind): function for kind, function in _FUNCTIONS.items()}
