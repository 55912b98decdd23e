"""Summaries: numbers, histograms, images and texts as the messages of the package tensorboard.

Knows arrays and those messages; does not know files.
"""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from tensorboard.compat.proto.histogram_pb2 import HistogramProto
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.text.plugin_data_pb2 import TextPluginData

from tclient._tensor import Tensor

_COLUMNS = 8
_COLOURS = 3
Array = np.ndarray[Any, Any]


def array_of(value: Any) -> Array:
    """A tensor, an array, or a number as an array. Waits for a tensor."""
    if isinstance(value, Tensor):
        value = value.detach()
        found: Array = (value if value.dtype.numpy is not None else value.float()).numpy()
        return found
    if np.isscalar(value):
        return np.array([value])
    return np.asarray(value)


def scalar(tag: str, value: Any, *, new_style: bool = False, double_precision: bool = False) -> Summary:
    """A number under a name. Raises: AssertionError if it is several."""
    number = array_of(value).squeeze()
    if number.ndim != 0:
        raise AssertionError(
            f"Tensor should contain one element (0 dimensions). Was given size: {number.size} and {number.ndim} "
            "dimensions."
        )
    if not new_style:
        return Summary(value=[Summary.Value(tag=tag, simple_value=float(number))])
    told = TensorProto(dtype="DT_DOUBLE", double_val=[float(number)])
    if not double_precision:
        told = TensorProto(dtype="DT_FLOAT", float_val=[float(number)])
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="scalars"))
    return Summary(value=[Summary.Value(tag=tag, tensor=told, metadata=metadata)])


def _edges() -> list[float]:
    """Edges that grow by a tenth from one to the next, on both sides of zero."""
    positive = []
    edge = 1e-12
    while edge < 1e20:
        positive.append(edge)
        edge *= 1.1
    return [-edge for edge in reversed(positive)] + [0.0] + positive


def histogram(tag: str, values: Any, bins: Any = "tensorflow", max_bins: int | None = None) -> Summary:
    """How often values occur. Raises: ValueError if there are none."""
    numbers = array_of(values).astype(float).reshape(-1)
    if numbers.size == 0:
        raise ValueError("The input has no element.")
    counts, limits = np.histogram(numbers, bins=_edges() if isinstance(bins, str) and bins == "tensorflow" else bins)
    if max_bins is not None and len(counts) > max_bins:
        step = len(counts) // max_bins
        left = len(counts) % step
        padded = np.pad(counts, (0, step - left)) if left else counts
        counts = padded.reshape(-1, step).sum(axis=-1)
        limits = np.append(limits[:-1][::step], limits[-1])
    filled = np.flatnonzero(counts)
    if not filled.size:
        raise ValueError("The histogram is empty, please file a bug report.")
    first, last = int(filled[0]), int(filled[-1])
    # From one empty bin before them to the last that is not empty.
    shown = counts[first - 1 : last + 1] if first else np.concatenate([[0], counts[: last + 1]])
    told = HistogramProto(
        min=numbers.min(),
        max=numbers.max(),
        num=len(numbers),
        sum=numbers.sum(),
        sum_squares=numbers.dot(numbers),
        bucket_limit=limits[first : last + 2].tolist(),
        bucket=shown.tolist(),
    )
    return Summary(value=[Summary.Value(tag=tag, histo=told)])


def image(tag: str, value: Any, dataformats: str = "CHW") -> Summary:
    """An image, or several in a grid; of floats from 0 to 1, or of bytes."""
    pixels = _rows_columns_colours(array_of(value), dataformats)
    scale = 1 if pixels.dtype == np.uint8 else 255
    pixels = (pixels.astype(np.float32) * scale).clip(0, 255).astype(np.uint8)
    from PIL import Image

    height, width, colours = pixels.shape
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    told = Summary.Image(height=height, width=width, colorspace=colours, encoded_image_string=file.getvalue())
    return Summary(value=[Summary.Value(tag=tag, image=told)])


def _rows_columns_colours(pixels: Array, dataformats: str) -> Array:
    named = dataformats.upper()
    if len(set(named)) != len(named):
        raise AssertionError(f"You can not use the same dimension shordhand twice. input_format: {dataformats}")
    if pixels.ndim != len(named):
        raise AssertionError(
            f"size of input tensor and input format are different. tensor shape: {pixels.shape}, "
            f"input_format: {dataformats}"
        )
    if "N" in named:
        return _grid(pixels.transpose([named.index(each) for each in "NCHW"])).transpose(1, 2, 0)
    if named in ("HW", "WH"):
        pixels = pixels.transpose([named.index(each) for each in "HW"])[:, :, None]
    else:
        pixels = pixels.transpose([named.index(each) for each in "HWC"])
    return np.repeat(pixels, _COLOURS, axis=2) if pixels.shape[2] == 1 else pixels


def _grid(images: Array) -> Array:
    """Images side by side, in rows of eight."""
    if images.shape[1] == 1:
        images = np.repeat(images, _COLOURS, axis=1)
    count, colours, height, width = images.shape
    columns = min(count, _COLUMNS)
    rows = math.ceil(count / columns)
    canvas = np.zeros((colours, height * rows, width * columns), dtype=images.dtype)
    for number, each in enumerate(images):
        top, left = number // columns * height, number % columns * width
        canvas[:, top : top + height, left : left + width] = each
    return canvas


def text(tag: str, value: str) -> Summary:
    """A text under a name."""
    content = TextPluginData(version=0).SerializeToString()
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text", content=content))
    told = TensorProto(
        dtype="DT_STRING",
        string_val=[value.encode("utf_8")],
        tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]),
    )
    return Summary(value=[Summary.Value(tag=f"{tag}/text_summary", metadata=metadata, tensor=told)])
