"""Results of many parts, described and kept in pieces: each part takes some microseconds."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.wire.varint import field
from tserver.engine import replies
from tserver.engine.object_store import ObjectStore, Parts, leaves
from tserver.engine.pieces import Pieces
from tserver.engine.values import encode
from tserver.errors import TooLarge

# A tuple or list of more is told in pieces of so many.
PIECE = 128

# Value.list, Value.tuple and Sequence.items.
_LIST, _TUPLE, _ITEM = b"\x62", b"\x6a", b"\x0a"


class Told(NamedTuple):
    """A result that is described, and kept where it is to be."""

    value: bytes


def told(store: ObjectStore, call_id: int, name: str, result: tuple[Any, ...] | list[Any]) -> Pieces:
    """Describe and keep a result; None where nothing is to be told of it. Raises: TooLarge."""
    items: list[bytes] = []
    parts, size = Parts(()), 0
    for start in range(0, len(result), PIECE):
        for index, part in enumerate(result[start : start + PIECE], start):
            value = replies.description(part) if part.__class__ is Tensor else None
            if value is not None:
                parts.by_path[index,] = part
            else:
                encoded = pb.Value()
                if encode(part, encoded):
                    parts.by_path.update(leaves(part, (index,)))
                value = encoded.SerializeToString()
            items.append(field(_ITEM, value))
            size += len(value)
        if size > store.reply_room:
            raise TooLarge(
                f"{name}: the reply has no room for the {len(result)} parts of the result; ask for fewer at a time",
                reason="REPLY_TOO_LARGE",
            )
        yield
    if parts.by_path:
        if not call_id:
            return None
        store.objects[call_id] = parts
    return Told(field(_TUPLE if result.__class__ is tuple else _LIST, b"".join(items)))


replies.BY_CLASS[Told] = lambda result: result.value
