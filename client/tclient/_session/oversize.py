"""Calls that are too large for a message to the server.

What can go another way does: arrays and programs by Upload. A call that is
too large even so is an error of that call. Knows the contract's calls; does not know how they are sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tclient._codec import wire
from tclient._exceptions import RequestRefused, attribute
from tclient._session.calls import GENERAL_CALL, Call
from tclient._transfer.transfers import Transfers
from tclient._transport.channel import FRAME_BYTES, Channel
from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.wire.packed import CONTEXT_SHIFT, MAX_OPERATION, OPERATION_SHIFT, WORD_BYTES
from tensorcompute.wire.varint import varint

# An array below this is left where it is.
_ARRAY_BYTES = 512


def fit(call: Call, transfers: Transfers, next_id: Callable[[], int]) -> None:
    """Makes a call small enough for a message. Raises: RequestRefused, and what uploads raise."""
    content = _content(call)
    if not call.data:
        # A packed call takes little, and there is nothing in it that could go another way.
        return
    most = transfers.channel.max_message - FRAME_BYTES
    size = len(call.data)
    for value in content.args:
        if value.HasField("program"):
            _pack(value)
    arrays = [
        array for value in [*content.args, *(entry.value for entry in content.kwargs)] for array in _arrays(value)
    ]
    for array in sorted(arrays, key=lambda array: -len(array.data.data)):
        if size <= most:
            break
        size -= _upload(transfers, next_id(), array)
    call.data = wire.call([content.SerializeToString()])
    if len(call.data) > most:
        raise _refusal(transfers.channel, call)


def refuse(call: Call, channel: Channel) -> None:
    """Has another call sent in its place: under its id, and failing, so that what needs its result fails."""
    call.failure = _refusal(channel, call)
    if call.data:
        content = _content(call)
        stand_in = pb.Call(id=content.id, operation=content.operation, context=content.context)
        for entry in content.kwargs:
            # The names say what the call would have written.
            stand_in.kwargs.add(name=entry.name)
    else:
        head, number = call.words[:2]
        stand_in = pb.Call(id=number, operation=head >> OPERATION_SHIFT & MAX_OPERATION, context=head >> CONTEXT_SHIFT)
    # A value of no kind, which the server refuses.
    stand_in.args.add()
    call.words = GENERAL_CALL
    call.data = wire.call([stand_in.SerializeToString()])


def _content(call: Call) -> pb.Call:
    # The data of a call is a field of a batch.
    return pb.Batch.FromString(call.data).calls[0]


def _refusal(channel: Channel, call: Call) -> RequestRefused:
    size = len(call.data) or WORD_BYTES * len(call.words)
    error = RequestRefused(
        f"{call.operation.name}: the call takes {size} bytes, but a message to {channel.address} has at most "
        f"{channel.max_message}; give large data as numpy arrays or tensors, and long lists in parts"
    )
    attribute(error, operation=call.operation.name, reason="MESSAGE_TOO_LARGE", site=call.site())
    return error


def _arrays(value: pb.Value) -> Iterator[pb.HostArray]:
    """The arrays in a value that are worth an upload."""
    kind = value.WhichOneof("kind")
    if kind == "array":
        if len(value.array.data.data) >= _ARRAY_BYTES:
            yield value.array
    elif kind in ("list", "tuple"):
        for item in value.list.items if kind == "list" else value.tuple.items:
            yield from _arrays(item)
    elif kind == "mapping":
        for entry in value.mapping.entries:
            yield from _arrays(entry.value)
    elif kind == "foreign":
        for item in (value.foreign.base, *value.foreign.items.items, *value.foreign.iterated.items):
            yield from _arrays(item)


def _pack(value: pb.Value) -> None:
    """Makes of a program an array of its bytes, which `tc.program` takes too."""
    data = value.program.SerializeToString()
    value.array.kind = pb.HostArray.KIND_TENSOR
    value.array.data.CopyFrom(pb.TensorData(dtype=pb.D_TYPE_UINT8, shape=[len(data)], data=data))


def _upload(transfers: Transfers, number: int, array: pb.HostArray) -> int:
    """Sends an array by itself; how many bytes that takes out of the call."""
    data = array.data
    size = data.ByteSize()
    transfers.upload(number, data.dtype, data.shape, data.data)
    array.upload = number
    return size - len(varint(number)) - 1
