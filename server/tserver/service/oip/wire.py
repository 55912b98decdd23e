"""ModelInferRequest and ModelInferResponse as bytes. The elements of tensors never pass through protobuf.

Only the top level of a request is read by hand: field 7, raw_input_contents, is kept as views into the request's own
bytes, and all else is left for protobuf. Parsing and copying megabytes is what makes protobuf slow for tensors.
Knows no message type.
"""

from __future__ import annotations

from collections.abc import Sequence

from tserver.errors import InvalidArgument
from tserver.session.framing import varint

_RAW_INPUT_CONTENTS = 7
_RAW_OUTPUT_CONTENTS = 6
_INFER_RESPONSE = 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10


def split_request(data: bytes) -> tuple[bytes, list[memoryview]]:
    """A ModelInferRequest without its raw_input_contents, and those in their order. Raises: InvalidArgument."""
    whole = memoryview(data)
    raw: list[memoryview] = []
    rest: list[memoryview] = []
    # Where the run of fields begins that are none of raw_input_contents.
    kept_from = position = 0
    end = len(data)
    while position < end:
        began = position
        tag, position = _varint(data, position)
        kind, number = tag & 7, tag >> 3
        if not 0 < number < 1 << 29:
            raise _malformed(data, began, f"a field with the number {number}")
        if kind == _BYTES:
            size, position = _varint(data, position)
            if size > end - position:
                raise _malformed(data, began, f"field {number} has {size} bytes, but {end - position} are left")
            if number == _RAW_INPUT_CONTENTS:
                raw.append(whole[position : position + size])
                if began > kept_from:
                    rest.append(whole[kept_from:began])
                kept_from = position + size
            position += size
        elif kind == _VARINT:
            _, position = _varint(data, position)
        elif kind in (_FIXED64, _FIXED32):
            position += 8 if kind == _FIXED64 else 4
            if position > end:
                raise _malformed(data, began, f"field {number} is cut off")
        else:
            raise _malformed(data, began, f"field {number} has the wire type {kind}")
        if number == _RAW_INPUT_CONTENTS and kind != _BYTES:
            raise _malformed(data, began, f"field {number} has the wire type {kind}")
    if kept_from < end:
        rest.append(whole[kept_from:])
    return b"".join(rest), raw


def join_response(header: bytes, raw: Sequence[bytes | memoryview]) -> bytes:
    """A ModelInferResponse from all its other fields and its raw_output_contents."""
    return b"".join(_response(header, raw))


def join_stream_response(header: bytes, raw: Sequence[bytes | memoryview]) -> bytes:
    """A ModelStreamInferResponse with that ModelInferResponse in it."""
    parts = _response(header, raw)
    size = sum(map(len, parts))
    return b"".join((_tag(_INFER_RESPONSE), varint(size), *parts))


def _response(header: bytes, raw: Sequence[bytes | memoryview]) -> list[bytes | memoryview]:
    parts: list[bytes | memoryview] = [header]
    for elements in raw:
        parts += (_tag(_RAW_OUTPUT_CONTENTS), varint(len(elements)), elements)
    return parts


def _tag(number: int) -> bytes:
    return bytes((number << 3 | _BYTES,))


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A number in protobuf's variable-length encoding, and where it ends. Raises: InvalidArgument."""
    number = shift = 0
    for index in range(position, min(position + _MAX_VARINT_BYTES, len(data))):
        byte = data[index]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            # More than 64 bits: what is above them is lost in protobuf too.
            return number & 0xFFFF_FFFF_FFFF_FFFF, index + 1
        shift += 7
    raise _malformed(data, position, "a number without an end")


def _malformed(data: bytes, position: int, what: str) -> InvalidArgument:
    return InvalidArgument(
        f"the {len(data)} bytes of the request are not an inference.ModelInferRequest: at byte {position} is {what}"
    )
