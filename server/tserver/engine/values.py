"""The contract's values as Python's and torch's, and back.

Decoding needs the session's store, because a value may name something that the store holds. It trusts no field:
lengths, depths and enums are checked before memory is taken.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch

from tensorcompute.tables import dtypes
from tensorcompute.v1 import tensor_pb2 as pb
from tserver.engine.dtypes import (
    DTYPE_CODES,
    DTYPES,
    LAYOUT_CODES,
    LAYOUTS,
    MEMORY_FORMAT_CODES,
    MEMORY_FORMATS,
)
from tserver.engine.foreign import big_integer, stand_in
from tserver.errors import InvalidArgument

MAX_ELEMENTS = (1 << 63) - 1
# Elements of an array that says the same ones again and again.
_MAX_REPEATED = 1 << 28


class Uploaded(Protocol):
    """Elements that came by an upload."""

    dtype: torch.dtype
    shape: list[int]
    data: memoryview


class Holder(Protocol):
    """What decoding needs of a session's store."""

    max_nesting: int
    max_inline_bytes: int

    def whole(self, call_id: int) -> Any:
        """The whole result of a call."""

    def part(self, ref: pb.Ref) -> Any:
        """A result, or a part of one."""

    def take_upload(self, upload_id: int) -> Uploaded:
        """A completed upload, which is used up."""

    def meet_meta(self) -> None:
        """An argument names the meta device."""

    def meet_sparse(self) -> None:
        """An argument names a layout that is not the strided one."""


class Packed:
    """A nested sequence of Python numbers, packed; an operation that does not know it gets it as a list."""

    __slots__ = ("array",)

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.array = array


def dtype_of(code: int) -> torch.dtype:
    """torch's dtype for the contract's; InvalidArgument if there is none."""
    try:
        return DTYPES[code]
    except KeyError:
        raise InvalidArgument(f"dtype {code} is not known; use one of the values of DType") from None


def checked_numel(shape: list[int]) -> int:
    """The number of elements of a shape that came over the wire."""
    if len(shape) > 64:
        raise InvalidArgument(f"shape has {len(shape)} dimensions; at most 64 are held")
    for size in shape:
        if size < 0:
            raise InvalidArgument(f"shape {shape} has the negative size {size}; sizes are 0 or more")
    count = math.prod(shape)
    if count > MAX_ELEMENTS:
        raise InvalidArgument(f"shape {shape} has more than 2^63 elements")
    return count


def checked_nbytes(shape: list[int], dtype: torch.dtype) -> int:
    """The number of bytes of a tensor that came over the wire."""
    return checked_numel(shape) * dtype.itemsize


def tensor_from_bytes(dtype: torch.dtype, shape: list[int], data: Any, *, copy: bool = True) -> torch.Tensor:
    """A CPU tensor of the given bytes; its memory is its own if `copy`, else that of `data`, which must be writable.

    `data` may be a tensor of bytes, too: of pinned memory, which torch keeps back until the copies from it have run.
    """
    want = checked_nbytes(shape, dtype)
    if len(data) != want:
        raise InvalidArgument(
            f"data has {len(data)} bytes, but shape {shape} of {str(dtype).removeprefix('torch.')} needs {want}"
        )
    if not want:
        return torch.empty(shape, dtype=dtype)
    if dtype is torch.bool:
        # Any byte but 0 and 1 in a bool is undefined behaviour in the kernels that read it.
        flags = data if isinstance(data, torch.Tensor) else torch.frombuffer(bytearray(data), dtype=torch.uint8)
        return flags.ne(0).resize_(shape)
    if isinstance(data, torch.Tensor):
        return (data.clone() if copy else data).view(dtype).reshape(shape)
    # Not by `reshape`: what somebody made is no view of anything.
    return torch.frombuffer(bytearray(data) if copy else data, dtype=dtype).resize_(shape)


def bytes_of(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """The dense little-endian bytes of a tensor, as a one-dimensional uint8 array; a copy unless that is needless."""
    host = _dense(tensor)
    count = host.numel()
    if not count:
        return np.empty(0, np.uint8)
    # `reshape` leaves a single element whatever stride it has. Not by `numpy()`: that forbids the storage to grow.
    flat = host.as_strided((count,), (1,)).view(torch.uint8)
    array: np.ndarray[Any, Any] = np.from_dlpack(flat)
    return array


def read(tensor: torch.Tensor) -> bytes:
    """A copy of the elements of a tensor, dense and little-endian."""
    host = _dense(tensor)
    return ctypes.string_at(host.data_ptr(), host.nbytes) if host.numel() else b""


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor without gradients, and with elements in memory that are those it shows. Raises: InvalidArgument."""
    if tensor.layout is not torch.strided:
        raise InvalidArgument(f"the elements of a {tensor.layout} tensor are not read; call to_dense() first")
    if tensor.requires_grad:
        tensor = tensor.detach()
    if tensor.is_conj():
        tensor = tensor.resolve_conj()
    if tensor.is_neg():
        tensor = tensor.resolve_neg()
    return tensor


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor on the host, without gaps between its elements."""
    tensor = plain(tensor)
    if not tensor.is_cpu:
        tensor = tensor.cpu()
    return tensor if tensor.is_contiguous() else tensor.contiguous()


def _array(holder: Holder, value: pb.Value, depth: int) -> Any:
    host = value.array
    content = host.WhichOneof("content")
    if host.kind == pb.HostArray.KIND_NUMBER and content == "data":
        return _number(host.data)
    if content == "upload":
        uploaded = holder.take_upload(host.upload)
        dtype = uploaded.dtype
        tensor = tensor_from_bytes(dtype, uploaded.shape, uploaded.data, copy=False)
    elif content == "data":
        dtype, shape = dtype_of(host.data.dtype), list(host.data.shape)
        if len(host.data.data) > holder.max_inline_bytes:
            raise InvalidArgument(
                f"an array of {len(host.data.data)} bytes is too large for a message "
                f"(limit {holder.max_inline_bytes}); use Upload"
            )
        tensor = tensor_from_bytes(dtype, shape, host.data.data)
    else:
        raise InvalidArgument("array has neither data nor an upload; set one")
    view = host.view if host.HasField("view") else None
    if view is not None:
        _check_view(view, tensor)
    if host.kind == pb.HostArray.KIND_TENSOR:
        return tensor if view is None else _laid_out(tensor, view)
    if host.kind not in _NUMPY_KINDS:
        raise InvalidArgument(f"array kind {host.kind} is not known; use one of HostArray.Kind")
    if DTYPE_CODES[dtype] not in _NUMPY:
        raise InvalidArgument(f"an array of {dtype} is not a numpy array; send it as KIND_TENSOR")
    array = tensor.numpy()
    if host.kind == pb.HostArray.KIND_SEQUENCE:
        return Packed(array)
    if view is None:
        return array
    strides = [stride * array.itemsize for stride in view.strides]
    try:
        return np.ndarray(view.shape[:], array.dtype, array, strides=strides)
    except (OverflowError, ValueError) as error:
        raise InvalidArgument(f"shape {view.shape} with strides {view.strides} is no array: {error}") from None


def _laid_out(memory: torch.Tensor, view: pb.View) -> torch.Tensor:
    """All of a tensor's memory as a tensor of another form, which is no view of anything."""
    made = torch.empty(0, dtype=memory.dtype)
    return made.set_(memory.untyped_storage(), memory.storage_offset(), view.shape[:], view.strides[:])


def _check_view(view: pb.View, memory: torch.Tensor) -> None:
    shape, strides = list(view.shape), list(view.strides)
    if checked_numel(shape) > max(_MAX_REPEATED, memory.numel()):
        # Whoever goes through it needs hours. A session has such views of `expand` alone, which is watched (cost.py).
        raise InvalidArgument(
            f"shape {shape} repeats {memory.numel()} elements; at most {_MAX_REPEATED} are taken: use expand"
        )
    if memory.dim() != 1 or len(shape) != len(strides) or min(strides, default=0) < 0:
        raise InvalidArgument(f"shape {shape} and strides {strides} do not lay out {memory.dim()} dimensions of memory")
    last = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if 0 not in shape and last >= memory.numel():
        raise InvalidArgument(f"shape {shape} with strides {strides} reaches beyond {memory.numel()} elements")


def _number(data: pb.TensorData) -> np.generic:
    """One of numpy's scalars."""
    dtype = _NUMPY.get(data.dtype)
    if dtype is None or data.shape or len(data.data) != dtype.itemsize:
        raise InvalidArgument(
            f"{len(data.data)} bytes of dtype {data.dtype} and shape {list(data.shape)} are no number"
        )
    number: np.generic = np.frombuffer(data.data, dtype)[0]
    return number


_NUMPY_KINDS = frozenset({pb.HostArray.KIND_NDARRAY, pb.HostArray.KIND_SEQUENCE})

_NUMPY = {row.code: np.dtype(row.numpy) for row in dtypes.DTYPES if row.numpy}


def _list(holder: Holder, value: pb.Value, depth: int) -> list[Any]:
    return [decode(holder, item, depth + 1) for item in value.list.items]


def _tuple(holder: Holder, value: pb.Value, depth: int) -> tuple[Any, ...]:
    return tuple([decode(holder, item, depth + 1) for item in value.tuple.items])


def _slice(holder: Holder, value: pb.Value, depth: int) -> slice:
    bounds = value.slice
    return slice(
        decode(holder, bounds.start, depth + 1) if bounds.HasField("start") else None,
        decode(holder, bounds.stop, depth + 1) if bounds.HasField("stop") else None,
        decode(holder, bounds.step, depth + 1) if bounds.HasField("step") else None,
    )


def _mapping(holder: Holder, value: pb.Value, depth: int) -> dict[str, Any]:
    return {entry.name: decode(holder, entry.value, depth + 1) for entry in value.mapping.entries}


def _device(holder: Holder, value: pb.Value, depth: int) -> torch.device:
    device = torch.device(value.device)
    if device.type == "meta":
        holder.meet_meta()
    return device


def _text(holder: Holder, value: pb.Value, depth: int) -> str:
    text = value.text
    if "meta" in text:
        # A device may come by its name alone.
        holder.meet_meta()
    return text


def _memory_format(holder: Holder, value: pb.Value, depth: int) -> torch.memory_format:
    try:
        return MEMORY_FORMATS[value.memory_format]
    except KeyError:
        raise InvalidArgument(f"memory format {value.memory_format} is not known") from None


def _layout(holder: Holder, value: pb.Value, depth: int) -> torch.layout:
    try:
        layout = LAYOUTS[value.layout]
    except KeyError:
        raise InvalidArgument(f"layout {value.layout} is not known") from None
    if layout is not torch.strided:
        _check_layout(layout)
        holder.meet_sparse()
    return layout


def _check_layout(layout: torch.layout) -> None:
    if LAYOUT_CODES.get(layout) not in _HELD_LAYOUTS:
        # A malformed sparse tensor can end the process: those of coordinates alone are looked at (sparse.py).
        raise InvalidArgument(f"layout {layout} is not held; only strided tensors and torch.sparse_coo are")


_HELD_LAYOUTS = frozenset({pb.LAYOUT_STRIDED, pb.LAYOUT_SPARSE_COO})


def _foreign(holder: Holder, value: pb.Value, depth: int) -> Any:
    return stand_in(value.foreign, lambda inner: _plain(decode(holder, inner, depth + 1)))


def _plain(value: Any) -> Any:
    return value.array.tolist() if value.__class__ is Packed else value


def _results_only(holder: Holder, value: pb.Value, depth: int) -> Any:
    raise InvalidArgument(f"a value of kind {value.WhichOneof('kind')!r} is for results; it cannot be an argument")


_DECODERS: dict[str | None, Callable[[Holder, pb.Value, int], Any]] = {
    "result": lambda holder, value, depth: holder.whole(value.result),
    "ref": lambda holder, value, depth: holder.part(value.ref),
    "integer": lambda holder, value, depth: value.integer,
    "unsigned": lambda holder, value, depth: value.unsigned,
    "number": lambda holder, value, depth: value.number,
    "boolean": lambda holder, value, depth: value.boolean,
    "text": _text,
    "none": lambda holder, value, depth: None,
    "complex": lambda holder, value, depth: complex(value.complex.real, value.complex.imag),
    "dtype": lambda holder, value, depth: dtype_of(value.dtype),
    "device": _device,
    "size": lambda holder, value, depth: tuple(value.size.dims),
    "list": _list,
    "tuple": _tuple,
    "slice": _slice,
    "ellipsis": lambda holder, value, depth: ...,
    "array": _array,
    "memory_format": _memory_format,
    "layout": _layout,
    "mapping": _mapping,
    "big_integer": lambda holder, value, depth: big_integer(value.big_integer),
    "foreign": _foreign,
    "program": lambda holder, value, depth: value.program,
    "named_tuple": _results_only,
    "tensor": _results_only,
    "data": _results_only,
    "object": _results_only,
}


def decode(holder: Holder, value: pb.Value, depth: int = 0) -> Any:
    """A Python value for the contract's. Raises InvalidArgument, UnknownId, or what torch raises for a bad device."""
    if depth > holder.max_nesting:
        raise InvalidArgument(f"an argument is nested deeper than {holder.max_nesting} levels")
    kind = value.WhichOneof("kind")
    try:
        decoder = _DECODERS[kind]
    except KeyError:
        raise InvalidArgument("an argument has no kind set; use `none` for None") from None
    return decoder(holder, value, depth)


_DEVICE_NAMES: dict[torch.device, str] = {}


def device_name(device: torch.device) -> str:
    """`str(device)`, made once for each."""
    name = _DEVICE_NAMES.get(device)
    if name is None:
        name = _DEVICE_NAMES[device] = str(device)
    return name


def describe(tensor: torch.Tensor, into: pb.TensorMeta) -> None:
    """Fill in the description of a tensor. Raises: InvalidArgument for one that the contract cannot hold."""
    layout = tensor.layout
    if layout is not torch.strided:
        _check_layout(layout)
    into.shape.extend(tensor.shape)
    try:
        into.dtype = DTYPE_CODES[tensor.dtype]
    except KeyError:
        raise InvalidArgument(f"{tensor.dtype} is not a dtype that the contract knows") from None
    into.device = device_name(tensor.device)
    if tensor.requires_grad:
        into.requires_grad = True
    into.layout = LAYOUT_CODES[layout]


def held_as(result: Any) -> str | None:
    """What an object that is not a tensor, and that a session may hold, is called; None if it is none."""
    if isinstance(result, torch.Generator):
        return "Generator"
    if isinstance(result, torch.autograd.graph.Node):
        return type(result).__name__
    name = getattr(type(result), "held_as", None)
    return str(name) if name is not None else None


class Elements:
    """The elements of a tensor on their way into a reply."""

    __slots__ = ("data", "dtype", "shape")

    def __init__(self, tensor: torch.Tensor, data: bytes) -> None:
        self.dtype, self.shape, self.data = DTYPE_CODES[tensor.dtype], tensor.shape, data


def encode(result: Any, into: pb.Value) -> bool:
    """Fill in what a call returned; True if something in it is to be held (a tensor or an object).

    Raises: InvalidArgument for a type that does not travel.
    """
    kind = result.__class__
    encoder = _ENCODERS.get(kind)
    if encoder is None:
        # A type not met before: it is encoded as the nearest of its bases, or as the object that it is.
        encoder = next((_ENCODERS[base] for base in kind.__mro__ if base in _ENCODERS), _encode_object)
        _ENCODERS[kind] = encoder
    return encoder(result, into)


def _encode_tensor(result: torch.Tensor, into: pb.Value) -> bool:
    describe(result, into.tensor)
    return True


def _encode_elements(result: Elements, into: pb.Value) -> bool:
    data = into.data
    data.dtype = result.dtype
    data.shape.extend(result.shape)
    data.data = result.data
    return False


def _encode_none(result: None, into: pb.Value) -> bool:
    into.none.SetInParent()
    return False


def _encode_bool(result: bool, into: pb.Value) -> bool:
    into.boolean = result
    return False


def _encode_int(result: int, into: pb.Value) -> bool:
    if -(1 << 63) <= result < 1 << 63:
        into.integer = result
    elif 0 <= result < 1 << 64:
        into.unsigned = result
    else:
        into.big_integer = result.to_bytes(result.bit_length() // 8 + 1, "little", signed=True)
    return False


def _encode_float(result: float, into: pb.Value) -> bool:
    into.number = result
    return False


def _encode_complex(result: complex, into: pb.Value) -> bool:
    into.complex.real, into.complex.imag = result.real, result.imag
    into.complex.SetInParent()
    return False


def _encode_text(result: str, into: pb.Value) -> bool:
    into.text = result
    return False


def _encode_size(result: torch.Size, into: pb.Value) -> bool:
    try:
        into.size.dims.extend(result)
    except ValueError:
        # As torch says when one looks at such a size, which it makes unseen.
        raise ValueError("Overflow when unpacking long long") from None
    into.size.SetInParent()
    return False


def _encode_list(result: list[Any], into: pb.Value) -> bool:
    into.list.SetInParent()
    items = into.list.items
    held = [encode(item, items.add()) for item in result]
    return any(held)


def _encode_mapping(result: dict[Any, Any], into: pb.Value) -> bool:
    into.mapping.SetInParent()
    held = []
    for name, item in result.items():
        entry = into.mapping.entries.add()
        entry.name = str(name)
        held.append(encode(item, entry.value))
    return any(held)


def _encode_dtype(result: torch.dtype, into: pb.Value) -> bool:
    into.dtype = DTYPE_CODES[result]
    return False


def _encode_device(result: torch.device, into: pb.Value) -> bool:
    into.device = str(result)
    return False


def _encode_layout(result: torch.layout, into: pb.Value) -> bool:
    into.layout = LAYOUT_CODES.get(result, pb.LAYOUT_UNSPECIFIED)
    return False


def _encode_memory_format(result: torch.memory_format, into: pb.Value) -> bool:
    into.memory_format = MEMORY_FORMAT_CODES[result]
    return False


def _encode_meta(result: pb.TensorMeta, into: pb.Value) -> bool:
    into.tensor.CopyFrom(result)
    return False


def _encode_data(result: pb.TensorData, into: pb.Value) -> bool:
    into.data.CopyFrom(result)
    return False


def _encode_scalar(result: np.generic, into: pb.Value) -> bool:
    return encode(result.item(), into)


def _encode_object(result: Any, into: pb.Value) -> bool:
    name = held_as(result)
    if name is None:
        raise InvalidArgument(f"a result of type {type(result).__name__} does not travel")
    into.object = name
    return True


def _encode_tuple(result: tuple[Any, ...], into: pb.Value) -> bool:
    fields = getattr(type(result), "_fields", None)
    if fields is None and type(result) is not tuple:
        # torch's own named tuples are structseqs: they have no _fields, but name their members for `match`.
        fields = getattr(type(result), "__match_args__", None)
    if fields is None:
        into.tuple.SetInParent()
        held = [encode(item, into.tuple.items.add()) for item in result]
        return any(held)
    kind = type(result)
    into.named_tuple.type = f"{kind.__module__}.{kind.__qualname__}"
    into.named_tuple.fields.extend(fields)
    held = [encode(item, into.named_tuple.items.add()) for item in result]
    return any(held)


_ENCODERS: dict[type, Callable[[Any, pb.Value], bool]] = {
    torch.Tensor: _encode_tensor,
    Elements: _encode_elements,
    type(None): _encode_none,
    bool: _encode_bool,
    int: _encode_int,
    float: _encode_float,
    complex: _encode_complex,
    str: _encode_text,
    torch.Size: _encode_size,
    tuple: _encode_tuple,
    list: _encode_list,
    dict: _encode_mapping,
    torch.dtype: _encode_dtype,
    torch.device: _encode_device,
    torch.layout: _encode_layout,
    torch.memory_format: _encode_memory_format,
    pb.TensorMeta: _encode_meta,
    pb.TensorData: _encode_data,
    np.generic: _encode_scalar,
}
