"""Looking at what a session holds: descriptions, elements, lists. Nothing here changes a tensor."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import torch

from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as ts
from tserver.engine import lending, streams
from tserver.engine.device import check_device
from tserver.engine.dtypes import DTYPE_CODES
from tserver.engine.memory import check_host_bytes
from tserver.engine.object_store import ObjectStore, Staged
from tserver.engine.operations import Operation
from tserver.engine.transfers import bring, send
from tserver.engine.uploads import Upload
from tserver.engine.values import bytes_of, checked_nbytes, describe, dtype_of, read, tensor_from_bytes
from tserver.errors import Exhausted, InvalidArgument, TooLarge, UnknownId


def description(tensor: torch.Tensor, ref: pb.Ref | None = None) -> pb.TensorMeta:
    """A tensor's description, with its name if that is given."""
    meta = pb.TensorMeta(id=ref)
    describe(tensor, meta)
    return meta


def read_inline(tensor: torch.Tensor) -> pb.TensorData:
    """The elements of a tensor, in one message."""
    return pb.TensorData(dtype=DTYPE_CODES[tensor.dtype], shape=tensor.shape, data=read(tensor))


def stage(store: ObjectStore, tensor: torch.Tensor) -> Staged:
    """The elements of a tensor as they are now, on the host: copied there, or lent by a tensor that is there."""
    # Those have no version, by which an unexpected write would be noticed; or another session writes to them.
    may_lend = not (tensor.is_inference() or lending.is_lent(tensor))
    if not (may_lend and _is_as_sent(tensor)):
        check_host_bytes("the copy that is sent", tensor.numel() * tensor.itemsize)
    code, shape = DTYPE_CODES[tensor.dtype], list(tensor.shape)
    if streams.runs_apart(tensor):
        arrival = bring(tensor)
        return Staged(code, shape, arrival.host.reshape(-1).view(torch.uint8).numpy(), arrival=arrival)
    data = bytes_of(tensor)
    if tensor.device.type != "cpu" or not data.size or data.ctypes.data != tensor.data_ptr():
        return Staged(code, shape, data)
    if not may_lend:
        return Staged(code, shape, data.copy())
    lent = Staged(code, shape, data, tensor.detach())
    store.lend(lent)
    return lent


def _is_as_sent(tensor: torch.Tensor) -> bool:
    """Whether what is sent are the bytes of its memory, as they are there."""
    is_plain = tensor.device.type == "cpu" and tensor.layout is torch.strided
    return is_plain and tensor.is_contiguous() and not (tensor.is_conj() or tensor.is_neg())


def staged(store: ObjectStore, ref: pb.Ref) -> Staged:
    """What a download sends: a copy that was staged before, or one made now.

    Raises: UnknownId, CallFailed, InvalidArgument, Exhausted.
    """
    found = store.part(ref)
    if isinstance(found, Staged):
        return found
    if not isinstance(found, torch.Tensor):
        raise InvalidArgument(f"id {ref.id} is not a tensor but a {type(found).__name__}")
    try:
        return stage(store, found)
    except torch.OutOfMemoryError as error:
        raise Exhausted(str(error), reason="OUT_OF_MEMORY") from error


def get_tensor(
    store: ObjectStore, request: ts.GetTensorRequest, max_data_bytes: int | None = None
) -> ts.GetTensorResponse:
    """Describe a tensor, with its elements and its text if asked for. Raises: TooLarge."""
    tensor = store.tensor(request.tensor)
    response = ts.GetTensorResponse(tensor=description(tensor, request.tensor))
    if request.include_data:
        check_size(tensor, max_data_bytes or store.max_inline_bytes)
        response.data.CopyFrom(read_inline(tensor))
    if request.include_text:
        response.text = repr(tensor)
    return response


def bounded(operation: Operation, max_bytes: int, *, keep: bool) -> Operation:
    """The operation, failing where the elements of its result are too many for a message; unless it is kept, its result
    is those elements.
    """

    def run(store: ObjectStore, *args: Any) -> torch.Tensor | pb.TensorData:
        result = operation.call(store, args, {})
        check_size(result, max_bytes)
        return result if keep else read_inline(result)

    return Operation(operation.name, run, needs_store=True)


def check_size(tensor: torch.Tensor, max_bytes: int) -> None:
    """Raises: TooLarge for a tensor that has more bytes than are sent in one message."""
    size = tensor.numel() * tensor.itemsize
    if size > max_bytes:
        raise TooLarge(f"the tensor has {size} bytes, a message carries {max_bytes}; use Download for one that is kept")


def list_tensors(store: ObjectStore, request: ts.ListTensorsRequest) -> Generator[None, None, ts.ListTensorsResponse]:
    """One page of the tensors of a session, in pieces. The token is the name of the last tensor of the page before."""
    limit = min(request.page_size or 1000, 1000)
    after = _token(request.page_token)
    totals = yield from store.count()
    response = ts.ListTensorsResponse(
        total_tensors=totals.tensors,
        total_bytes=totals.held_bytes + store.uploads.held_bytes,
        peak_results=store.peak_results,
    )
    for ref, tensor in store.tensors(after):
        if len(response.tensors) == limit:
            last = response.tensors[-1].id
            response.next_page_token = ".".join(map(str, (last.id, *last.path)))
            break
        told = description(tensor, ref)
        name = store.named.get(id(tensor))
        number = store.names.get(name, 0) if name is not None else 0
        if name is not None and number == ref.id and not ref.path:
            response.names.add(name=name, tensor=ref)
        elif number and store.objects.get(number) is tensor:
            told.same_as.id = number
        response.tensors.append(told)
    return response


def _token(token: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in token.split(".")) if token else (0,)
    except ValueError:
        raise InvalidArgument(f"page_token {token[:100]!r} was not given by this server; begin without one") from None


def free_tensors(store: ObjectStore, request: ts.FreeTensorsRequest) -> ts.FreeTensorsResponse:
    """Let tensors go. Raises: UnknownId naming those that are not held, when the others are gone."""
    unknown = [ref for ref in request.tensors if not store.free(ref)]
    if unknown:
        names = ", ".join(str(ref.id) + (f" part {list(ref.path)}" if ref.path else "") for ref in unknown[:10])
        raise UnknownId(f"{len(unknown)} of {len(request.tensors)} tensors are not held by this session: id {names}")
    return ts.FreeTensorsResponse(freed=len(request.tensors))


def begin_upload(store: ObjectStore, header: ts.UploadHeader) -> Upload:
    """Memory for an upload. From any thread, where the session has no quota.

    Raises: InvalidArgument, Exhausted before it is taken.
    """
    dtype, shape = dtype_of(header.dtype), list(header.shape)
    size = checked_nbytes(shape, dtype)
    what = f"an upload of shape {shape}"
    store.room.check(what)
    try:
        check_host_bytes(what, size)
    except torch.OutOfMemoryError:
        # What those before it have let go waits to be used again.
        store.uploads.trim()
        try:
            check_host_bytes(what, size)
        except torch.OutOfMemoryError as error:
            raise Exhausted(str(error), reason="OUT_OF_MEMORY") from error
    return store.begin_upload(what, header.id, dtype, shape, size)


def finish_upload(
    store: ObjectStore, header: ts.UploadHeader, upload: Upload, default_device: str
) -> pb.TensorMeta | None:
    """Keep an upload that is complete, or make a tensor of it at once and describe that.

    Raises: AlreadyExists, InvalidArgument, Exhausted.
    """
    if not header.create_tensor:
        store.uploads.name(upload)
        store.uploads.finish(upload)
        return None
    store.uploads.drop(upload)
    if header.device:
        check_device(header.device)
    try:
        host = tensor_from_bytes(upload.dtype, upload.shape, upload.data, copy=False)
        device = header.device or default_device
        apart = streams.apart(device)
        tensor = host.to(device) if apart is None else send(host, apart)
    except torch.OutOfMemoryError as error:
        raise Exhausted(str(error), reason="OUT_OF_MEMORY") from error
    call_id = store.new_server_id()
    store.keep(call_id, tensor)
    return description(tensor, pb.Ref(id=call_id))
