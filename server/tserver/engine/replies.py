"""The results that most replies are made of, written in protobuf's wire format by hand.

A lone call and its read cost little more than their messages do, and a message object costs several times what joining
bytes does. What is written here is what the generated classes write; whatever is not known here is left to them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import torch

from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.wire.varint import SHORT, field, varint
from tserver.engine.values import Elements, describe
from tserver.errors import InvalidArgument

# Descriptions are few, and made once each: a session has few shapes. Past this number they are made anew.
_MAX_KEPT = 4096
_pack_double = struct.Struct("<d").pack

_descriptions: dict[tuple[Any, ...], bytes] = {}
_heads: dict[tuple[Any, ...], bytes] = {}
# Result.call_index of the first calls of a batch. What is written of 0 is nothing.
_INDEXES = [b"", *[b"\x08" + number for number in SHORT[1:]]]
# A value below this fits into a result whose length is one byte.
_SMALL = 0x80 - 4


def seq_field(seq: int) -> bytes:
    """BatchReply.seq."""
    return b"\x08" + varint(seq)


def result_field(call_index: int, value: bytes) -> bytes:
    """One of BatchReply.results, with an encoded Value."""
    size = len(value)
    if call_index < len(_INDEXES) and size < _SMALL:
        index = _INDEXES[call_index]
        return b"\x12" + SHORT[len(index) + 2 + size] + index + b"\x12" + SHORT[size] + value
    body = field(b"\x12", value)
    if call_index:
        body = b"\x08" + varint(call_index) + body
    return field(b"\x12", body)


def description(tensor: torch.Tensor) -> bytes | None:
    """The Value that describes a tensor; None if it cannot be described."""
    key = (tensor.shape, tensor.dtype, tensor.device, tensor.requires_grad, tensor.layout)
    found = _descriptions.get(key)
    if found is None:
        value = pb.Value()
        try:
            describe(tensor, value.tensor)
        except InvalidArgument:
            return None
        if len(_descriptions) >= _MAX_KEPT:
            _descriptions.clear()
        found = _descriptions[key] = value.SerializeToString()
    return found


def _elements(result: Elements) -> bytes:
    key = (result.shape, result.dtype)
    head = _heads.get(key)
    if head is None:
        if len(_heads) >= _MAX_KEPT:
            _heads.clear()
        # With all that is before the data, whose length follows from shape and dtype.
        about = pb.TensorData(dtype=result.dtype, shape=result.shape).SerializeToString()
        before_data = about + b"\x1a" + varint(len(result.data))
        head = b"\xb2\x01" + varint(len(before_data) + len(result.data)) + before_data
        _heads[key] = head
    return head + result.data


# Encoders of Values, by the exact class of what a call returned.
BY_CLASS: dict[type, Callable[[Any], bytes]] = {
    Elements: _elements,
    float: lambda result: b"\x21" + _pack_double(result),
    bool: lambda result: b"\x28\x01" if result else b"\x28\x00",
}
