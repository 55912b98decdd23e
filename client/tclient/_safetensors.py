"""The safetensors format: the header of a file, written and read strictly.

A file is the length of the header (8 bytes), the header (JSON), and the elements of all tensors without gaps:
https://github.com/huggingface/safetensors#format. Written by hand because the package of that name holds a file in
memory as a whole, and this reads and writes one tensor at a time. Knows names, dtypes and shapes, and no tensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tclient._dtypes import DTYPES, dtype
from tclient._exceptions import TensorTypeError, TensorValueError

# complex128 and complex32 have no name in the format.
_NAMES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn",
    "I16": "int16",
    "U16": "uint16",
    "F16": "float16",
    "BF16": "bfloat16",
    "I32": "int32",
    "U32": "uint32",
    "F32": "float32",
    "F64": "float64",
    "I64": "int64",
    "U64": "uint64",
    "C64": "complex64",
}
_CODES = {DTYPES[name]: code for code, name in _NAMES.items()}
_METADATA = "__metadata__"
_LENGTH_BYTES = 8
# The limit of the format's own reader.
_MAX_HEADER_BYTES = 100_000_000
_MAX_DIMS = 64


class Entry(NamedTuple):
    """One tensor of a file: its name, dtype and shape, and where its elements are, in bytes of the file."""

    name: str
    dtype: dtype
    shape: tuple[int, ...]
    start: int
    stop: int


def header_of(
    tensors: Iterable[tuple[str, dtype, tuple[int, ...]]], metadata: Mapping[str, str]
) -> tuple[bytes, list[Entry]]:
    """The beginning of a file, and its tensors in the order of their elements: the widest first, so all are aligned.

    Raises: TypeError for a dtype that the format does not have.
    """
    tensors = list(tensors)
    offsets: dict[str, tuple[int, int]] = {}
    position = 0
    for name, element, shape in sorted(tensors, key=lambda tensor: -tensor[1].itemsize):
        if element not in _CODES:
            remedy = "save torch.view_as_real(x)" if element.is_complex else "convert the tensor to a dtype that it has"
            raise TensorTypeError(f"save: {name!r} is {element}, which safetensors files cannot hold; {remedy}")
        stop = position + math.prod(shape) * element.itemsize
        offsets[name] = (position, stop)
        position = stop
    described: dict[str, Any] = {_METADATA: dict(metadata)}
    described |= {
        name: {"dtype": _CODES[element], "shape": shape, "data_offsets": offsets[name]}
        for name, element, shape in tensors
    }
    text = json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _LENGTH_BYTES)
    begin = _LENGTH_BYTES + len(text)
    kinds = {name: (element, shape) for name, element, shape in tensors}
    entries = [Entry(name, *kinds[name], begin + start, begin + stop) for name, (start, stop) in offsets.items()]
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text, entries


def parse(content: memoryview, source: str) -> tuple[list[Entry], dict[str, str]]:
    """The tensors of a file in the order of its header, and its metadata.

    Nothing that the header says is believed: the elements of all tensors must fill the rest of the file exactly.
    Raises: ValueError, which names the source and what is wrong.
    """
    if bytes(content[:4]) == b"PK\x03\x04" or bytes(content[:1]) == b"\x80":
        raise TensorValueError(
            f"load: {source} is a pickle, as torch.save writes them, and running a pickle is running a program; "
            "convert it where it came from: safetensors.torch.save_file(torch.load(file), file)"
        )
    if len(content) < _LENGTH_BYTES:
        raise _damaged(source, f"it has {len(content)} bytes, and a file begins with {_LENGTH_BYTES} for its header")
    length = int.from_bytes(content[:_LENGTH_BYTES], "little")
    begin = _LENGTH_BYTES + length
    if length > _MAX_HEADER_BYTES or begin > len(content):
        raise _damaged(source, f"it announces a header of {length} bytes, and has {len(content)} in all")
    try:
        described = json.loads(bytes(content[_LENGTH_BYTES:begin]), object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as error:
        raise _damaged(source, f"its header cannot be read: {error}") from None
    if not isinstance(described, dict):
        raise _damaged(source, "its header is not a JSON object")
    metadata = described.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _damaged(source, f"{_METADATA} is not a mapping of texts")
    entries = [_entry(name, said, begin, len(content), source) for name, said in described.items()]
    position = begin
    for entry in sorted(entries, key=lambda entry: (entry.start, entry.stop)):
        if entry.start != position:
            raise _damaged(source, f"the elements of {entry.name!r} overlap with others, or leave a gap before them")
        position = entry.stop
    if position != len(content):
        raise _damaged(source, f"{len(content) - position} bytes at its end belong to no tensor")
    return entries, metadata


def _entry(name: str, said: Any, begin: int, size: int, source: str) -> Entry:
    if not isinstance(said, dict) or set(said) != {"dtype", "shape", "data_offsets"}:
        raise _damaged(source, f"{name!r} is not described by dtype, shape and data_offsets")
    code, shape, offsets = said["dtype"], said["shape"], said["data_offsets"]
    if not isinstance(code, str) or code not in _NAMES:
        raise _damaged(source, f"{name!r} has the dtype {code!r}; known are {', '.join(_NAMES)}")
    if not _are_sizes(shape) or len(shape) > _MAX_DIMS:
        raise _damaged(source, f"{name!r} has the shape {shape!r}")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1] or begin + offsets[1] > size:
        raise _damaged(source, f"{name!r} is said to be at {offsets!r}, and there are {size - begin} bytes of elements")
    element = DTYPES[_NAMES[code]]
    if offsets[1] - offsets[0] != math.prod(shape) * element.itemsize:
        raise _damaged(source, f"{name!r} has {offsets[1] - offsets[0]} bytes, which is not what {code} {shape} takes")
    return Entry(name, element, tuple(shape), begin + offsets[0], begin + offsets[1])


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 63 for item in value)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name comes twice")
    return found


def _damaged(source: str, what: str) -> TensorValueError:
    return TensorValueError(f"load: {source} is no safetensors file, or is damaged: {what}")
