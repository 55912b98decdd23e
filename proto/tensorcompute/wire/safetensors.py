"""The safetensors format: the header of a file, written and read strictly.

A file is the length of the header (8 bytes), the header (JSON), and the elements of all tensors without gaps:
https://github.com/huggingface/safetensors#format. Written by hand because the package of that name holds a file in
memory as a whole, and because what others wrote is believed in nothing here. Knows names, dtypes and shapes by torch's
names, and no tensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tensorcompute.tables import dtypes

# The dtypes of the format, with torch's name and the bytes of an element.
DTYPES: dict[str, tuple[str, int]] = {
    row.safetensors: (row.name, row.size)
    for row in sorted(dtypes.DTYPES, key=lambda row: (row.size, row.kind))
    if row.safetensors
}
CODES = {name: code for code, (name, _) in DTYPES.items()}
LENGTH_BYTES = 8
_METADATA = "__metadata__"
# The limit of the format's own reader.
_MAX_HEADER_BYTES = 100_000_000
_MAX_DIMS = 64
_MAX_SIZE = 1 << 62


class Damaged(ValueError):
    """The bytes are not what the format says; the text goes on after "is no safetensors file, or is damaged: "."""


class Entry(NamedTuple):
    """One tensor of a file: its name, torch's name of its dtype, its shape, and where its elements are in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def header_of(
    tensors: Iterable[tuple[str, str, tuple[int, ...]]], metadata: Mapping[str, str]
) -> tuple[bytes, list[Entry]]:
    """The beginning of a file, and its tensors in the order of their elements: the widest first, so all are aligned.

    Raises: KeyError for a dtype that the format does not have.
    """
    described: dict[str, Any] = {_METADATA: dict(metadata)}
    placed = []
    sized = [(name, dtype, shape, DTYPES[CODES[dtype]][1]) for name, dtype, shape in tensors]
    position = 0
    for name, dtype, shape, itemsize in sorted(sized, key=lambda tensor: -tensor[3]):
        stop = position + math.prod(shape) * itemsize
        placed.append(Entry(name, dtype, shape, position, stop))
        position = stop
    offsets = {entry.name: (entry.start, entry.stop) for entry in placed}
    described |= {
        name: {"dtype": CODES[dtype], "shape": shape, "data_offsets": offsets[name]} for name, dtype, shape, _ in sized
    }
    text = json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % LENGTH_BYTES)
    begin = LENGTH_BYTES + len(text)
    entries = [entry._replace(start=begin + entry.start, stop=begin + entry.stop) for entry in placed]
    return len(text).to_bytes(LENGTH_BYTES, "little") + text, entries


def length_of_header(first: bytes | bytearray | memoryview, size: int, most: int = _MAX_HEADER_BYTES) -> int:
    """The bytes of the header of a file of so many bytes, of which these are the first 8. Raises: Damaged."""
    if size < LENGTH_BYTES or len(first) < LENGTH_BYTES:
        raise Damaged(f"it has {size} bytes, and a file begins with {LENGTH_BYTES} for its header")
    length = int.from_bytes(bytes(first[:LENGTH_BYTES]), "little")
    if length > most or LENGTH_BYTES + length > size:
        raise Damaged(f"it announces a header of {length} bytes (at most {most} are read), and has {size} in all")
    return length


def parse(header: bytes | bytearray | memoryview, size: int) -> tuple[list[Entry], dict[str, str]]:
    """The tensors of a file of so many bytes, in the order of its header, and its metadata.

    Nothing that the header says is believed: the elements of all tensors must fill the rest of the file exactly.
    Raises: Damaged.
    """
    try:
        described = load_json(header)
    except ValueError as error:
        raise Damaged(f"its header cannot be read, it is not JSON: {error}") from None
    if not isinstance(described, dict):
        raise Damaged(f"its header is a {type(described).__name__}, not a JSON object")
    metadata = described.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise Damaged(f"{_METADATA} is not a mapping of texts")
    begin = LENGTH_BYTES + len(header)
    entries = [_entry(name, said, begin, size) for name, said in described.items()]
    position = begin
    for entry in sorted(entries, key=lambda entry: (entry.start, entry.stop)):
        if entry.start != position:
            raise Damaged(
                f"the elements of {entry.name[:100]!r} begin at byte {entry.start - begin}, those before them end at "
                f"{position - begin}: they overlap with others, or leave a gap"
            )
        position = entry.stop
    if position != size:
        raise Damaged(f"{size - position} bytes at its end, behind the header and all elements, belong to no tensor")
    return entries, metadata


def load_json(text: bytes | bytearray | memoryview | str) -> Any:
    """Parsed JSON of somebody else's, all of it usable as text. Raises: ValueError."""
    try:
        parsed = json.loads(text if isinstance(text, str) else bytes(text).decode(), object_pairs_hook=_without_doubles)
        # Half of a character ("\ud800") passes for text in JSON and in Python, and in nothing that comes after them.
        json.dumps(parsed, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return parsed


def _entry(name: str, said: Any, begin: int, size: int) -> Entry:
    told = repr(name[:100])
    if not isinstance(said, dict) or set(said) != {"dtype", "shape", "data_offsets"}:
        raise Damaged(f"{told} is not described by dtype, shape and data_offsets")
    code, shape, offsets = said["dtype"], said["shape"], said["data_offsets"]
    if not isinstance(code, str) or code not in DTYPES:
        raise Damaged(f"{told} has the dtype {str(code)[:40]!r}; known are {', '.join(DTYPES)}")
    if not _are_sizes(shape) or len(shape) > _MAX_DIMS:
        raise Damaged(f"{told} has the shape {str(shape)[:100]}; that are not sizes")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1] or begin + offsets[1] > size:
        raise Damaged(f"{told} is said to be at {str(offsets)[:100]}, and there are {size - begin} bytes of elements")
    dtype, itemsize = DTYPES[code]
    has, needs = offsets[1] - offsets[0], math.prod(shape) * itemsize
    if has != needs:
        raise Damaged(
            f"{told} has {has} bytes, which is not what {code} {str(shape)[:100]} takes: it needs {needs} bytes"
        )
    # A size of 0 makes the product 0, but not the strides that are computed from the others.
    if math.prod(max(1, one) for one in shape) * itemsize > _MAX_SIZE:
        raise Damaged(f"{told} of shape {str(shape)[:100]} needs more bytes than there are")
    return Entry(name, dtype, tuple(shape), begin + offsets[0], begin + offsets[1])


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < _MAX_SIZE for item in value)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name comes twice")
    return found
