"""Tensors and arrays as entries of a file: which share memory, how they lie in it, and how they come back.

Tensors that overlap in memory are one entry, of which they are views. Knows tensors and arrays; does not know the
objects that hold them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from tclient._by_value import sparse_tensor
from tclient._codec.dtypes import BY_NUMPY, dtype
from tclient._exceptions import TensorError, TensorTypeError
from tclient._issue import call_builtin
from tclient._memory import SHARED
from tclient._namespace import Generator
from tclient._outline import Path, Reader, named
from tclient._tensor import Tensor
from tensorcompute.wire.safetensors import CODES

Value = Callable[[Any, Path], Any]

# The name of a tensor that was saved alone, and the name that no tensor may have.
_ALONE = "tensor"
_RESERVED = "__metadata__"
_GENERATOR = "torch._C.Generator"


class _Lie(NamedTuple):
    """How a tensor lies in memory."""

    address: int
    offset: int
    strides: list[int]
    requires_grad: bool


class _Placed(NamedTuple):
    """A tensor, the name that it would have, its node, which is to be filled, and what makes the nodes of its parts."""

    tensor: Tensor
    name: str
    node: list[Any]
    value: Value


class Shelf:
    """The entries of a file that is written."""

    def __init__(self) -> None:
        # Each entry's dtype, shape, and where its elements are.
        self.entries: dict[str, tuple[str, tuple[int, ...], Tensor | np.ndarray[Any, Any]]] = {}
        self._placed: list[_Placed] = []
        self._names: set[str] = {_RESERVED}

    def node(self, obj: Any, path: Path, value: Value) -> list[Any] | None:
        """The node of a tensor, an array or a generator; None for anything else."""
        if isinstance(obj, Tensor):
            options: dict[str, Any] = {}
            kind = type(obj)
            if kind is not Tensor and kind.__qualname__ != "Buffer":
                options["class"] = value(kind, path)
            state = {name: each for name, each in obj.__dict__.items() if name != SHARED}
            if state and "class" in options:
                options["state"] = value(state, path)
            self._placed.append(_Placed(obj, self._name(path), ["tensor", "", options], value))
            return self._placed[-1].node
        if type(obj) is np.ndarray:
            return self._array(obj, path, value)
        if isinstance(obj, Generator):
            return ["generator", str(obj.device), value(obj.get_state(), path)]
        return None

    def _name(self, path: Path) -> str:
        name = wanted = named(path) if path else _ALONE
        count = 1
        while name in self._names:
            count += 1
            name = f"{wanted}~{count}"
        self._names.add(name)
        return name

    def _array(self, array: np.ndarray[Any, Any], path: Path, value: Value) -> list[Any]:
        shape = list(array.shape)
        if array.dtype.hasobject:
            if array.dtype != np.dtype(object):
                raise TensorTypeError(f"save: {'.'.join(path)!r} is an array of {array.dtype}, which files do not hold")
            return ["objects", shape, value(array.ravel().tolist(), path)]
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        name = self._name(path)
        described = value(np.lib.format.dtype_to_descr(array.dtype), path)
        kind = BY_NUMPY.get(array.dtype)
        flat = np.ascontiguousarray(array).reshape(-1)
        if kind is not None and kind._name in CODES:
            self.entries[name] = (kind._name, array.shape, flat)
        else:
            self.entries[name] = ("uint8", (array.nbytes,), np.frombuffer(flat.tobytes(), np.uint8))
        is_fortran = array.flags.f_contiguous and not array.flags.c_contiguous
        return ["array", name, described, shape, is_fortran]

    def place(self) -> None:
        """Make entries of the tensors, when all are there. Waits once."""
        lies = _lies([each.tensor for each in self._placed])
        # Known only now without another wait.
        if sparse := [each for each in self._placed if each.tensor.is_sparse]:
            for each in sparse:
                self._take_apart(each)
            self._placed = [each for each in self._placed if not each.tensor.is_sparse]
            lies = _lies([each.tensor for each in self._placed])
        placed = self._placed
        together: dict[int, list[tuple[_Placed, _Lie]]] = {}
        for each, lie in zip(placed, lies, strict=True):
            if str(each.tensor.device) != "cpu":
                each.node[2]["device"] = str(each.tensor.device)
            if lie is not None and lie.requires_grad:
                each.node[2]["grad"] = True
            if lie is not None and lie.address and each.tensor.numel() and not each.tensor.is_complex():
                together.setdefault(lie.address, []).append((each, lie))
            else:
                self._alone(each, None)
        for group in together.values():
            if len({each.tensor.dtype for each, _ in group}) > 1:
                raise RuntimeError(
                    "Cannot save multiple tensors or storages that view the same data as different types"
                )
            for part in _overlapping(group):
                if len(part) == 1:
                    self._alone(*part[0])
                else:
                    self._shared(part)

    def _take_apart(self, placed: _Placed) -> None:
        """A sparse tensor, as the two that it is made of."""
        tensor, name, node, value = placed
        parts = [value(tensor._indices(), (name, "indices")), value(tensor._values(), (name, "values"))]
        node[:] = ["sparse", *parts, list(tensor.shape), tensor.is_coalesced(), tensor.requires_grad]

    def _alone(self, placed: _Placed, lie: _Lie | None) -> None:
        """A tensor that shares nothing: an entry of its own."""
        tensor, name, node, _ = placed
        node[1] = name
        element, shape, source = tensor.dtype, tuple(tensor.shape), tensor
        if element._name not in CODES:
            if not element.is_complex:
                raise TensorTypeError(
                    f"save: {name!r} is {element}, which safetensors files cannot hold; convert the tensor to a dtype "
                    "that it has"
                )
            node[2]["complex"] = True
            source = _as_real(tensor)
            element, shape = element.to_real(), (*shape, 2)
        elif lie is not None and lie.strides != _contiguous(shape) and _is_dense(shape, lie.strides):
            node[2]["strides"] = lie.strides
            node[2]["shape"] = list(shape)
            shape = tuple(1 if stride == 0 else length for length, stride in zip(shape, lie.strides, strict=True))
            if shape != tuple(tensor.shape):
                source = tensor.detach().as_strided(shape, lie.strides, lie.offset)
        self.entries[name] = (element._name, shape, source)

    def _shared(self, part: list[tuple[_Placed, _Lie]]) -> None:
        """Tensors that overlap: views of one entry, which is one of them if one has all."""
        first = min(lie.offset for _, lie in part)
        count = max(_stop(each.tensor.shape, lie) for each, lie in part) - first
        whole = next(
            (
                each
                for each, lie in part
                if each.tensor.numel() == count and lie.strides == _contiguous(each.tensor.shape)
            ),
            None,
        )
        if whole is not None:
            name, source, shape = whole.name, whole.tensor, tuple(whole.tensor.shape)
        else:
            name, shape = self._name((f"{part[0][0].name}~storage",)), (count,)
            source = part[0][0].tensor.detach().as_strided(shape, (1,), first)
        self._check(name, source.dtype)
        self.entries[name] = (source.dtype._name, shape, source)
        for each, lie in part:
            each.node[1] = name
            if each is not whole:
                each.node[2]["view"] = [list(each.tensor.shape), lie.strides, lie.offset - first]

    def _check(self, name: str, element: dtype) -> None:
        if element._name not in CODES:
            raise TensorTypeError(f"save: {name!r} is {element}, which safetensors files cannot hold")


def _as_real(tensor: Tensor) -> Tensor:
    import tclient

    made: Tensor = tclient.view_as_real(tensor.detach().resolve_conj())
    return made


def _lies(tensors: list[Tensor]) -> list[_Lie | None]:
    """How each lies in memory; None where the server cannot tell."""
    found: list[_Lie | None] = [None] * len(tensors)
    by_session: dict[int, list[int]] = {}
    for number, tensor in enumerate(tensors):
        by_session.setdefault(id(tensor._ref.session), []).append(number)
    for numbers in by_session.values():
        try:
            told = call_builtin("tc.storages", [tensors[number] for number in numbers])
        except TensorError:  # one of them failed, which is said when it is read, or has no storage
            continue
        for number, (address, _, offset, strides, requires_grad) in zip(numbers, told, strict=True):
            found[number] = _Lie(address, offset, strides, requires_grad)
    return found


def _contiguous(shape: Iterable[int]) -> list[int]:
    strides: list[int] = []
    step = 1
    for length in reversed(list(shape)):
        strides.append(step)
        step *= max(1, length)
    return strides[::-1]


def _stop(shape: Iterable[int], lie: _Lie) -> int:
    return lie.offset + 1 + sum((length - 1) * stride for length, stride in zip(shape, lie.strides, strict=True))


def _is_dense(shape: Iterable[int], strides: list[int]) -> bool:
    """Whether the elements that differ fill a piece of memory, in whatever order, and none is there twice."""
    dims = sorted((stride, length) for length, stride in zip(shape, strides, strict=True) if stride and length > 1)
    step = 1
    for stride, length in dims:
        if stride != step:
            return False
        step *= length
    return any(strides)


def _overlapping(group: list[tuple[_Placed, _Lie]]) -> list[list[tuple[_Placed, _Lie]]]:
    """The tensors of one storage in parts that have nothing in common."""
    parts: list[list[tuple[_Placed, _Lie]]] = []
    reached = -1
    for each, lie in sorted(group, key=lambda pair: pair[1].offset):
        if not parts or lie.offset >= reached:
            parts.append([])
        parts[-1].append((each, lie))
        reached = max(reached, _stop(each.tensor.shape, lie))
    return parts


# ---- reading ---------------------------------------------------------------------------------------------------------


class Contents:
    """The entries of a file that is read.

    Args:
        tensor: makes the tensor of an entry, for the device that it had.
        data: the bytes of an entry.
    """

    def __init__(self, tensor: Callable[[str, str], Tensor], data: Callable[[str], np.ndarray[Any, Any]]) -> None:
        self._tensor, self._data = tensor, data
        self._made: dict[str, Tensor] = {}
        self.reader: Reader

    def makers(self) -> dict[str, Callable[..., Any]]:
        """What makes the objects of the nodes that Shelf makes."""
        return {
            "tensor": self._placed,
            "sparse": self._sparse,
            "array": self._array,
            "objects": self._objects,
            "generator": self._generator,
        }

    def _placed(self, name: str, options: dict[str, Any]) -> Tensor:
        made = self._made.get(name)
        if made is None:
            made = self._made[name] = self._tensor(name, options.get("device", "cpu"))
        if "view" in options:
            shape, strides, offset = options["view"]
            made = made.detach().as_strided(_sizes(shape), _sizes(strides), *_sizes([offset]))
        elif "complex" in options:
            made = _as_complex(made)
        elif "strides" in options:
            made = _laid_out(made, _sizes(options["shape"]), _sizes(options["strides"]))
        kind = self.reader.value(options["class"]) if "class" in options else Tensor
        if not isinstance(kind, type) or not issubclass(kind, Tensor):
            raise TypeError("a tensor of a class that is none of tensors")
        if kind is not Tensor:
            made = made._alias(kind)
        if options.get("grad") is True:
            made.requires_grad_()
        if "state" in options:
            made.__dict__.update(self.reader.value(options["state"]))
        return made

    def _sparse(self, indices: Any, values: Any, size: Any, is_coalesced: bool, requires_grad: bool) -> Tensor:
        parts = self.reader.value(indices), self.reader.value(values)
        if not all(isinstance(part, Tensor) for part in parts):
            raise TypeError("a sparse tensor of what are no tensors")
        made: Tensor = sparse_tensor(*parts, _sizes(size), is_coalesced is True)
        return made.requires_grad_() if requires_grad is True else made

    def _array(self, name: str, described: Any, shape: list[int], is_fortran: bool) -> np.ndarray[Any, Any]:
        element = self.reader.numpy_dtype(described)
        flat = np.frombuffer(bytearray(self._data(name)), element)
        made = flat.reshape(_sizes(shape))
        return np.asfortranarray(made) if is_fortran else made

    def _objects(self, shape: list[int], items: Any) -> np.ndarray[Any, Any]:
        self.reader.numpy_dtype("|i1")  # whether arrays may be read at all
        made = np.empty(math.prod(_sizes(shape)), object)
        for index, each in enumerate(self.reader.value(items)):
            made[index] = each
        return made.reshape(_sizes(shape))

    def _generator(self, place: str, state: Any) -> Generator:
        self.reader.check(_GENERATOR)
        made: Generator = Generator(place)
        made.set_state(self.reader.value(state))
        return made


def _as_complex(tensor: Tensor) -> Tensor:
    import tclient

    made: Tensor = tclient.view_as_complex(tensor)
    return made


def _laid_out(tensor: Tensor, shape: list[int], strides: list[int]) -> Tensor:
    """The same elements with these strides; along those that are 0, the one element there is."""
    made: Any = tensor.new_empty_strided(tensor.shape, strides)
    made.copy_(tensor)
    return made.as_strided(shape, strides, 0) if 0 in strides else made  # type: ignore[no-any-return]


def _sizes(said: Any) -> list[int]:
    if not isinstance(said, list) or any(type(each) is not int or not 0 <= each < 1 << 62 for each in said):
        raise ValueError("no sizes")
    return said
