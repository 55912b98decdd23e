"""Many sessions from one process, straight on the generated stubs: what they cost the server, without the client's
share.

Knows the contract; does not know `tclient`. Orders of the side: `open` this many idle sessions more (with a stream
each if `attached`), `close` them all, or let this many sessions work at once (`work`).
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc

from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as service_pb
from tensorcompute.v1 import tensor_service_pb2_grpc as stubs

from .side import Options, Order, Run, serve

MODULE = __name__
TIMEOUT_S = 60.0
CALLS_PER_BATCH = 256
WINDOW = 2
ONES, ADD = 0, 1
SIZE = pb.Value(size=pb.Size(dims=[4]))
# Without it all channels of a process to one address share a connection, which clients of their own do not.
OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)


@dataclass
class Session:
    """A session, and what it holds on this side."""

    stub: stubs.TensorServiceStub
    secret: bytes
    channel: grpc.Channel | None = None
    seq: int = 0
    requests: queue.SimpleQueue[service_pb.ExecuteStreamRequest | None] = field(default_factory=queue.SimpleQueue)
    replies: Iterator[service_pb.ExecuteStreamResponse] | None = None

    @classmethod
    def open(cls, stub: stubs.TensorServiceStub, channel: grpc.Channel | None = None) -> Session:
        """A new session that has made two tensors, 1 and 2."""
        opened = stub.OpenSession(service_pb.OpenSessionRequest(min_protocol=1, max_protocol=1), timeout=TIMEOUT_S)
        session = cls(stub, opened.session, channel)
        first = pb.Batch(seq=1, define_operations=["ones", "Tensor.__add__"])
        first.calls.extend(pb.Call(id=id, operation=ONES, args=[SIZE]) for id in (1, 2))
        stub.Execute(service_pb.ExecuteRequest(session=session.secret, batch=first), timeout=TIMEOUT_S)
        session.seq = 1
        return session

    def attach(self) -> None:
        """Open a stream, and see one batch through it."""
        self.requests.put(service_pb.ExecuteStreamRequest(session=self.secret))
        self.replies = self.stub.ExecuteStream(iter(self.requests.get, None))
        self.send(pb.Batch())
        self.receive()

    def send(self, batch: pb.Batch) -> None:
        """Send a batch as the next one."""
        self.seq += 1
        batch.seq, batch.acked = self.seq, self.seq - 1 - WINDOW if self.seq > WINDOW else 0
        request = service_pb.ExecuteStreamRequest()
        request.batch.CopyFrom(batch)
        self.requests.put(request)

    def receive(self) -> None:
        """Wait for one reply, which must tell of no failure."""
        assert self.replies is not None
        for result in next(self.replies).reply.results:
            if result.HasField("error"):
                raise AssertionError(f"call {result.call_index} failed: {result.error.message}")

    def close(self) -> None:
        """End it."""
        self.requests.put(None)
        self.stub.CloseSession(service_pb.CloseSessionRequest(session=self.secret), timeout=TIMEOUT_S)
        if self.channel is not None:
            self.channel.close()


def chain() -> pb.Batch:
    """A batch of dependent adds that starts from tensor 1, ends in tensor 1 and holds two tensors at most."""
    batch = pb.Batch()
    held = 1
    for number in range(CALLS_PER_BATCH):
        made = 1 if number == CALLS_PER_BATCH - 1 else 3 + number % 2
        call = batch.calls.add(id=made, operation=ADD, args=[pb.Value(result=held), pb.Value(result=2)])
        # Tensor 1 is let go by the second call, so that the last one may make it anew.
        if number >= 1:
            call.frees.append(1 if number == 1 else 3 + number % 2)
        held = made
    batch.frees.append(3 + (CALLS_PER_BATCH - 2) % 2)
    return batch


def work(session: Session, batches: int, template: pb.Batch) -> None:
    """Run batches with a few of them under way."""
    waiting = 0
    for _ in range(batches):
        session.send(template)
        waiting += 1
        if waiting >= WINDOW:
            session.receive()
            waiting -= 1
    for _ in range(waiting):
        session.receive()


@contextlib.contextmanager
def many(options: Options) -> Iterator[Run]:
    """The side."""
    channel = grpc.insecure_channel(options.address)
    held: list[Session] = []
    workers: list[Session] = []

    def run(order: Order) -> list[float]:
        if "open" in order:
            for _ in range(order["open"]):
                own = grpc.insecure_channel(options.address, options=OWN_CONNECTION) if order.get("attached") else None
                session = Session.open(stubs.TensorServiceStub(own or channel), own)
                if own is not None:
                    session.attach()
                held.append(session)
            return []
        if "close" in order:
            while held:
                held.pop().close()
            return []
        while len(workers) < order["work"]:
            workers.append(Session.open(stubs.TensorServiceStub(channel)))
            workers[-1].attach()
        return [together(workers[: order["work"]], order["batches"])]

    try:
        yield run
    finally:
        channel.close()


def together(sessions: list[Session], batches: int) -> float:
    """µs per call, over all sessions, while each runs the batches."""
    failures: list[BaseException] = []
    template = chain()

    def one(session: Session) -> None:
        try:
            work(session, batches, template)
        except BaseException as failure:
            failures.append(failure)

    threads: list[Any] = [threading.Thread(target=one, args=(session,), daemon=True) for session in sessions]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return (time.perf_counter() - began) / (len(sessions) * batches * CALLS_PER_BATCH) * 1e6


def max_sessions(address: str) -> int:
    """How many sessions the server allows, less a few for the benchmark itself."""
    with grpc.insecure_channel(address) as channel:
        info = stubs.TensorServiceStub(channel).GetServerInfo(service_pb.GetServerInfoRequest(), timeout=TIMEOUT_S)
    return max(0, int(info.limits.max_sessions) - 16)


if __name__ == "__main__":
    serve({"sessions": many})
