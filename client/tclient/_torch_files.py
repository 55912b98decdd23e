"""Reads the files that torch.save writes: the archive of today, and what torch wrote before it.

A file is gone through twice: first to see that all of it is as it should be, then to make the tensors. A storage is
sent once, and its tensors are views of it as they were when they were saved. Knows the formats; does not know where a
file comes from.
"""

from __future__ import annotations

import io
import itertools
import zipfile
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from tclient._by_value import sparse_tensor
from tclient._codec import pickles
from tclient._codec.device import device
from tclient._codec.dtypes import DTYPES, SCALAR_TYPES, dtype
from tclient._codec.pickles import NotAllowed, Refused
from tclient._codec.size import Size
from tclient._tensor import Tensor
from tclient._types import OLD_SCALARS
from tclient.nn.parameter import Parameter

__all__ = ["NotAllowed", "Refused", "read_torch_file"]

# A tensor of these bytes: dtype, shape, bytes, and the device that it was on.
Make = Callable[[dtype, tuple[int, ...], Any, str], Any]

_MAGIC = 0x1950A86A20F9469CFC6C
_MAX_DIMENSIONS = 64
_LOCAL_HEADER = 30
# The names of torch's classes of storages, such as FloatStorage, and their elements. Later dtypes have none.
_ELEMENTS = {
    scalar: name for name, scalar in SCALAR_TYPES.items() if scalar in (*OLD_SCALARS, "ComplexFloat", "ComplexDouble")
}


class _Kind(NamedTuple):
    """The class of a storage: of elements, or of bytes."""

    element: dtype | None


class _Storage(NamedTuple):
    """The bytes of tensors."""

    key: str
    element: dtype | None
    size_bytes: int
    place: str


class _Stub:
    """A tensor, in the first pass."""


def read_torch_file(content: memoryview, make: Make) -> Any:
    """The object of the file.

    Args:
        content: the file.
        make: makes a tensor of bytes.

    Raises: Refused.
    """
    pickled, bytes_of = _archive(content) if bytes(content[:4]) == b"PK\x03\x04" else _legacy(content)
    storages = tensors = 0

    def check(said: Any) -> _Storage:
        nonlocal storages
        storages += 1
        return _checked(said, bytes_of)

    def count(*of: Any) -> _Stub:
        nonlocal tensors
        tensors += 1
        return _Stub()

    pickles.read(pickled, _names(count), check)
    if storages > tensors:
        raise Refused("it has a storage without a tensor, and the memory of a tensor is the server's")
    bases: dict[tuple[str, str], Any] = {}

    def view(storage: _Storage, element: dtype, shape: Any, strides: Any, offset: int) -> Any:
        found = bases.get((storage.key, str(element)))
        if found is None:
            data = np.frombuffer(bytes_of(storage.key), np.uint8)
            if element is DTYPES["bool"] and data.size and data.max() > 1:
                raise Refused(f"the storage {storage.key!r} has bools that are neither 0 nor 1")
            used = data.size - data.size % element.itemsize
            found = bases[storage.key, str(element)] = make(
                element, (used // element.itemsize,), data[:used], storage.place
            )
        return found.as_strided(shape, strides, offset)

    return pickles.read(pickled, _names(view), lambda said: _checked(said, bytes_of))


View = Callable[[_Storage, dtype, Any, Any, int], Any]


def _names(view: View) -> dict[str, Any]:
    """What the names of a file make, where tensors are made by this function."""

    def tensor(
        storage: Any,
        offset: Any,
        shape: Any,
        strides: Any,
        requires_grad: Any = False,
        hooks: Any = None,
        element: Any = None,
        metadata: Any = None,
    ) -> Any:
        if not isinstance(storage, _Storage):
            raise Refused("a tensor in it has no storage")
        element = element if element is not None else storage.element
        if not isinstance(element, dtype):
            raise Refused("a tensor in it has no dtype")
        _check_extent(storage, element, offset, shape, strides)
        made = view(storage, element, shape, strides, offset)
        if isinstance(made, _Stub):
            return made
        if isinstance(metadata, dict):
            # Bits of a view that torch has not applied yet.
            made = made.conj() if metadata.get("conj") is True else made
            made = made.neg() if metadata.get("neg") is True else made
        return made.requires_grad_() if requires_grad is True else made

    def tensor_v2(
        storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, metadata: Any = None
    ) -> Any:
        return tensor(storage, offset, shape, strides, grad, hooks, None, metadata)

    def parameter(data: Any, requires_grad: Any = True, hooks: Any = None) -> Any:
        return data if isinstance(data, _Stub) else Parameter(data, requires_grad=bool(requires_grad))

    def sparse(layout: Any, parts: Any) -> Any:
        if layout != "torch.sparse_coo" or type(parts) is not tuple or not 3 <= len(parts) <= 4:
            raise Refused("it has a sparse tensor of another layout than torch.sparse_coo")
        indices, values, size, is_coalesced = (*parts, False)[:4]
        if any(isinstance(part, _Stub) for part in (indices, values)):
            return _Stub()
        if not isinstance(indices, Tensor) or not isinstance(values, Tensor) or not isinstance(size, Size):
            raise Refused("it has a sparse tensor without indices, values or a size")
        return sparse_tensor(indices, values, size, is_coalesced is True)

    def size(numbers: Any = ()) -> Size:
        if any(type(number) is not int for number in numbers):
            raise Refused("a torch.Size in it is not of integers")
        return Size(numbers)

    def place(kind: Any, index: Any = None) -> device:
        if type(kind) is not str or type(index) not in (int, type(None)):
            raise Refused("a torch.device in it has no name")
        return device(kind) if index is None else device(kind, index)

    return {
        "torch._utils _rebuild_tensor": lambda *args: tensor(*args[:4]),
        "torch._utils _rebuild_tensor_v2": tensor_v2,
        "torch._utils _rebuild_tensor_v3": tensor,
        "torch._utils _rebuild_parameter": parameter,
        "torch._utils _rebuild_sparse_tensor": sparse,
        "torch.serialization _get_layout": str,
        "torch Size": size,
        "torch device": place,
        **{f"torch {name}": pickles.Constant(element) for name, element in DTYPES.items()},
        **{
            f"{module} {prefix}Storage": pickles.Constant(_Kind(DTYPES[name]))
            for module in ("torch", "torch.cuda")
            for prefix, name in _ELEMENTS.items()
        },
        "torch.storage UntypedStorage": pickles.Constant(_Kind(None)),
        "torch UntypedStorage": pickles.Constant(_Kind(None)),
    }


def _check(storage: _Storage, element: dtype, shape: Any, strides: Any, offset: int) -> Any:
    return _Stub()


def _check_extent(storage: _Storage, element: dtype, offset: Any, shape: Any, strides: Any) -> None:
    """Refuse a tensor that is not within its storage."""
    numbers = (offset, *_tuple(shape), *_tuple(strides))
    if (
        len(shape) != len(strides)
        or len(shape) > _MAX_DIMENSIONS
        or any(type(number) is not int or not 0 <= number < 1 << 63 for number in numbers)
    ):
        raise Refused("a tensor in it has a shape, strides or an offset that no tensor has")
    last = sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    needed = 0 if 0 in shape else (offset + last + 1) * element.itemsize
    if needed > storage.size_bytes or offset * element.itemsize > storage.size_bytes:
        raise Refused(
            f"a tensor of shape {list(shape)} in it reaches beyond its storage {storage.key!r} of "
            f"{storage.size_bytes} bytes"
        )


def _tuple(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, tuple):
        raise Refused("a tensor in it has no shape")
    return value


def _described(said: Any) -> _Storage:
    """What a persistent id says of a storage."""
    if not isinstance(said, tuple) or len(said) not in (5, 6) or said[0] != "storage":
        raise Refused("it refers to what is no storage")
    _, kind, key, place, count = said[:5]
    if len(said) == 6 and said[5] is not None:
        raise Refused("it has views of storages, as torch wrote them before 0.4; save it again with a newer torch")
    if not isinstance(kind, _Kind) or type(key) is not str or type(count) is not int or not 0 <= count < 1 << 60:
        raise Refused("it refers to what is no storage")
    itemsize = kind.element.itemsize if kind.element is not None else 1
    return _Storage(key, kind.element, count * itemsize, place if type(place) is str else "cpu")


def _checked(said: Any, bytes_of: Callable[[str], memoryview]) -> _Storage:
    storage = _described(said)
    there = bytes_of(storage.key).nbytes
    if there != storage.size_bytes:
        raise Refused(f"the storage {storage.key!r} is said to have {storage.size_bytes} bytes, and has {there}")
    return storage


# ---- the archive -----------------------------------------------------------------------------------------------------

Parts = tuple[bytes, Callable[[str], memoryview]]


def _archive(content: memoryview) -> Parts:
    try:
        with zipfile.ZipFile(_Reader(content)) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, OverflowError) as error:
        raise Refused(f"the archive is damaged ({error})") from None
    parts: dict[str, memoryview] = {}
    pieces: list[tuple[int, int]] = []
    for entry in entries:
        if entry.filename in parts:
            raise Refused(f"the archive has {entry.filename[:200]!r} twice")
        start, stop = _place(content, entry)
        parts[entry.filename] = content[start:stop]
        pieces.append((entry.header_offset, stop))
    pieces.sort()
    if any(after[0] < before[1] for before, after in itertools.pairwise(pieces)):
        raise Refused("parts of the archive overlap")
    roots = [name.removesuffix("/data.pkl") for name in parts if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise Refused("the archive has no data.pkl: torch.save did not write it")
    root = roots[0]
    order = bytes(parts.get(f"{root}/byteorder", memoryview(b"little"))[:16])
    if order != b"little":
        raise Refused(f"its numbers are in the byte order {order.decode('ascii', 'replace')!r}; only little is read")

    def bytes_of(key: str) -> memoryview:
        found = parts.get(f"{root}/data/{key}")
        if found is None:
            raise Refused(f"the archive lacks the storage {key[:200]!r}")
        return found

    return bytes(parts[f"{root}/data.pkl"]), bytes_of


def _place(content: memoryview, entry: zipfile.ZipInfo) -> tuple[int, int]:
    """Where the bytes of an entry are."""
    name = entry.filename[:200]
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
        raise Refused(f"{name!r} in the archive is compressed or encrypted, which torch.save does not do")
    header = bytes(content[entry.header_offset : entry.header_offset + _LOCAL_HEADER])
    if len(header) < _LOCAL_HEADER or header[:4] != b"PK\x03\x04":
        raise Refused(f"{name!r} is not where the archive says")
    start = (
        entry.header_offset
        + _LOCAL_HEADER
        + int.from_bytes(header[26:28], "little")
        + int.from_bytes(header[28:30], "little")
    )
    stop = start + entry.file_size
    if stop > len(content) or entry.compress_size != entry.file_size:
        raise Refused(f"{name!r} reaches beyond the end of the archive")
    return start, stop


class _Reader(io.RawIOBase):
    """A file of bytes that are in memory, without a copy of them."""

    def __init__(self, content: memoryview) -> None:
        self._content, self._position = content, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._content)}[whence]
        if base + offset < 0:
            raise ValueError("negative position")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        piece = self._content[self._position : self._position + len(buffer)]
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)


# ---- what came before ------------------------------------------------------------------------------------------------


def _legacy(content: memoryview) -> Parts:
    start = 0
    pickled: list[bytes] = []
    whole = bytes(content)
    for _ in range(5):
        stop = pickles.end_of(whole, start)
        pickled.append(whole[start:stop])
        start = stop
    said: list[_Storage] = []

    def note(storage: Any) -> _Storage:
        found = _described(storage)
        said.append(found)
        return found

    def plain(data: bytes) -> Any:
        return pickles.read(data, {}, _no_storage)

    magic, version, system = map(plain, pickled[:3])
    if magic != _MAGIC or version != 1001 or not isinstance(system, dict):
        raise Refused("torch.save did not write it")
    if system.get("little_endian") is not True:
        raise Refused("its numbers are in the byte order 'big'; only little is read")
    pickles.read(pickled[3], _names(_check), note)
    return pickled[3], _stored(content, start, plain(pickled[4]), said)


def _stored(content: memoryview, start: int, keys: Any, said: Iterable[_Storage]) -> Callable[[str], memoryview]:
    """The bytes of the storages, which follow each other in the order of the keys."""
    itemsizes = {each.key: each.element.itemsize if each.element is not None else 1 for each in said}
    if (
        not isinstance(keys, list)
        or any(type(key) is not str for key in keys)
        or set(keys) != set(itemsizes)
        or len(keys) != len(itemsizes)
    ):
        raise Refused("its list of storages is not that of its tensors")
    parts: dict[str, memoryview] = {}
    for key in keys:
        count = int.from_bytes(content[start : start + 8], "little")
        stop = start + 8 + count * itemsizes[key]
        if stop > len(content):
            raise Refused(f"the storage {key!r} reaches beyond the end of the file")
        parts[key] = content[start + 8 : stop]
        start = stop

    def bytes_of(key: str) -> memoryview:
        return parts[key]

    return bytes_of


def _no_storage(said: Any) -> Any:
    raise Refused("it refers to a storage where none is")
