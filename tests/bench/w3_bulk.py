"""W3, W3s: 256 MiB into a usable tensor on the server, and 256 MiB back into a usable array.

Yardsticks: Arrow Flight with batches of 4 MiB into and out of one contiguous array (if pyarrow is there), raw TCP
between two Python processes into memory that is there already, and a memcpy within one process. An upload counts as
done when the server has the tensor: the side waits for a read of its last element. tclient is measured three times: as
it comes, over the data endpoint; over gRPC alone; and through shared memory (W3s). Every side downloads into memory
that is there already.
"""

from __future__ import annotations

import contextlib
import importlib.util
import socket
import time
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from .bench import Bench
from .peers.raw_tcp import DOWNLOAD, UPLOAD, header
from .processes import peer, side
from .side import Options, Order, Run, serve
from .stats import Bar, Row

MODULE = __name__
BATCH_BYTES = 4 << 20
FLIGHT_BAR = Bar("at least", (1.1,))
RAW_BAR = Bar("at least", (0.6,))
COPY_BAR = Bar("at least", (0.7,))
OURS, GRPC, SHARED = "tclient", "tclient, gRPC", "tclient, shared memory"


def measure(bench: Bench) -> Iterator[Row]:
    """One row per direction, way and yardstick; each way has a bar against the yardstick of its kind."""
    rounds, size_bytes = bench.choose(5, 3), bench.choose(256, 64) << 20
    flight_there = importlib.util.find_spec("pyarrow") is not None
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        server, raw = enter(bench.server("--shared-memory")), enter(peer("raw_tcp"))
        sides = [enter(side(MODULE, name, address=server.address)) for name in (OURS, GRPC, SHARED)]
        sides += [enter(side(MODULE, "raw TCP", address=raw.address)), enter(side(MODULE, "memcpy"))]
        if flight_there:
            sides.append(enter(side(MODULE, "Flight", address=enter(peer("flight")).address)))
        else:
            bench.say("W3: pyarrow is not installed, so there is no Arrow Flight to compare with")
        for direction in ("upload", "download"):
            order = {"repetitions": 4, "bytes": size_bytes, "direction": direction}
            ours, grpc, shared, raw_tcp, memcpy, *flight = bench.take_turns(sides, "GB/s", rounds, order)
            what = f"{direction} of {size_bytes >> 20} MiB"
            yield Row("W3", f"{what}, data endpoint", ours, raw_tcp, RAW_BAR)
            for theirs in flight:
                yield Row("W3", f"{what}, data endpoint", ours, theirs)
                yield Row("W3", f"{what}, gRPC alone", grpc, theirs, FLIGHT_BAR)
            yield Row("W3s", f"{what}, shared memory", shared, memcpy, COPY_BAR)


def rates(up: Callable[[int], object], down: Callable[[int], object], order: Order) -> list[float]:
    """GB/s of each transfer."""
    size_bytes: int = order["bytes"]
    transfer = up if order["direction"] == "upload" else down
    figures = []
    for _ in range(order["repetitions"]):
        began = time.perf_counter()
        transfer(size_bytes)
        figures.append(size_bytes / (time.perf_counter() - began) / 1e9)
    return figures


def array(size_bytes: int) -> npt.NDArray[np.float32]:
    """Memory that has been touched, with an end that can be recognised."""
    made = np.zeros(size_bytes // 4, np.float32)
    made[:] = 1
    made[-1] = 7
    return made


@contextlib.contextmanager
def with_tclient(options: Options) -> Iterator[Run]:
    """Through the server, over its data endpoint."""
    import tclient

    with tclient.connect(options.address) as session:
        assert session.transfers.endpoint.address, "the server has no data endpoint"
        yield from _with_session()


@contextlib.contextmanager
def with_grpc(options: Options) -> Iterator[Run]:
    """Through the server, over gRPC alone."""
    import tclient

    with tclient.connect(options.address) as session:
        session.transfers.endpoint.address = ""
        yield from _with_session()


@contextlib.contextmanager
def with_shared_memory(options: Options) -> Iterator[Run]:
    """Through memory that client and server share."""
    import tclient

    with tclient.connect(options.address, shared_memory=True) as session:
        assert session.transfers.endpoint.shared_memory, "the server shares no memory"
        yield from _with_session()


def _with_session() -> Iterator[Run]:
    import tclient

    def run(order: Order) -> list[float]:
        data = array(order["bytes"])
        held = tclient.from_numpy(data)

        def up(size_bytes: int) -> None:
            assert tclient.from_numpy(data)[-1].item() == 7

        def down(size_bytes: int) -> None:
            assert held.numpy(out=data)[-1] == 7

        return rates(up, down, order)

    yield run


@contextlib.contextmanager
def with_flight(options: Options) -> Iterator[Run]:
    """Arrow Flight, as its documentation shows it."""
    import pyarrow as pa
    from pyarrow import flight

    schema = pa.schema([("bytes", pa.uint8())])
    client = flight.connect(f"grpc://{options.address}")

    def up(data: npt.NDArray[np.float32]) -> None:
        descriptor = flight.FlightDescriptor.for_path(str(data.nbytes))
        writer, metadata = client.do_put(descriptor, schema)
        whole = data.view(np.uint8)
        for start in range(0, whole.size, BATCH_BYTES):
            column = pa.array(whole[start : start + BATCH_BYTES])
            writer.write_batch(pa.record_batch([column], schema=schema))
        writer.done_writing()
        metadata.read()  # the server has everything in one array
        writer.close()

    def down(out: npt.NDArray[np.uint8]) -> None:
        place = 0
        for chunk in client.do_get(flight.Ticket(str(out.size).encode())):
            part = chunk.data.column(0).to_numpy(zero_copy_only=True)
            out[place : place + part.size] = part
            place += part.size
        assert out.view(np.float32)[-1] == 7

    def run(order: Order) -> list[float]:
        data = array(order["bytes"])
        return rates(lambda _: up(data), lambda _: down(data.view(np.uint8)), order)

    yield run


@contextlib.contextmanager
def with_raw_tcp(options: Options) -> Iterator[Run]:
    """`sendall` and `recv_into`."""
    host, _, port = options.address.rpartition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def run(order: Order) -> list[float]:
            data = array(order["bytes"]).view(np.uint8).data

            def up(size_bytes: int) -> None:
                connection.sendall(header(UPLOAD, size_bytes))
                connection.sendall(data)
                assert connection.recv(1)

            def down(size_bytes: int) -> None:
                connection.sendall(header(DOWNLOAD, size_bytes))
                place = 0
                while place < size_bytes:
                    place += connection.recv_into(data[place:])

            return rates(up, down, order)

        yield run


@contextlib.contextmanager
def with_memcpy(options: Options) -> Iterator[Run]:
    """One copy within a process, into memory that is there already."""

    def run(order: Order) -> list[float]:
        source, target = array(order["bytes"]), array(order["bytes"])
        return rates(lambda _: np.copyto(target, source), lambda _: np.copyto(source, target), order)

    yield run


if __name__ == "__main__":
    serve(
        {
            OURS: with_tclient,
            GRPC: with_grpc,
            SHARED: with_shared_memory,
            "Flight": with_flight,
            "raw TCP": with_raw_tcp,
            "memcpy": with_memcpy,
        }
    )
