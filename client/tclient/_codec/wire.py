"""The protobuf wire format, written by hand for the few messages of the hot path.

A call is some 40 bytes; making message objects for it costs ten times what joining cached pieces does. What is
written here is what the generated parser reads; a test compares them. Knows bytes; knows neither tensors nor sockets.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from tensorcompute.wire.varint import field, varint

# Ids start here, so that all of them have at least three bytes as varints and the two low ones come from a table.
FIRST_ID = 1 << 14

_LOW = [bytes((i & 0x7F | 0x80, i >> 7 | 0x80)) for i in range(1 << 14)]


class _High(dict[int, bytes]):
    def __missing__(self, high: int) -> bytes:
        if len(self) > 4096:
            self.clear()
        found = self[high] = varint(high)
        return found


_HIGH = _High()


def id_varint(number: int) -> bytes:
    """varint of a number that is at least FIRST_ID, from tables."""
    return _LOW[number & 0x3FFF] + _HIGH[number >> 14]


def zigzag(number: int) -> bytes:
    """A signed number of 64 bits, as sint64."""
    return varint(number << 1 if number >= 0 else (-number << 1) - 1)


def signed(number: int) -> bytes:
    """A signed number of 64 bits, as int64."""
    return varint(number & 0xFFFF_FFFF_FFFF_FFFF)


_pack_double = struct.Struct("<d").pack


def number_value(value: float) -> bytes:
    """Value.number."""
    return b"\x21" + _pack_double(value)


def complex_value(value: complex) -> bytes:
    """Value.complex."""
    return b"\x42\x12\x09" + _pack_double(value.real) + b"\x11" + _pack_double(value.imag)


def integer_value(value: int) -> bytes:
    """Value.integer, or Value.unsigned from 2^63 on. Raises OverflowError beyond 64 bits."""
    if -0x8000_0000_0000_0000 <= value < 0x8000_0000_0000_0000:
        return b"\x18" + zigzag(value)
    if 0 <= value <= 0xFFFF_FFFF_FFFF_FFFF:
        return b"\xc0\x01" + varint(value)
    raise OverflowError("int too big to convert")


def big_integer_value(value: int) -> bytes:
    """Value.big_integer. Raises OverflowError beyond 4 KiB, for which torch has no use."""
    size = value.bit_length() // 8 + 1
    if size > _MAX_BIG_BYTES:
        raise OverflowError("int too big to convert")
    return field(b"\xd2\x01", value.to_bytes(size, "little", signed=True))


_MAX_BIG_BYTES = 4096


def text_value(value: str) -> bytes:
    """Value.text."""
    return field(b"\x32", value.encode())


def size_value(dims: Iterable[int]) -> bytes:
    """Value.size."""
    packed = b"".join([signed(dim) for dim in dims])
    return field(b"\x5a", field(b"\x0a", packed)) if packed else b"\x5a\x00"


def sequence_value(items: Iterable[bytes], *, is_tuple: bool) -> bytes:
    """Value.list or Value.tuple of Values."""
    return field(b"\x6a" if is_tuple else b"\x62", b"".join([field(b"\x0a", item) for item in items]))


def slice_value(start: bytes | None, stop: bytes | None, step: bytes | None) -> bytes:
    """Value.slice of Values; None is absent."""
    parts = [field(tag, part) for tag, part in ((b"\x0a", start), (b"\x12", stop), (b"\x1a", step)) if part is not None]
    return field(b"\x72", b"".join(parts))


def named_value(name: str, value: bytes) -> bytes:
    """NamedValue: a keyword argument, or an entry of a mapping."""
    return field(b"\x0a", name.encode()) + field(b"\x12", value)


def mapping_value(entries: Iterable[tuple[str, bytes]]) -> bytes:
    """Value.mapping of Values."""
    return field(b"\x9a\x01", b"".join([field(b"\x0a", named_value(name, value)) for name, value in entries]))


def ref(number: int, path: Iterable[int]) -> bytes:
    """Ref: an id and a path."""
    packed = b"".join([varint(step) for step in path])
    return b"\x08" + id_varint(number) + (field(b"\x12", packed) if packed else b"")


def tensor_data(dtype: int, shape: Iterable[int], data: bytes | memoryview) -> bytes:
    """TensorData, copied once. `data` is bytes in one dimension: its length is their number."""
    dims = b"".join([signed(dim) for dim in shape])
    head = b"\x08" + varint(dtype) + (field(b"\x12", dims) if dims else b"")
    return b"".join((head, b"\x1a", varint(len(data)), data))


def view(shape: Iterable[int], strides: Iterable[int]) -> bytes:
    """HostArray.view: how an array lies in its memory, in elements."""
    dims, steps = b"".join(map(signed, shape)), b"".join(map(signed, strides))
    return field(b"\x22", (field(b"\x0a", dims) if dims else b"") + (field(b"\x12", steps) if steps else b""))


def array_value(kind: int, content: bytes, *, uploaded: bool, view: bytes = b"") -> bytes:
    """Value.array: TensorData by value, or the varint of an upload's id; and the field of its view."""
    body = b"\x08" + varint(kind) + (b"\x18" + content if uploaded else field(b"\x12", content))
    return field(b"\x82\x01", body + view)


# Value kinds with no content, or a cached one.
NONE = b"\x3a\x00"
ELLIPSIS = b"\x7a\x00"
TRUE = b"\x28\x01"
FALSE = b"\x28\x00"

# Fields of Call. Protobuf takes fields in any order, and repeated numbers unpacked.
ARG = b"\x1a"
KWARG = b"\x22"
CALL_ID = b"\x08"
CONTEXT = b"\x28"

# An argument of fewer than 128 bytes needs one byte for its length.
SHORT_ARG = [bytes((0x1A, length)) for length in range(128)]
SHORT_CALL = [bytes((0x2A, length)) for length in range(128)]


def arg(value: bytes) -> bytes:
    """Call.args: one Value."""
    length = len(value)
    return SHORT_ARG[length] + value if length < 128 else ARG + varint(length) + value


def call(parts: list[bytes]) -> bytes:
    """Batch.calls: one Call, of its encoded fields."""
    body = b"".join(parts)
    length = len(body)
    return SHORT_CALL[length] + body if length < 128 else b"\x2a" + varint(length) + body


def stream_message(
    *,
    seq: int,
    acked: int,
    operations: Iterable[str] = (),
    contexts: Iterable[bytes] = (),
    calls: Iterable[bytes],
    packed: bytes = b"",
    traceparent: str = "",
) -> bytes:
    """ExecuteStreamRequest with one Batch. calls are fields already (see `call`)."""
    parts = [b"\x08" + varint(seq)]
    if acked:
        parts.append(b"\x10" + varint(acked))
    parts.extend([field(b"\x1a", name.encode()) for name in operations] if operations else ())
    parts.extend([field(b"\x22", context) for context in contexts] if contexts else ())
    parts.extend(calls)
    if packed:
        parts.append(field(b"\x42", packed))
    if traceparent:
        parts.append(field(b"\x4a", traceparent.encode()))
    return field(b"\x12", b"".join(parts))


def acknowledgement(acked: int) -> bytes:
    """Behind an ExecuteStreamRequest with a Batch: another Batch.acked, which counts instead."""
    return field(b"\x12", b"\x10" + varint(acked))


def context(no_grad: bool, inference: bool, autocasts: Iterable[tuple[str, int, bool, bool]], gpu: int | None) -> bytes:
    """Context. An autocast is device type, dtype, enabled, cache enabled; a GPU is the number of the current one."""
    out = (b"\x08\x01" if no_grad else b"") + (b"\x10\x01" if inference else b"")
    for device_type, dtype, enabled, cached in autocasts:
        body = field(b"\x0a", device_type.encode()) + b"\x10" + varint(dtype)
        out += field(b"\x1a", body + (b"\x18\x01" if enabled else b"") + (b"\x20\x01" if cached else b""))
    return out if gpu is None else out + b"\x20" + varint(gpu)
