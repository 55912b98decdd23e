"""ModelInferRequest and ModelInferResponse as bytes. The elements of tensors never pass through protobuf.

Only the top level of a request is read by hand: field 7, raw_input_contents, is kept as views into the request's own
bytes, and all else is left for protobuf. What protobuf refuses is refused here, and what it takes is taken: fields that
nobody knows too. Parsing and copying megabytes is what makes protobuf slow for tensors.
Knows no message type.
"""

from __future__ import annotations

from collections.abc import Sequence

from tensorcompute.wire.varint import read_varint, varint
from tserver.errors import InvalidArgument

_RAW_INPUT_CONTENTS = 7
_RAW_OUTPUT_CONTENTS = 6
_INFER_RESPONSE = 2
_VARINT, _FIXED64, _BYTES, _GROUP, _END_GROUP, _FIXED32 = range(6)
_MAX_NUMBER = (1 << 29) - 1
_MAX_TAG_BYTES = 5
# Fields of no bytes are cheap to send and take a millionth of a second each to look at, while nobody else is served.
_MAX_FIELDS = 16_384


def split_request(data: bytes) -> tuple[bytes, list[memoryview]]:
    """A ModelInferRequest without its raw_input_contents, and those in their order. Raises: InvalidArgument."""
    whole = memoryview(data)
    raw: list[memoryview] = []
    rest: list[memoryview] = []
    # Where the run of fields begins that are none of raw_input_contents.
    kept_from = position = fields = 0
    end = len(data)
    while position < end:
        began = position
        fields += 1
        if fields > _MAX_FIELDS:
            raise InvalidArgument(
                f"the {end} bytes of the request have more than {_MAX_FIELDS} fields; a request has one for each tensor"
            )
        number, kind, position = _read_tag(data, position)
        if kind != _BYTES or number != _RAW_INPUT_CONTENTS:
            position = _skip(data, began, number, kind, position)
            continue
        size, position = _varint(data, position)
        if size > end - position:
            raise _malformed(data, began, f"field {number} has {size} bytes, but {end - position} are left")
        raw.append(whole[position : position + size])
        if began > kept_from:
            rest.append(whole[kept_from:began])
        position += size
        kept_from = position
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


def _read_tag(data: bytes, position: int) -> tuple[int, int, int]:
    """The number and the wire type of the field that begins here, and where its value does."""
    tag, after = _varint(data, position)
    number = tag >> 3
    # As protobuf has it, which takes no tag that is encoded longer than any needs to be.
    if not 0 < number <= _MAX_NUMBER or after - position > _MAX_TAG_BYTES:
        raise _malformed(data, position, f"a field with the number {number}")
    return number, tag & 7, after


def _skip(data: bytes, began: int, number: int, kind: int, position: int) -> int:
    """Where the field ends whose value is at the position. What is in it is for protobuf to judge."""
    groups: list[int] = []
    for _ in range(_MAX_FIELDS):
        if kind == _VARINT:
            _, position = _varint(data, position)
        elif kind == _BYTES:
            size, position = _varint(data, position)
            position += size
        elif kind in (_FIXED64, _FIXED32):
            position += 8 if kind == _FIXED64 else 4
        elif kind == _GROUP:
            groups.append(number)
        elif kind != _END_GROUP or not groups or groups.pop() != number:
            raise _malformed(data, began, f"field {number} has the wire type {kind}")
        if position > len(data):
            raise _malformed(data, began, f"field {number} ends {position - len(data)} bytes behind the request")
        if not groups:
            return position
        number, kind, position = _read_tag(data, position)
    raise _malformed(data, began, f"a group of more than {_MAX_FIELDS} fields")


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A number, and where it ends. Raises: InvalidArgument."""
    try:
        return read_varint(data, position)
    except ValueError as error:
        raise _malformed(data, position, str(error)) from None


def _malformed(data: bytes, position: int, what: str) -> InvalidArgument:
    return InvalidArgument(
        f"the {len(data)} bytes of the request are not an inference.ModelInferRequest: at byte {position} is {what}"
    )
