"""What a network takes: names, dtypes and dimensions of its inputs, and elements to try it on.

Knows numpy and the contract's descriptions of tensors; does not know what a network does with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

import tclient
from tclient._codec.dtypes import BY_CODE, BY_NUMPY, DTYPES, dtype
from tclient._codec.values import PYTHON_DTYPES
from tclient._exceptions import make_error
from tclient._tensor import Tensor
from tensorcompute.v1 import model_service_pb2 as rpc
from tensorcompute.v1 import tensor_pb2 as pb

# Whole numbers of an input that does not say what it may have are 0 and 1: nearly every table has so many rows.
_FEW = 2
BATCH = "batch"

Dimension = int | str | None
Sizes = Mapping[str, int]


class TensorInfo(NamedTuple):
    """An input or an output of a model: a dimension is a number, the name of one that varies, or None for one that
    varies and is not one of the inputs'.
    """

    name: str
    dtype: dtype
    shape: tuple[Dimension, ...]

    def __repr__(self) -> str:
        return f"{self.name} {self.text()}"

    def text(self) -> str:
        """Dtype and shape: float32 (batch, 3, height, width)."""
        shape = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.dtype._name} ({shape}{',' if len(self.shape) == 1 else ''})"


class Input:
    """What a network takes as one of its inputs.

    Args:
        shape: a number, or for a dimension that varies its name, or None for one that has no other like it. All
            dimensions of one name have one size in a request.
        dtype: of the elements; without it that of the example, or float32.
        name: without it that of the parameter of `forward`.
        example: a tensor or an array, for a network that does not run on any numbers: it is tried on elements of it.
        high: for whole numbers, what they are below; without it the network is tried on 0 and 1.

    Example:
        >>> models.Input(("batch", "length"), torch.int64, high=30_000)
        Input(('batch', 'length'), torch.int64, high=30000)
    """

    __slots__ = ("dtype", "example", "high", "name", "shape")

    def __init__(
        self,
        shape: Iterable[Dimension],
        dtype: Any = None,
        *,
        name: str | None = None,
        example: Any = None,
        high: int | None = None,
    ) -> None:
        if isinstance(shape, (str, int)) or not isinstance(shape, Iterable):
            raise make_error("TypeError", f"Input: shape is a tuple of numbers, names and None, not {shape!r}")
        self.shape: tuple[Dimension, ...] = tuple(map(_dimension, shape))
        self.example = None if example is None else _array_of(example)
        if self.example is not None and len(self.example[0].shape) != len(self.shape):
            raise make_error(
                "ValueError", f"Input: the example has {self.example[0].ndim} dimensions, the shape {len(self.shape)}"
            )
        known = DTYPES["float32"] if self.example is None else self.example[1]
        self.dtype = known if dtype is None else dtype_of(dtype)
        self.name = name
        self.high = high

    def __repr__(self) -> str:
        options = "".join(
            f", {option}={value!r}" for option in ("name", "high") if (value := getattr(self, option)) is not None
        )
        return f"Input({self.shape}, {self.dtype}{options}{'' if self.example is None else ', example=…'})"


def _dimension(given: Any) -> Dimension:
    if given is None or (isinstance(given, str) and given):
        return given
    if isinstance(given, bool) or not hasattr(given, "__index__") or int(given) < 1:
        raise make_error("TypeError", f"Input: a dimension is a positive number, a name or None, not {given!r}")
    return int(given)


def dtype_of(given: Any) -> dtype:
    """The dtype that is meant: one of ours, of numpy's, of Python's, or a name. Raises: TypeError for none of them."""
    if isinstance(given, dtype):
        return given
    name = str(given).removeprefix("torch.")
    if name in DTYPES:
        return DTYPES[name]
    if isinstance(given, type) and given in PYTHON_DTYPES:
        return PYTHON_DTYPES[given]
    try:
        return BY_NUMPY[np.dtype(given)]
    except (TypeError, KeyError):
        raise make_error("TypeError", f"Input: dtype is a dtype such as torch.float32, not {given!r}") from None


def _array_of(example: Any) -> tuple[np.ndarray[Any, Any], dtype]:
    """The elements of an example, as numpy has them or can hold them, and its dtype."""
    if isinstance(example, Tensor):
        element = example.dtype
        return (example if element.numpy is not None else example.float()).detach().numpy(), element
    if type(example).__module__.partition(".")[0] == "torch" and hasattr(example, "detach"):
        example = example.detach().cpu().numpy()
    array = np.asarray(example)
    if array.dtype not in BY_NUMPY:
        raise make_error("TypeError", f"an example is a tensor or an array of numbers, not {type(example).__name__}")
    if not isinstance(example, (np.ndarray, np.generic)) and array.dtype == np.float64:
        array = array.astype(np.float32)
    return array, BY_NUMPY[array.dtype]


@dataclass(frozen=True)
class Spec:
    """One input, with a name for each dimension that varies."""

    name: str
    dtype: dtype
    shape: tuple[int | str, ...]
    example: np.ndarray[Any, Any] | None = None
    high: int | None = None
    # Whether the caller gave an example alone: then nothing was said of dimensions.
    is_example: bool = False

    def batched(self) -> Spec:
        """An example as one of a batch."""
        return replace(self, shape=(BATCH, *self.shape[1:])) if self.is_example else self

    def shape_at(self, sizes: Sizes) -> tuple[int, ...]:
        """The shape where the dimensions that vary have these sizes."""
        return tuple(sizes[each] if isinstance(each, str) else each for each in self.shape)

    def draw(self, sizes: Sizes, random: np.random.Generator, *, fresh: bool) -> Tensor:
        """A tensor of these sizes. Where there is an example it is that, or rows of it; `fresh` mixes its elements."""
        array = self._drawn(self.shape_at(sizes), random, fresh)
        made: Tensor = tclient.tensor(array)
        return made if made.dtype is self.dtype else made.to(self.dtype)

    def _drawn(self, shape: tuple[int, ...], random: np.random.Generator, fresh: bool) -> np.ndarray[Any, Any]:
        example = self.example
        if example is not None and example.size:
            if not fresh:
                return _resized(example, shape, self.shape, random)
            if np.any(example != example.reshape(-1)[0]) or not (self.dtype.is_floating_point or self.dtype.is_complex):
                return random.choice(example.reshape(-1), shape)
        if self.dtype._name == "bool":
            return random.integers(0, 2, shape).astype(np.bool_)
        if self.dtype.is_complex:
            return (random.standard_normal(shape) + 1j * random.standard_normal(shape)).astype(np.complex64)
        if self.dtype.is_floating_point:
            return random.standard_normal(shape).astype(np.float32 if self.dtype.itemsize <= 4 else np.float64)
        return random.integers(0, self.high or _FEW, shape).astype(self.dtype.numpy or np.int64)

    def message(self) -> rpc.TensorSpec:
        """The input as the contract describes it."""
        return spec_message(self.name, self.dtype, self.shape)


def _resized(
    example: np.ndarray[Any, Any], shape: tuple[int, ...], dims: Sequence[int | str], random: np.random.Generator
) -> np.ndarray[Any, Any]:
    """The example with other sizes: its parts along a dimension that varies, in any order and number."""
    for axis, (size, dim) in enumerate(zip(shape, dims, strict=True)):
        if isinstance(dim, str) or size != example.shape[axis]:
            example = example.take(random.integers(0, example.shape[axis], size), axis)
    return example


def spec_message(name: str, element: dtype, shape: Iterable[Dimension]) -> rpc.TensorSpec:
    """TensorSpec."""
    dims = [rpc.Dimension(size=each) if isinstance(each, int) else rpc.Dimension(name=each or "") for each in shape]
    code: Any = pb.DType.ValueType(element.code)
    return rpc.TensorSpec(name=name, dtype=code, dimensions=dims)


def info_of(spec: rpc.TensorSpec) -> TensorInfo:
    """What the contract says of an input or output."""
    shape = tuple(dim.name or (dim.size or None) for dim in spec.dimensions)
    return TensorInfo(spec.name, BY_CODE[spec.dtype], shape)


def specs_of(given: Sequence[tuple[str, Any]]) -> list[Spec]:
    """The inputs that a caller gave, each with the name of its parameter."""
    specs: list[Spec] = []
    for parameter, value in given:
        if isinstance(value, Input):
            name = value.name or parameter
            shape = tuple(f"{name}_{axis}" if dim is None else dim for axis, dim in enumerate(value.shape))
            example = None if value.example is None else value.example[0]
            specs.append(Spec(name, value.dtype, shape, example, value.high))
        elif isinstance(value, tuple) and hasattr(value, "_fields"):
            # What describes inputs elsewhere: a named tuple of a network that was read from a file.
            told: Any = value
            specs += specs_of([(parameter, Input(told.shape, told.dtype, name=told.name))])
        else:
            array, element = _array_of(value)
            specs.append(Spec(parameter, element, array.shape, array, is_example=True))
    names = [spec.name for spec in specs]
    for name in names:
        if names.count(name) > 1:
            raise make_error("ValueError", f"two inputs have the name {name!r}; give each one of its own")
    return specs
