"""A small client straight on the generated stubs, to test the contract exactly and not through the SDK.

Knows the contract; does not know `tclient`. Every wait is bounded.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tensorcompute.v1 import model_service_pb2, storage_service_pb2
from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as service_pb
from tests.support.values import Kept, decode, encode, tensor_of

TIMEOUT_S = 20.0
SERVICES = (
    service_pb.DESCRIPTOR.services_by_name["TensorService"],
    model_service_pb2.DESCRIPTOR.services_by_name["ModelService"],
    storage_service_pb2.DESCRIPTOR.services_by_name["StorageService"],
)
METHODS = {method.name: method for service in SERVICES for method in service.methods}


def path_of(method: str) -> str:
    """The path of an RPC on the wire."""
    return f"/{METHODS[method].containing_service.full_name}/{method}"


class Reply:
    """The reply to one batch, by the position of its calls."""

    def __init__(self, message: pb.BatchReply) -> None:
        self.message = message
        self.seq = message.seq
        self.by_index = {result.call_index: result for result in message.results}
        assert len(self.by_index) == len(message.results), f"two results of one call: {message}"

    def value(self, index: int = -1) -> Any:
        """What the call at the position returned, decoded; -1 is the last one that told."""
        if index == -1:
            index = max(self.by_index, default=0)
        assert index in self.by_index, f"call {index} told nothing: {self.message}"
        result = self.by_index[index]
        assert result.WhichOneof("outcome") == "value", f"call {index} failed: {result.error}"
        return decode(result.value)

    def error(self, index: int = 0) -> pb.Error:
        """Why the call at the position failed."""
        assert index in self.by_index, f"call {index} told nothing: {self.message}"
        assert self.by_index[index].WhichOneof("outcome") == "error", f"call {index} succeeded: {self.message}"
        return self.by_index[index].error

    @property
    def errors(self) -> dict[int, pb.Error]:
        """All failures."""
        return {index: result.error for index, result in self.by_index.items() if result.HasField("error")}

    def clean(self) -> Reply:
        """This reply, which must tell of no failure."""
        assert not self.errors, self.errors
        return self


class Raw:
    """A connection without a session: what grpcurl is."""

    secret = b""

    def __init__(
        self,
        address: str,
        compression: grpc.Compression = grpc.Compression.NoCompression,
        channel: grpc.Channel | None = None,
    ) -> None:
        """Connect to the address, or take a channel that is there."""
        self.address = address
        # A connection of its own: grpc shares subchannels of one address within a process.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 64 << 20)]
        self.channel: Any = channel or grpc.insecure_channel(address, options=options, compression=compression)

    def context(self, seq: int = 0) -> service_pb.SessionContext:
        """In whose name a request comes."""
        return service_pb.SessionContext(session=self.secret, seq=seq)

    def request(self, method: str, seq: int = 0, **fields: Any) -> Message:
        """The request of a unary RPC, with the session in it."""
        kind = GetMessageClass(METHODS[method].input_type)
        if "context" in METHODS[method].input_type.fields_by_name and "context" not in fields:
            fields["context"] = self.context(seq)
        return kind(**{name: value.ref if isinstance(value, Kept) else value for name, value in fields.items()})

    def ask(self, method: str, *, timeout_s: float = TIMEOUT_S, seq: int = 0, **fields: Any) -> Any:
        """Call a unary RPC and return its response."""
        return self.send(method, self.request(method, seq=seq, **fields).SerializeToString(), timeout_s=timeout_s)

    def send(self, method: str, request: bytes, timeout_s: float = TIMEOUT_S) -> Any:
        """Call a unary RPC with these very bytes."""
        response = GetMessageClass(METHODS[method].output_type)
        call = self.channel.unary_unary(path_of(method), None, response.FromString)
        # A session is opened when the server is there, should it have to come back first.
        return call(request, timeout=timeout_s, wait_for_ready=method == "OpenSession")

    def send_stream(self, method: str, requests: Iterable[bytes], timeout_s: float = TIMEOUT_S) -> list[Any]:
        """Call any RPC with these very bytes as its messages, and return all its responses."""
        response = GetMessageClass(METHODS[method].output_type)
        multi = self.channel.stream_stream(path_of(method), None, response.FromString)
        return list(multi(iter(requests), timeout=timeout_s))

    def create(self, **fields: Any) -> pb.TensorMeta:
        """CreateTensor."""
        meta: pb.TensorMeta = self.ask("CreateTensor", **fields).tensor
        return meta

    def get(self, tensor: pb.Ref | Kept) -> Any:
        """The elements of a tensor, as a torch tensor."""
        return tensor_of(self.ask("GetTensor", tensor=tensor, include_data=True).data)

    def held(self) -> tuple[int, int]:
        """How many tensors the session holds, and their bytes."""
        page = self.ask("ListTensors", page_size=1)
        return page.total_tensors, page.total_bytes

    def upload(self, header: service_pb.UploadHeader, chunks: Iterable[bytes]) -> service_pb.UploadResponse:
        """Upload with this header and these chunks."""
        requests = [service_pb.UploadRequest(header=header)]
        requests += [service_pb.UploadRequest(chunk=chunk) for chunk in chunks]
        (response,) = self.send_stream("Upload", [request.SerializeToString() for request in requests])
        assert isinstance(response, service_pb.UploadResponse)
        return response

    def download(self, tensor: pb.Ref | Kept, chunk_bytes: int = 0) -> list[service_pb.DownloadResponse]:
        """All messages of a download."""
        request = self.request("Download", tensor=tensor, chunk_bytes=chunk_bytes)
        return self.send_stream("Download", [request.SerializeToString()])

    def open_session(self, **fields: Any) -> RawSession:
        """OpenSession on this connection; the session does not close it."""
        return RawSession(self.address, raw=self, **fields)

    def close(self) -> None:
        """Close the connection."""
        self.channel.close()

    def __enter__(self) -> Raw:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class RawSession(Raw):
    """A session: numbers its batches, names operations by index, and makes ids, as a client must."""

    def __init__(self, address: str, raw: Raw | None = None, **fields: Any) -> None:
        if raw is None:
            super().__init__(address)
        else:
            self.address = address
            self.channel = raw.channel
        self._owns_channel = raw is None
        self._closed = False
        fields = {"min_protocol": 1, "max_protocol": 1, "client": "tests", **fields}
        self.opened: service_pb.OpenSessionResponse = self.ask("OpenSession", **fields)
        self.secret = self.opened.session
        self.next_seq = 1
        self.acked = 0
        self._ids = itertools.count(1)
        self._operations: dict[str, int] = {}
        self._new_operations: list[str] = []

    @property
    def limits(self) -> service_pb.Limits:
        """The bounds of the session."""
        return self.opened.limits

    def id(self) -> int:
        """An id that is not in use."""
        return next(self._ids)

    def operation(self, name: str) -> int:
        """The index of an operation; the next batch defines it where it is new."""
        if name not in self._operations:
            self._operations[name] = len(self._operations)
            self._new_operations.append(name)
        return self._operations[name]

    def call(
        self,
        id: int,
        operation: str,
        *args: Any,
        context: int = 0,
        frees: Iterable[int] = (),
        free_parts: Iterable[Kept] = (),
        **kwargs: Any,
    ) -> pb.Call:
        """One call."""
        return pb.Call(
            id=id,
            operation=self.operation(operation),
            args=map(encode, args),
            kwargs=[pb.NamedValue(name=name, value=encode(value)) for name, value in kwargs.items()],
            context=context,
            frees=frees,
            free_parts=[part.ref for part in free_parts],
        )

    def batch(self, *calls: pb.Call, seq: int | None = None, **fields: Any) -> pb.Batch:
        """The next batch, with the operations that its calls are the first to use."""
        names, self._new_operations = self._new_operations, []
        if seq is None:
            seq, self.next_seq = self.next_seq, self.next_seq + 1
        if "free_parts" in fields:
            fields["free_parts"] = [part.ref for part in fields["free_parts"]]
        return pb.Batch(seq=seq, calls=calls, define_operations=names, **{"acked": self.acked, **fields})

    def undo(self, batch: pb.Batch) -> None:
        """Take back a batch that the server has not accepted: its number and its definitions are free again."""
        self.next_seq = batch.seq
        self._new_operations = [*batch.define_operations, *self._new_operations]

    def execute(self, batch: pb.Batch, timeout_s: float = TIMEOUT_S) -> Reply:
        """Execute one batch as it is."""
        response = self.ask("Execute", timeout_s=timeout_s, session=self.secret, batch=batch)
        self.acked = max(self.acked, response.reply.seq)
        return Reply(response.reply)

    def run(self, *calls: pb.Call, **fields: Any) -> Reply:
        """Execute these calls as the next batch."""
        return self.execute(self.batch(*calls, **fields))

    def make(self, operation: str, *args: Any, **kwargs: Any) -> Kept:
        """Run one call and name what it made."""
        kept = Kept(self.id())
        self.run(self.call(kept.id, operation, *args, **kwargs)).clean()
        return kept

    def read(self, kept: Kept) -> Any:
        """Read a tensor through a batch."""
        return self.run(self.call(0, "tc.read", kept)).value(0)

    def stream(self, raw: Raw | None = None) -> RawStream:
        """A stream of the session, on its own connection or on another."""
        return RawStream(raw or self, self.secret)

    def close(self) -> None:
        """End the session; one that is lost already has ended. Twice is no error."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(grpc.RpcError):
            self.ask("CloseSession", session=self.secret, timeout_s=5.0)
        if self._owns_channel:
            self.channel.close()

    def __enter__(self) -> RawSession:
        return self


class RawStream:
    """One ExecuteStream, read by a thread so that every wait has a bound."""

    def __init__(self, raw: Raw, secret: bytes) -> None:
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._replies: queue.Queue[Reply | grpc.RpcError | None] = queue.Queue()
        multi = raw.channel.stream_stream(path_of("ExecuteStream"), None, service_pb.ExecuteStreamResponse.FromString)
        self.send_bytes(service_pb.ExecuteStreamRequest(session=secret).SerializeToString())
        self._call = multi(self._feed(), timeout=60.0)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _feed(self) -> Iterator[bytes]:
        while (request := self._requests.get()) is not None:
            yield request

    def _read(self) -> None:
        try:
            for response in self._call:
                self._replies.put(Reply(response.reply))
            self._replies.put(None)
        except grpc.RpcError as error:
            self._replies.put(error)

    def send_bytes(self, request: bytes) -> None:
        """Send these very bytes as a message."""
        self._requests.put(request)

    def send(self, *batches: pb.Batch) -> None:
        """Send batches, one message each."""
        for batch in batches:
            self.send_bytes(service_pb.ExecuteStreamRequest(batch=batch).SerializeToString())

    def receive(self, timeout_s: float = TIMEOUT_S) -> Reply:
        """The next reply; raises what ended the stream."""
        try:
            answer = self._replies.get(timeout=timeout_s)
        except queue.Empty:
            raise AssertionError(f"no reply within {timeout_s} s") from None
        if isinstance(answer, grpc.RpcError):
            raise answer
        assert answer is not None, "the stream has ended"
        return answer

    def answered(self) -> int:
        """How many replies wait to be received."""
        return self._replies.qsize()

    def finish(self, timeout_s: float = TIMEOUT_S) -> None:
        """Send no more, and wait until the server has ended the stream."""
        self._requests.put(None)
        try:
            answer = self._replies.get(timeout=timeout_s)
        except queue.Empty:
            raise AssertionError(f"the stream did not end within {timeout_s} s") from None
        if isinstance(answer, grpc.RpcError):
            raise answer
        assert answer is None, f"a reply nobody waited for: {answer.message}"

    def cancel(self) -> None:
        """Drop the stream as a client does that is gone."""
        self._call.cancel()
        self._requests.put(None)
        self._reader.join(10.0)

    def __enter__(self) -> RawStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()
