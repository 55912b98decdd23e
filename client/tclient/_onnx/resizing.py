"""Resize and what is like it: where between the elements of the input those of the output lie.

Each axis is resized by itself: by an index for the nearest, else by a matrix of weights that numpy makes here of sizes.
What torch's interpolate does alike is left to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import tclient as tc
from tclient._exceptions import TensorValueError
from tclient._onnx.folding import LONGEST
from tclient._onnx.operators import operator
from tclient._onnx.reading import Array, Node
from tclient._onnx.shaping import pad_constant
from tclient.nn import functional as F

# Weights of one axis, from each of its elements to each new one.
_MOST_WEIGHTS = 1 << 24
_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
_NEAREST: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _wrong(node: Node) -> str | None:
    known = {
        "mode": ("nearest", "linear", "cubic"),
        "nearest_mode": tuple(_NEAREST),
        "coordinate_transformation_mode": (
            *("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"),
            "tf_crop_and_resize",
        ),
        "keep_aspect_ratio_policy": ("stretch", "not_larger", "not_smaller"),
    }
    for name, values in known.items():
        found = node.get(name, values[0])
        if found not in values:
            return f"the {name} {found!r} is not supported"
    return None


@operator(
    "Resize",
    attributes="antialias axes coordinate_transformation_mode cubic_coeff_a exclude_outside extrapolation_value "
    "keep_aspect_ratio_policy mode nearest_mode",
    numbers=(1, 2, 3),
    complaint=_wrong,
)
def _resize(node: Node, x: Any, roi: Any = None, scales: Any = None, sizes: Any = None) -> Any:
    if node.version < 11:  # there was no region, and scales stood in its place
        scales = roi
    shape = x.shape
    ndim = len(shape)
    axes = [axis % ndim for axis in node.get("axes", range(ndim))]
    if sizes is not None and len(sizes):
        wanted = [int(size) for size in sizes]
        factors = [size / shape[axis] for size, axis in zip(wanted, axes, strict=True)]
        policy = node.get("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            one = (min if policy == "not_larger" else max)(factors)
            factors = [one] * len(axes)
            wanted = [math.floor(one * shape[axis] + 0.5) for axis in axes]
    else:
        factors = [float(scale) for scale in scales]
        wanted = [math.floor(shape[axis] * factor) for axis, factor in zip(axes, factors, strict=True)]
    if any(not 1 <= size <= LONGEST for size in wanted):
        raise TensorValueError(f"{node} makes the sizes {wanted} of {list(shape)}, and {LONGEST} is the most")
    crop = node.get("coordinate_transformation_mode") == "tf_crop_and_resize"
    changed = [at for at, axis in enumerate(axes) if crop or wanted[at] != shape[axis] or factors[at] != 1]
    made = _interpolated(node, x, {axes[at]: (wanted[at], factors[at]) for at in changed})
    if made is not None:
        return made
    outside: list[tuple[int, Array]] = []
    for at in changed:
        axis = axes[at]
        ends = (float(roi[at]), float(roi[at + len(axes)])) if crop else None
        places = _places(node, shape[axis], wanted[at], factors[at], ends)
        x = _along(node, x, axis, places, factors[at])
        if crop:
            outside.append((axis, (places < 0) | (places > shape[axis] - 1)))
    for axis, beyond in outside:
        if beyond.any():
            mask = tc.tensor(beyond).reshape([-1 if at == axis else 1 for at in range(ndim)])
            x = tc.where(mask, tc.full((), node.get("extrapolation_value", 0.0), dtype=x.dtype), x)
    return x


def _interpolated(node: Node, x: Any, changed: dict[int, tuple[int, float]]) -> Any:
    """What torch's own interpolation gives, or None where it has another meaning."""
    if not changed:
        return x
    count = x.ndim - 2
    mode = node.get("mode", "nearest")
    how = node.get("coordinate_transformation_mode", "asymmetric" if node.version < 11 else "half_pixel")
    if not x.dtype.is_floating_point or not 1 <= count <= 3 or min(changed) < 2 or node.get("antialias", 0):
        return None
    shape = x.shape
    sizes = [changed.get(axis, (shape[axis], 1.0))[0] for axis in range(2, x.ndim)]
    # torch goes by the sizes alone: a scale that is another number lays the elements elsewhere.
    if any(size != shape[axis] * factor for axis, (size, factor) in changed.items()):
        return None
    if mode == "nearest":
        floors = node.get("nearest_mode", "floor" if node.version < 11 else "round_prefer_floor") == "floor"
        whole = all(float(factor).is_integer() for _, factor in changed.values())
        return F.interpolate(x, sizes) if floors and whole and how == "asymmetric" else None
    if mode == "linear" and how in ("half_pixel", "align_corners"):
        return F.interpolate(x, sizes, mode=_LINEAR[count], align_corners=how == "align_corners")
    return None


def _places(node: Node, size: int, wanted: int, factor: float, ends: tuple[float, float] | None) -> Array:
    """Where on an axis of the input the elements of the output lie."""
    out = np.arange(wanted, dtype=np.float64)
    how = node.get("coordinate_transformation_mode", "asymmetric" if node.version < 11 else "half_pixel")
    if ends is not None:
        first, last = ends
        if wanted == 1:
            return np.array([0.5 * (first + last) * (size - 1)])
        return first * (size - 1) + out * (last - first) * (size - 1) / (wanted - 1)
    if how == "asymmetric":
        return out / factor
    if how == "align_corners":
        # The length is that of the scale, and not yet made whole.
        length = factor * size
        return np.zeros(1) if wanted == 1 else out * (size - 1) / (length - 1)
    if how == "pytorch_half_pixel" and wanted == 1:
        return np.zeros(1)
    if how == "half_pixel_symmetric":
        adjusted = wanted / (factor * size)
        return size / 2 * (1 - adjusted) + (out + 0.5) / factor - 0.5
    return (out + 0.5) / factor - 0.5


def _along(node: Node, x: Any, axis: int, places: Array, factor: float) -> Any:
    size = x.shape[axis]
    mode = node.get("mode", "nearest")
    if mode == "nearest":
        how = node.get("nearest_mode", "floor" if node.version < 11 else "round_prefer_floor")
        index = np.clip(_NEAREST[how](places), 0, size - 1).astype(np.int64)
        return x.index_select(axis, tc.tensor(index))
    if size * len(places) > _MOST_WEIGHTS:
        raise TensorValueError(f"{node}: an axis of {size} is not made one of {len(places)} by weights")
    weights = tc.tensor(_weights(node, size, places, factor)).to(x.dtype)
    return tc.matmul(x.movedim(axis, -1), weights.t()).movedim(-1, axis)


def _weights(node: Node, size: int, places: Array, factor: float) -> Array:
    """How much of each element of an axis each new one is: (wanted, size)."""
    cubic = node.get("mode") == "cubic"
    shrunk = min(factor, 1.0) if node.get("antialias", 0) else 1.0
    reach = (2 if cubic else 1) / shrunk
    first = np.floor(places).astype(np.int64) - math.ceil(reach) + 1
    taps = first[:, None] + np.arange(2 * math.ceil(reach))
    distance = np.abs(taps - places[:, None]) * shrunk
    weights = _cubic(distance, node.get("cubic_coeff_a", -0.75)) if cubic else np.clip(1 - distance, 0, None)
    if node.get("exclude_outside", 0) or shrunk != 1:
        if node.get("exclude_outside", 0):
            weights = np.where((taps < 0) | (taps >= size), 0, weights)
        weights = weights / weights.sum(1, keepdims=True)
    made = np.zeros((len(places), size))
    rows = np.broadcast_to(np.arange(len(places))[:, None], taps.shape)
    np.add.at(made, (rows, np.clip(taps, 0, size - 1)), weights)
    return made


def _cubic(distance: Array, a: float) -> Array:
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))


@operator("Upsample", attributes="mode scales", numbers=(1,), complaint=_wrong)
def _upsample(node: Node, x: Any, scales: Any = None) -> Any:
    plain = Node(node.kind, "", node.name, 10, (), (), {"mode": node.get("mode", "nearest")})
    return _resize(plain, x, node.get("scales", scales))


_GRID_MODES = {
    "linear": "bilinear",
    "bilinear": "bilinear",
    "nearest": "nearest",
    "cubic": "bicubic",
    "bicubic": "bicubic",
}


@operator("GridSample", attributes="align_corners mode padding_mode")
def _grid_sample(node: Node, x: Any, grid: Any) -> Any:
    mode = node.get("mode", "linear")
    mode = _GRID_MODES.get(mode, mode)
    return F.grid_sample(x, grid, mode, node.get("padding_mode", "zeros"), bool(node.get("align_corners", 0)))


@operator("AffineGrid", attributes="align_corners", numbers=(1,))
def _affine_grid(node: Node, theta: Any, size: Any) -> Any:
    return F.affine_grid(theta, [int(each) for each in size], align_corners=bool(node.get("align_corners", 0)))


@operator("Col2Im", attributes="dilations pads strides", numbers=(1, 2))
def _col2im(node: Node, x: Any, image: Any, block: Any) -> Any:
    axes = len(image)
    pads = node.get("pads", [0] * (2 * axes))
    if axes != 2 or pads[:2] != pads[2:]:
        raise TensorValueError(f"{node}: images of {axes} axes with the pads {pads} are not put together here")
    sizes = [int(size) for size in image], [int(size) for size in block]
    return F.fold(x, *sizes, node.get("dilations", 1), pads[:2], node.get("strides", 1))


@operator("CenterCropPad", attributes="axes", numbers=(1,))
def _center_crop_pad(node: Node, x: Any, shape: Any) -> Any:
    old = x.shape
    axes = [axis % len(old) for axis in node.get("axes", range(len(old)))]
    pads = {}
    for axis, wanted in zip(axes, shape, strict=True):
        more = int(wanted) - old[axis]
        # Of an odd number the end gets one more where there is padding, and loses one more where there is cutting.
        before = more // 2 if more >= 0 else -(-more // 2)
        pads[axis] = before, more - before
    return pad_constant(x, pads, 0)
