"""Bulk bytes from the server of one session to that of another: straight, or by way of this client.

The receiving server gives a permission, with which the sending one connects to it. Where it cannot or may not, the
bytes come here in chunks and go on at once. Knows both channels; does not know what a tensor is.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import grpc

from tclient._exceptions import ServerError, ServerFailed
from tclient._transfer.chunks import chunk_bytes
from tclient._transfer.progress import Progress
from tclient._transfer.transfers import Transfers
from tclient._transport.channel import TENSOR_SERVICE, Channel
from tclient._transport.limits import transferring
from tclient._transport.statuses import Broken, is_broken, is_there_already, message_limit
from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as rpc
from tensorcompute.wire.chunks import chunk_of

log = logging.getLogger("tclient")

# One server may not or cannot connect to the other, or knows nothing of this: so it will be for a while.
_CLOSED = frozenset({"SEND_NOT_ALLOWED", "PEER_NOT_REACHED", "NO_DATA_ENDPOINT", "UNIMPLEMENTED", "INVALID_ARGUMENT"})
# It broke, or there is too much of it: the client carries this time.
_FAILED = frozenset({"PEER_LEFT", "RESOURCE_EXHAUSTED"})
_REST_S = 60.0
_TRIES = 2

Reach = Callable[[int], object]


class Piece(NamedTuple):
    """The elements of one tensor: where they are, and the upload that they become."""

    source: pb.Ref
    header: rpc.UploadHeader
    size_bytes: int


def move(sender: Transfers, receiver: Transfers, pieces: Sequence[Piece]) -> None:
    """Bring all pieces to the receiving session, as uploads that its calls may name. Raises: a ServerError."""
    total = sum(piece.size_bytes for piece in pieces)
    with transferring(sender.channel, "to"), Progress(sender.progress, "move", total) as progress:
        if _directly(sender, receiver, pieces, progress.reach):
            sender.channel.stats.moves += len(pieces)
            return
        done = 0
        for piece in pieces:
            _carry(sender, receiver, piece, lambda count, before=done: progress.reach(before + count))  # type: ignore[misc]
            done += piece.size_bytes
        sender.channel.stats.downloads += len(pieces)
        receiver.channel.stats.uploads += len(pieces)


# ---- straight --------------------------------------------------------------------------------------------------------


def _directly(sender: Transfers, receiver: Transfers, pieces: Sequence[Piece], reach: Reach) -> bool:
    """Whether the servers did it among themselves."""
    peer = receiver.channel.engine_address
    if time.monotonic() < sender.unreached.get(peer, 0.0):
        return False
    for _ in range(_TRIES):
        try:
            sender.channel.again(lambda: _attempt(sender, receiver, pieces, reach), sender.lease_s)
            return True
        except ServerError as error:
            if error.reason not in _CLOSED | _FAILED:
                raise
            log.debug("%s does not send to %s: %s", sender.channel.engine_address, peer, error)
            if error.reason in _CLOSED:
                sender.unreached[peer] = time.monotonic() + _REST_S
                break
    return False


def _attempt(sender: Transfers, receiver: Transfers, pieces: Sequence[Piece], reach: Reach) -> None:
    """Raises: a ServerError, grpc.RpcError."""
    sender.channel.check_alive()
    receiver.channel.check_alive()
    announced = rpc.ReceiveHeader(context=receiver.context, uploads=[piece.header for piece in pieces])
    try:
        permission: rpc.OpenTransferResponse = receiver.channel.call(
            TENSOR_SERVICE + "OpenTransfer",
            rpc.OpenTransferRequest(receive=announced),
            rpc.OpenTransferResponse,
            again_s=receiver.lease_s,
        )
    except ServerError as error:
        if error.reason == "ALREADY_EXISTS":
            return  # all had arrived; only the answer was lost
        raise
    request = rpc.SendTensorsRequest(
        context=sender.context,
        tensors=[piece.source for piece in pieces],
        key=permission.key,
        size_bytes=permission.size_bytes,
        data_endpoint=_address_of(permission, receiver.channel),
        socket=permission.socket,
        certificate_sha256=permission.certificate_sha256,
        house_proof=permission.house_proof,
    )
    messages = sender.channel.server_stream(TENSOR_SERVICE + "SendTensors", request)
    try:
        told = rpc.SendTensorsResponse()
        for message in messages:
            before, told = told.sent_bytes, rpc.SendTensorsResponse.FromString(message)
            if told.sent_bytes > before:
                reach(told.sent_bytes)
    except grpc.RpcError:
        raise
    except BaseException:
        messages.cancel()
        raise
    if not told.done:
        raise Broken(f"the server at {sender.channel.address} ended it after {told.sent_bytes} bytes")


def _address_of(permission: rpc.OpenTransferResponse, channel: Channel) -> str:
    """The address of the data endpoint, with the host of the server where it names none; empty where it has none."""
    named = permission.data_endpoint
    if not named.startswith(":"):
        return named
    host = channel.engine_address.rpartition(":")[0]
    return "" if not host or "/" in host or host.startswith("unix") else host + named


# ---- by way of this client -------------------------------------------------------------------------------------------


def _carry(sender: Transfers, receiver: Transfers, piece: Piece, reach: Reach) -> None:
    """Fetch a piece and send it on, chunk by chunk; again from the beginning where a connection breaks.

    Raises: a ServerError.
    """
    header = rpc.UploadHeader()
    header.CopyFrom(piece.header)
    header.context.CopyFrom(receiver.context)
    opening = rpc.UploadRequest(header=header).SerializeToString()

    def attempt() -> None:
        sender.channel.check_alive()
        receiver.channel.check_alive()
        fetching = _Fetching(sender, piece, chunk_bytes(receiver.channel, receiver.max_chunk_bytes), reach)
        try:
            response = receiver.channel.client_stream(
                TENSOR_SERVICE + "Upload", fetching.messages(opening), rpc.UploadResponse
            )
        except grpc.RpcError as error:
            if fetching.failure is not None:
                raise fetching.failure from None
            if is_there_already(error):
                return
            limit = message_limit(error)
            if limit is None or limit >= receiver.channel.max_message:
                raise
            receiver.channel.bound_messages(limit)
            attempt()
            return
        finally:
            fetching.end()
        if response.received_bytes != piece.size_bytes:
            raise ServerFailed(
                f"to: the server at {receiver.channel.address} received {response.received_bytes} of "
                f"{piece.size_bytes} bytes"
            )

    receiver.channel.again(attempt, receiver.lease_s)


class _Fetching:
    """A download whose chunks go on as they come: both directions frame them alike."""

    def __init__(self, sender: Transfers, piece: Piece, most_bytes: int, reach: Reach) -> None:
        self._translate = sender.channel.translate
        self._reach = reach
        self.failure: Exception | None = None
        request = rpc.DownloadRequest(
            context=sender.context, tensor=piece.source, chunk_bytes=most_bytes, without_crc32=True
        )
        self._messages = sender.channel.server_stream(TENSOR_SERVICE + "Download", request)

    def messages(self, opening: bytes) -> Iterator[bytes]:
        """What the upload consists of. Where the download fails, it ends early: `failure` says why."""
        yield opening
        done = 0
        try:
            for message in self._messages:
                chunk = chunk_of(message)
                if chunk is not None:
                    yield message
                    done += len(chunk)
                    self._reach(done)
        except grpc.RpcError as error:
            self.failure = error if is_broken(error) else self._translate(error)

    def end(self) -> None:
        """Nothing more is wanted."""
        with contextlib.suppress(grpc.RpcError):
            self._messages.cancel()
