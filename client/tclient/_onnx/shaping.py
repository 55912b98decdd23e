"""Operators that move, take, join and make elements, without arithmetic on them."""

from __future__ import annotations

from typing import Any

import numpy as np

import tclient as tc
from tclient._exceptions import TensorValueError
from tclient._onnx.folding import LONGEST, axes_of, axis_in, reshaped, slices_of, split_sizes
from tclient._onnx.operators import operator
from tclient._onnx.reading import DTYPES, Node
from tclient.nn import functional as F


@operator("Reshape", attributes="allowzero", numbers=(1,))
def _reshape(node: Node, x: Any, shape: Any) -> Any:
    return x.reshape(reshaped(node, shape, lambda: x.shape))


@operator("Flatten", attributes="axis")
def _flatten(node: Node, x: Any) -> Any:
    axis = node.get("axis", 1)
    return flat(x, axis)


def flat(x: Any, axis: int) -> Any:
    """The axes before one and those from it on, as a matrix."""
    shape = x.shape
    axis = axis_in(axis, len(shape) + 1) if axis >= 0 else axis + len(shape)
    rows = 1
    for size in shape[:axis]:
        rows *= size
    columns = 1
    for size in shape[axis:]:
        columns *= size
    return x.reshape(rows, columns)


@operator("Squeeze", attributes="axes", numbers=(1,))
def _squeeze(node: Node, x: Any, axes: Any = None) -> Any:
    found = axes_of(node, axes)
    return x.squeeze() if found is None else x.squeeze(tuple(found))


@operator("Unsqueeze", attributes="axes", numbers=(1,))
def _unsqueeze(node: Node, x: Any, axes: Any = None) -> Any:
    found = axes_of(node, axes) or []
    if len(found) > 1 or found[0] < 0:
        ndim = x.ndim + len(found)
        found = sorted(axis + ndim if axis < 0 else axis for axis in found)
    for axis in found:
        x = x.unsqueeze(axis)
    return x


@operator("Transpose", attributes="perm")
def _transpose(node: Node, x: Any) -> Any:
    perm = node.get("perm")
    return x.permute(*range(x.ndim - 1, -1, -1)) if perm is None else x.permute(perm)


@operator("Concat", attributes="axis")
def _concat(node: Node, *xs: Any) -> Any:
    return tc.cat(xs, dim=node.get("axis", 1))


@operator("Split", attributes="axis split num_outputs", numbers=(1,))
def _split(node: Node, x: Any, split: Any = None) -> Any:
    axis = node.get("axis", 0)
    given = node.get("split", split)
    sizes = [int(part) for part in given] if given is not None else split_sizes(node, x.shape[axis], None)
    return tc.split(x, sizes, dim=axis)


@operator("Slice", attributes="starts ends axes", numbers=(1, 2, 3, 4))
def _slice(node: Node, x: Any, starts: Any = None, ends: Any = None, axes: Any = None, steps: Any = None) -> Any:
    backwards = []
    taken: list[Any] = [slice(None)] * x.ndim
    for axis, found in slices_of(node, x.ndim, starts, ends, axes, steps):
        if found.step < 0:
            # torch only walks forwards: the same elements are taken so, and turned round.
            walked = range(*found.indices(x.shape[axis]))
            found = slice(walked[-1], walked[0] + 1, -found.step) if walked else slice(0, 0)
            backwards.append(axis)
        taken[axis] = slice(found.start, None if found.stop >= 2**31 - 1 else found.stop, found.step)
    made = x[tuple(taken)]
    return made.flip(backwards) if backwards else made


@operator("Gather", attributes="axis")
def _gather(node: Node, x: Any, indices: Any) -> Any:
    axis = node.get("axis", 0)
    axis = axis if axis == 0 else axis_in(axis, x.ndim)
    return x[(*[slice(None)] * axis, indices)]


def _from_start(indices: Any, size: int) -> Any:
    """Indices of which some may count from the end."""
    return tc.where(indices < 0, indices + size, indices)


@operator("GatherElements", attributes="axis")
def _gather_elements(node: Node, x: Any, indices: Any) -> Any:
    axis = node.get("axis", 0)
    return tc.gather(x, axis, _from_start(indices, x.shape[axis]).long())


@operator("GatherND", attributes="batch_dims")
def _gather_nd(node: Node, x: Any, indices: Any) -> Any:
    batch = node.get("batch_dims", 0)
    return x[(*_places_of_batch(x.shape, batch, indices.ndim - 1), *indices.long().unbind(-1))]


def _places_of_batch(shape: Any, batch: int, ndim: int) -> list[Any]:
    """Indices that take each element of the first axes for itself."""
    return [tc.arange(shape[axis]).reshape([-1 if at == axis else 1 for at in range(ndim)]) for axis in range(batch)]


_REDUCE = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


@operator("ScatterElements", "Scatter", attributes="axis reduction")
def _scatter_elements(node: Node, x: Any, indices: Any, updates: Any) -> Any:
    axis, reduction = node.get("axis", 0), node.get("reduction", "none")
    indices = _from_start(indices, x.shape[axis]).long()
    if reduction == "none":
        return tc.scatter(x, axis, indices, updates)
    return tc.scatter_reduce(x, axis, indices, updates, _REDUCE[reduction])


@operator("ScatterND", attributes="reduction")
def _scatter_nd(node: Node, x: Any, indices: Any, updates: Any) -> Any:
    reduction = node.get("reduction", "none")
    places = indices.long().unbind(-1)
    if reduction in ("none", "add"):
        return tc.index_put(x, places, updates, accumulate=reduction == "add")
    # Of the axes that are pointed into one is made, and of the others another.
    shape, depth = x.shape, len(places)
    rows, row = 1, tc.zeros_like(places[0])
    for place, size in zip(places, shape[:depth], strict=True):
        row = row * size + _from_start(place, size)
        rows *= size
    source = updates.reshape(row.numel(), -1)
    index = row.reshape(-1, 1).expand(source.shape)
    return tc.scatter_reduce(x.reshape(rows, -1), 0, index, source, _REDUCE[reduction]).reshape(shape)


@operator("Expand", numbers=(1,))
def _expand(node: Node, x: Any, shape: Any) -> Any:
    return x.expand(np.broadcast_shapes(x.shape, tuple(int(size) for size in shape)))


@operator("Tile", numbers=(1,))
def _tile(node: Node, x: Any, repeats: Any) -> Any:
    return x.repeat([int(times) for times in repeats])


@operator("ConstantOfShape", attributes="value", numbers=(0,))
def _constant_of_shape(node: Node, shape: Any) -> Any:
    value = node.get("value", np.zeros(1, np.float32))
    element = getattr(tc, value.dtype.name)
    return tc.full([int(size) for size in shape], value.reshape(-1)[0].item(), dtype=element)


@operator("Range", numbers=(0, 1, 2))
def _range(node: Node, start: Any, limit: Any, delta: Any) -> Any:
    return tc.arange(start.item(), limit.item(), delta.item(), dtype=getattr(tc, start.dtype.name))


@operator("EyeLike", attributes="dtype k")
def _eye_like(node: Node, x: Any) -> Any:
    rows, columns = x.shape
    element = DTYPES[node.get("dtype")] if "dtype" in node.attributes else x.dtype
    k = node.get("k", 0)
    return (tc.arange(columns) - tc.arange(rows).unsqueeze(1) == k).to(element)


@operator("Trilu", attributes="upper", numbers=(1,))
def _trilu(node: Node, x: Any, k: Any = None) -> Any:
    return (tc.triu if node.get("upper", 1) else tc.tril)(x, 0 if k is None else k.item())


@operator("OneHot", attributes="axis", numbers=(1,))
def _one_hot(node: Node, indices: Any, depth: Any, values: Any) -> Any:
    axis, count = node.get("axis", -1), int(depth.item())
    indices = indices.long()
    axis = axis_in(axis, indices.ndim + 1)
    places = tc.arange(count).reshape([-1] + [1] * (indices.ndim - axis))
    off, on = values.unbind(0)
    return tc.where(_from_start(indices, count).unsqueeze(axis) == places, on, off)


@operator("DepthToSpace", attributes="blocksize mode")
def _depth_to_space(node: Node, x: Any) -> Any:
    block = node.get("blocksize")
    if node.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, block)
    count, depth, height, width = x.shape
    split = x.reshape(count, block, block, depth // (block * block), height, width)
    return split.permute(0, 3, 4, 1, 5, 2).reshape(count, depth // (block * block), height * block, width * block)


@operator("SpaceToDepth", attributes="blocksize mode")
def _space_to_depth(node: Node, x: Any) -> Any:
    block = node.get("blocksize")
    count, depth, height, width = x.shape
    split = x.reshape(count, depth, height // block, block, width // block, block)
    order = (0, 1, 3, 5, 2, 4) if node.get("mode", "DCR") == "CRD" else (0, 3, 5, 1, 2, 4)
    return split.permute(*order).reshape(count, depth * block * block, height // block, width // block)


@operator("ReverseSequence", attributes="batch_axis time_axis")
def _reverse_sequence(node: Node, x: Any, lengths: Any) -> Any:
    batch, time = node.get("batch_axis", 1), node.get("time_axis", 0)
    steps = x.shape[time]
    at = tc.arange(steps)
    lengths = lengths.unsqueeze(1)
    places = tc.where(at < lengths, lengths - 1 - at, at)  # (batch, time)
    places = places if batch < time else places.t()
    places = places.reshape(*places.shape, *[1] * (x.ndim - 2)).expand(x.shape)
    return tc.gather(x, time, places)


# ---- padding -------------------------------------------------------------------------------------------------------


def _unknown_mode(node: Node) -> str | None:
    mode = node.get("mode", "constant")
    return None if mode in ("constant", "reflect", "edge", "wrap") else f"the mode {mode!r} is not supported"


@operator("Pad", attributes="mode pads value", numbers=(1, 3), complaint=_unknown_mode)
def _pad(node: Node, x: Any, pads: Any = None, value: Any = None, axes: Any = None) -> Any:
    ndim = x.ndim
    pads = [int(size) for size in node.get("pads", pads)]
    axes = range(ndim) if axes is None else [int(axis) % ndim for axis in axes]
    if len(pads) != 2 * len(axes):
        raise TensorValueError(f"{node} has {len(pads)} pads for {len(axes)} axes")
    by_axis = {axis: (pads[at], pads[at + len(axes)]) for at, axis in enumerate(axes)}
    mode = node.get("mode", "constant")
    if mode == "constant":
        return pad_constant(x, by_axis, node.get("value", 0) if value is None else value)
    for axis, (before, after) in by_axis.items():
        if before or after:
            size = x.shape[axis]
            if size + before + after > LONGEST:
                raise TensorValueError(f"{node} makes an axis of {size + before + after}, and {LONGEST} is the most")
            inner = np.arange(size)[max(0, -before) : size - max(0, -after)]
            places = np.pad(inner, (max(0, before), max(0, after)), mode)
            x = x.index_select(axis, tc.tensor(places))
    return x


def pad_constant(x: Any, by_axis: dict[int, tuple[int, int]], value: Any) -> Any:
    """x with so much before and after each axis; less, where that is negative. The value may be a tensor of one."""
    first = min((axis for axis, sizes in by_axis.items() if any(sizes)), default=None)
    if first is None:
        return x
    sizes = [size for axis in range(x.ndim - 1, first - 1, -1) for size in by_axis.get(axis, (0, 0))]
    if not isinstance(value, tc.Tensor):
        return F.pad(x, sizes, value=value)
    inside = F.pad(tc.ones_like(x, dtype=tc.bool), sizes, value=False)
    return tc.where(inside, F.pad(x, sizes), value.reshape(()))


# ---- choosing ------------------------------------------------------------------------------------------------------


@operator("TopK", attributes="axis largest sorted k", numbers=(1,))
def _top_k(node: Node, x: Any, k: Any = None) -> Any:
    count = node.get("k") if k is None else int(k.item())
    axis = node.get("axis", -1)
    # Of equals the first come first, which topk does not promise.
    values, places = tc.sort(x, dim=axis, descending=bool(node.get("largest", 1)), stable=True)
    return values.narrow(axis, 0, count), places.narrow(axis, 0, count)


@operator("NonZero")
def _non_zero(node: Node, x: Any) -> Any:
    return tc.nonzero(x).t()


@operator("Compress", attributes="axis")
def _compress(node: Node, x: Any, condition: Any) -> Any:
    axis = node.get("axis")
    return (x.reshape(-1) if axis is None else x).index_select(axis or 0, tc.nonzero(condition).reshape(-1))
