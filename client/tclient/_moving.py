"""Tensors that go from one session to another: `x.to(session=other)`, `module.to(session=other)` and `move`.

Between sessions of one engine that is a copy in its memory; otherwise one server sends to the other, and this client
carries the bytes only where they cannot. Autograd does not cross: what arrives is a leaf. Knows tensors and sessions;
does not know how bytes travel. And what sessions of one engine share, to be read by the other: `share`.
"""

from __future__ import annotations

import contextlib
import math
import secrets
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from tclient._codec import wire
from tclient._codec.dtypes import BY_CODE, dtype
from tclient._codec.operations import TABLE
from tclient._codec.values import Scope, register
from tclient._exceptions import OutOfMemoryError, TensorError, TensorValueError
from tclient._issue import call_builtin, dispatch
from tclient._session.modes import MODES, no_grad
from tclient._session.refs import RemoteRef
from tclient._session.session import Session
from tclient._tensor import Tensor
from tclient._transfer.moving import Piece
from tclient._transfer.moving import move as send
from tclient.utils._pytree import tree_flatten
from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as rpc


class _Arrived:
    """A tensor whose elements are an upload of the receiving session."""

    def __init__(self, number: int, shape: Sequence[int], strides: Sequence[int] | None) -> None:
        """The strides are None where the elements lie row by row."""
        self.number, self.shape, self.strides = number, shape, strides


def _encode(value: _Arrived, scope: Scope) -> bytes:
    view = b"" if value.strides is None else wire.view(value.shape, value.strides)
    return wire.array_value(pb.HostArray.KIND_TENSOR, wire.id_varint(value.number), uploaded=True, view=view)


register(_Arrived, _encode)


def moved(tensors: Iterable[Tensor], session: Session, device: Any = None) -> dict[RemoteRef, Tensor]:
    """What the tensors are in another session, by their references: one transfer for those of each session. Waits.

    Raises: what torch's `to` raises; ValueError for tensors that do not travel; a ServerError.
    """
    if MODES.recorder is not None:
        raise MODES.recorder.refused("to", "moves a tensor to another session")
    if not isinstance(session, Session):
        raise TypeError(f"to(): argument 'session' must be a Session, not {type(session).__name__}")
    session.channel.check_alive()
    found: dict[RemoteRef, Tensor] = {}
    by_session: dict[Session, dict[RemoteRef, Tensor]] = {}
    for tensor in tensors:
        ref = tensor._ref
        if ref.session is session:
            found[ref] = tensor if device is None else tensor.to(device)
        else:
            by_session.setdefault(ref.session, {})[ref] = tensor
    with no_grad():
        for giver, giving in by_session.items():
            across = _within_engine if _is_one_engine(giver, session) else _between_servers
            found.update(zip(giving, across(list(giving.values()), session, device), strict=True))
    return found


def moved_to(tensor: Tensor, *args: Any, session: Any, **kwargs: Any) -> Tensor:
    """One of them: `Tensor.to(session=…)`. Raises: TypeError, too."""
    return moved([tensor], session, device_of(args, kwargs))[tensor._ref]


def device_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The device that a `to` with a session names. Raises: TypeError for anything else that is given."""
    given: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
    device = given.pop("device", given.pop(0, None))
    given.pop("non_blocking", None)
    if given or isinstance(device, (dtype, Tensor)):
        raise TypeError("to(): with a session only a device is given; convert before or after, as in x.to(dtype)")
    return device


def move(tree: Any, session: Session, device: Any = None) -> Any:
    """See `tclient.move`."""
    leaves, spec = tree_flatten(tree)
    wholes: list[Any] = []
    if "tclient.nn" in sys.modules:
        from tclient.nn._moving import Module, Whole  # a program without modules needs none of it

        wholes = [Whole(leaf) for leaf in leaves if isinstance(leaf, Module)]
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    found = moved([*tensors, *(each for whole in wholes for each in whole.tensors)], session, device)
    for whole in wholes:
        whole.replace(found)
    made = spec.unflatten(found[leaf._ref] if isinstance(leaf, Tensor) else leaf for leaf in leaves)
    if hasattr(tree, "_metadata"):
        # Of the state of a module: which versions of which modules it is of.
        made._metadata = tree._metadata
    return made


def shared(tree: Any, session: Session) -> Any:
    """See `tclient.share`."""
    if MODES.recorder is not None:
        raise MODES.recorder.refused("share", "shares a tensor with another session")
    session.channel.check_alive()
    leaves, spec = tree_flatten(tree)
    found: dict[RemoteRef, Tensor] = {leaf._ref: leaf for leaf in leaves if isinstance(leaf, Tensor)}
    by_session: dict[Session, list[RemoteRef]] = {}
    for ref in found:
        if ref.session is not session:
            by_session.setdefault(ref.session, []).append(ref)
    for lender, refs in by_session.items():
        if not _is_one_engine(lender, session):
            raise TensorValueError(
                "share: memory is shared within one engine, and these sessions are of two "
                f"({lender.address} and {session.address}); a copy goes there with x.to(session=…)"
            )
        name = secrets.token_hex(16)
        # Held until it is borrowed.
        loan = call_builtin("tc.lend", name, [found[ref] for ref in refs])
        with session.use():
            borrowed = call_builtin("tc.borrow", name)
        found.update(zip(refs, borrowed, strict=True))
        del loan
    return spec.unflatten(found[leaf._ref] if isinstance(leaf, Tensor) else leaf for leaf in leaves)


def _is_one_engine(one: Session, other: Session) -> bool:
    """Whether both sessions are of one engine."""
    return bool(one.opened.boot_id) and one.opened.boot_id == other.opened.boot_id


def _within_engine(tensors: list[Tensor], session: Session, device: Any) -> list[Tensor]:
    name = secrets.token_hex(16)
    # Held until the other session has taken what is in it.
    parcel = call_builtin("tc.hand_over", name, tensors)
    with session.use():
        taken: list[Tensor] = call_builtin("tc.take_over", name, None if device is None else str(device))
    del parcel
    return taken


def _send(sending: Session, session: Session, pieces: list[Piece]) -> None:
    try:
        send(sending.transfers, session.transfers, pieces)
    except OutOfMemoryError:
        if not session.queue.drops:
            raise
        # What was dropped goes with the next call; then there may be room.
        with session.use():
            dispatch(TABLE["get_default_dtype"], (), None)
        send(sending.transfers, session.transfers, pieces)


def _between_servers(tensors: list[Tensor], session: Session, device: Any) -> list[Tensor]:
    sending = tensors[0]._ref.session
    told, elements = call_builtin("tc.lay_out", tensors)
    pieces, arrived = [], []
    for (code, shape, strides, _), element in zip(told, elements, strict=True):
        number = session.queue.next_id()
        arrived.append(_Arrived(number, shape, strides))
        count = math.prod(shape)
        header = rpc.UploadHeader(id=number, dtype=code, shape=shape if strides is None else [count])
        source = pb.Ref(id=element._ref.id, path=element._ref.path)
        pieces.append(Piece(source, header, count * BY_CODE[code].itemsize))
    try:
        _send(sending, session, pieces)
    except BaseException:
        # Whatever has arrived all the same, or will.
        with contextlib.suppress(TensorError), session.use():
            call_builtin("tc.drop_uploads", [each.number for each in arrived])
        raise
    made: list[Tensor] = []
    with session.use():
        for (_, _, _, requires_grad), each in zip(told, arrived, strict=True):
            tensor: Tensor = dispatch(TABLE["as_tensor"], (each,), None if device is None else {"device": device})
            made.append(tensor.requires_grad_() if requires_grad else tensor)
    return made
