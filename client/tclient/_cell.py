"""What the client remembers of a call under way, and of a thing that the session holds for it.

A Call lives until it is answered, and as long as someone may want its answer. A Cell is one result on the server: all
Python objects that stand for that result share it, and its end lets the result go. Knows no sockets.
"""

from __future__ import annotations

from types import CodeType
from typing import TYPE_CHECKING

from tclient import _wire
from tclient._device import device
from tclient._dtypes import BY_CODE, LAYOUTS, dtype, layout
from tclient._size import Size, size_of

if TYPE_CHECKING:
    from tclient._exceptions import TensorError
    from tclient._operations import Operation
    from tclient._session import Session
    from tensorcompute.v1 import tensor_pb2 as pb


class Call:
    """A call, from the moment it is issued until its answer is read."""

    __slots__ = ("code", "data", "done", "epoch", "failure", "lasti", "operation", "result")

    data: bytes  # the encoded call, until it is in a batch
    operation: Operation
    code: CodeType | None  # with lasti, the caller's line
    lasti: int
    done: bool  # the batch was answered
    # What was told of the call, or the encoded Value if there is no more to it. None after done: it succeeded, and
    # there is nothing to tell.
    result: pb.Result | bytes | None
    failure: TensorError | None  # why there will be no answer
    epoch: int  # the session's epoch at the time of issue

    def site(self) -> tuple[str, int] | None:
        """The caller's file and line."""
        if self.code is None:
            return None
        line = self.code.co_firstlineno
        for start, end, number in self.code.co_lines():
            if number is not None and start <= self.lasti < end:
                line = number
        return self.code.co_filename, line


class Meta:
    """What is known of a tensor without its elements."""

    __slots__ = ("device", "dtype", "layout", "requires_grad", "shape")

    def __init__(self, meta: pb.TensorMeta) -> None:
        self.shape: Size = size_of(meta.shape)
        self.dtype: dtype = BY_CODE[meta.dtype]
        self.device = _device(meta.device)
        self.requires_grad: bool = meta.requires_grad
        self.layout: layout = LAYOUTS[meta.layout]


_devices: dict[str, device] = {}


def _device(name: str) -> device:
    found = _devices.get(name)
    if found is None:
        found = _devices[name] = device(name)
    return found


class Cell:
    """One result of a call, or a part of one, that the session holds."""

    __slots__ = ("arg", "call", "drop", "epoch", "id", "meta", "path", "session")

    session: Session
    id: bytes  # the id as a varint
    path: tuple[int, ...]
    arg: bytes  # Call.args of another call that takes it
    drop: bytes  # the field of Call or Batch that lets it go
    call: Call | None  # whose answer describes it, as long as that has not been read
    meta: Meta | None
    epoch: int  # the session's epoch that meta belongs to

    def __del__(self) -> None:
        # Runs at any moment, within any lock: appending to a deque is all it may do.
        session = self.session
        session.drops.append(self.drop)
        if session.dozing:
            session.rouse()


def whole(session: Session, id_bytes: bytes, call: Call | None) -> Cell:
    """The cell of the whole result of a call."""
    cell = Cell()
    cell.session = session
    cell.id = id_bytes
    cell.path = ()
    cell.arg = _wire.SHORT_ARG[len(id_bytes) + 1] + b"\x08" + id_bytes
    cell.drop = _wire.FREE + id_bytes
    cell.call = call
    cell.meta = None
    cell.epoch = -1
    return cell


def part(session: Session, id_bytes: bytes, path: tuple[int, ...], call: Call | None) -> Cell:
    """The cell of a part of the result of a call."""
    cell = Cell()
    cell.session = session
    cell.id = id_bytes
    cell.path = path
    ref = _wire.ref(id_bytes, path)
    cell.arg = _wire.arg(_wire.field(b"\x12", ref))
    cell.drop = _wire.field(_wire.FREE_PART, ref)
    cell.call = call
    cell.meta = None
    cell.epoch = -1
    return cell


def cell_value(cell: Cell) -> bytes:
    """Value.result or Value.ref: the argument without its frame."""
    return cell.arg[2:]
