"""A server that sends to another one: where it may, what it says there, and what it leaves behind. No SDK."""

from __future__ import annotations

import contextlib
import hmac
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as service_pb
from tensorcompute.wire.data_endpoint import ticket_of
from tests.support.raw import Raw, RawSession
from tests.support.refusals import refused
from tests.support.serving import HasAddress, serving, wait_until
from tserver.errors import PermissionDenied
from tserver.front.sending import Destination, SendTo, house_proof

COUNT = 1 << 20
SIZE = 4 * COUNT
KEY = bytes(range(32))


@contextlib.contextmanager
def session_of(address: str) -> Iterator[RawSession]:
    with Raw(address) as raw, raw.open_session() as session:
        yield session


@pytest.fixture
def here(server: HasAddress) -> Iterator[RawSession]:
    """The session that sends."""
    with session_of(server.address) as session:
        yield session


@pytest.fixture
def there(other_server: HasAddress) -> Iterator[RawSession]:
    """The session that receives."""
    with session_of(other_server.address) as session:
        yield session


def permission_of(session: RawSession, *shapes: list[int], first: int = 5) -> service_pb.OpenTransferResponse:
    headers = [
        service_pb.UploadHeader(id=first + place, dtype=pb.D_TYPE_FLOAT32, shape=shape)
        for place, shape in enumerate(shapes)
    ]
    announced = service_pb.ReceiveHeader(context=session.context(), uploads=headers)
    answer: service_pb.OpenTransferResponse = session.ask("OpenTransfer", receive=announced)
    assert answer.ticket == ticket_of(answer.key)
    return answer


def send(session: RawSession, tensors: list[pb.Ref], **fields: Any) -> list[service_pb.SendTensorsResponse]:
    request = session.request("SendTensors", tensors=tensors, **{"key": KEY, "size_bytes": SIZE, **fields})
    return session.send_stream("SendTensors", [request.SerializeToString()])


def full(session: RawSession, value: float, *shape: int) -> pb.Ref:
    number = pb.Value(number=value)
    return session.create(shape=shape, full=service_pb.FullFactory(value=number), dtype=pb.D_TYPE_FLOAT32).id


def sum_of(session: RawSession, upload: int) -> float:
    kept = session.make("tensor", pb.Value(array=pb.HostArray(kind=pb.HostArray.KIND_TENSOR, upload=upload)))
    return float(session.read(session.make("Tensor.sum", kept)).item())


def test_all_of_several_tensors_arrive_by_one_connection(here: RawSession, there: RawSession) -> None:
    tensors = [full(here, 1.0, COUNT), full(here, 2.0, 3, 0), full(here, 3.0), full(here, 4.0, 2, 3)]
    to = permission_of(there, [COUNT], [0], [], [3, 2])
    assert to.size_bytes == SIZE + 4 + 24
    told = send(here, tensors, key=to.key, size_bytes=to.size_bytes, socket=to.socket)
    assert (told[-1].done, told[-1].sent_bytes) == (True, to.size_bytes)
    assert [sum_of(there, upload) for upload in (5, 6, 7, 8)] == [COUNT, 0.0, 3.0, 24.0]


def test_it_goes_over_tcp_as_well(here: RawSession, there: RawSession) -> None:
    to = permission_of(there, [COUNT])
    address = "127.0.0.1" + to.data_endpoint
    assert send(here, [full(here, 1.0, COUNT)], key=to.key, data_endpoint=address)[-1].done
    assert sum_of(there, 5) == COUNT


def test_over_tls_the_certificate_of_the_permission_is_looked_at(certificate: tuple[Path, Path, Path]) -> None:
    chain, key, authority = certificate
    options = ("--tls-cert", str(chain), "--tls-key", str(key))
    with serving(*options) as secret, serving() as plain:
        channel = grpc.secure_channel(secret.address, grpc.ssl_channel_credentials(authority.read_bytes()))
        with (
            Raw(secret.address, channel=channel) as raw,
            raw.open_session() as there,
            session_of(plain.address) as here,
        ):
            tensor = full(here, 1.0, COUNT)
            to = permission_of(there, [COUNT])
            address = "127.0.0.1" + to.data_endpoint
            fields = {"key": to.key, "data_endpoint": address}
            with refused(grpc.StatusCode.FAILED_PRECONDITION, naming="key of the permission"):
                send(here, [tensor], **fields, certificate_sha256=bytes(32))
            told = send(here, [tensor], **fields, certificate_sha256=to.certificate_sha256)
            assert told[-1].done
            assert sum_of(there, 5) == COUNT


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A certificate of 127.0.0.1 with its chain, its key, and the authority that signed it."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    files = folder / "cert.pem", folder / "key.pem", folder / "authority.pem"
    files[0].write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    files[1].write_bytes(issued.private_key_pem.bytes())
    files[2].write_bytes(authority.cert_pem.bytes())
    return files


@pytest.mark.parametrize(
    ("fields", "code", "naming"),
    [
        pytest.param({"size_bytes": SIZE - 1}, "INVALID_ARGUMENT", f"{SIZE} bytes", id="another size"),
        pytest.param({"key": b"short"}, "INVALID_ARGUMENT", "32", id="no key"),
        pytest.param({}, "FAILED_PRECONDITION", "key", id="nowhere"),
        pytest.param({"data_endpoint": "127.0.0.1:1"}, "FAILED_PRECONDITION", "key", id="nobody is there"),
        pytest.param({"data_endpoint": "10.1.2.3:80"}, "PERMISSION_DENIED", "--send-to", id="another machine"),
        pytest.param({"data_endpoint": "example.invalid:80"}, "PERMISSION_DENIED", "--send-to", id="a name"),
        pytest.param({"data_endpoint": "127.0.0.1"}, "PERMISSION_DENIED", "--send-to", id="no port"),
        pytest.param({"data_endpoint": "[::ffff:10.1.2.3]:80"}, "PERMISSION_DENIED", "--send-to", id="mapped"),
        pytest.param({"socket": "/tmp/.X11-unix/X0"}, "PERMISSION_DENIED", "--send-to", id="another socket"),
        pytest.param({"socket": "tserver-0123456789abcdef"}, "FAILED_PRECONDITION", "key", id="no such socket"),
    ],
)
def test_what_is_not_allowed_or_not_there_is_refused(
    here: RawSession, fields: dict[str, Any], code: str, naming: str
) -> None:
    tensor = full(here, 1.0, COUNT)
    with refused(grpc.StatusCode[code], naming=naming):
        send(here, [tensor], **fields)
    assert here.held() == (1, SIZE)


@pytest.mark.parametrize(
    ("setting", "allowed"),
    [
        pytest.param("none", (), id="none"),
        pytest.param("house", ("socket", "data_endpoint"), id="house"),
        pytest.param("any", ("socket", "data_endpoint"), id="any"),
        pytest.param("example.org:1", (), id="another one"),
        pytest.param("ADDRESS,example.org:1", ("data_endpoint",), id="its address"),
    ],
)
def test_the_setting_says_where_a_server_may_send(there: RawSession, setting: str, allowed: tuple[str, ...]) -> None:
    named = permission_of(there, [1])
    address = "127.0.0.1" + named.data_endpoint
    with serving("--send-to", setting.replace("ADDRESS", address)) as server, session_of(server.address) as here:
        tensor = full(here, 1.0, COUNT)
        for way, where in (("socket", named.socket), ("data_endpoint", address)):
            to = permission_of(there, [COUNT])
            with (
                contextlib.nullcontext()
                if way in allowed
                else refused(grpc.StatusCode.PERMISSION_DENIED, naming="--send-to")
            ):
                assert send(here, [tensor], key=to.key, **{way: where})[-1].done
                assert sum_of(there, 5) == COUNT


def test_engines_of_a_house_on_other_machines_vouch_for_each_other() -> None:
    address = "10.1.2.3:50"
    near, others = SendTo({"house"}, "the key of the house"), SendTo({"house"}, "another")
    to = Destination(KEY, address, "", b"", house_proof("the key of the house", KEY, address))
    assert [where for _, where in near.resolved(to)] == [("10.1.2.3", 50)]
    refusals = [
        (others, to),
        (SendTo({"house"}), to),
        (SendTo(set(), "the key of the house"), to),
        (near, replace(to, data_endpoint="10.1.2.3:51")),
        (near, replace(to, key=KEY[::-1])),
        (near, replace(to, house_proof=b"")),
    ]
    for allowed, destination in refusals:
        with pytest.raises(PermissionDenied, match="--send-to"):
            allowed.resolved(destination)


def test_an_engine_of_a_house_gives_its_proof() -> None:
    with serving("--engines", "2") as house, session_of(house.address) as there:
        to = permission_of(there, [1])
        assert to.data_endpoint.startswith("127.0.0.1:")
        assert len(to.house_proof) == 32


@contextlib.contextmanager
def answering(behave: Callable[[socket.socket], None]) -> Iterator[str]:
    """Another program on loopback; its address."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    behave(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def test_another_program_hears_nothing_that_a_caller_has_chosen(here: RawSession) -> None:
    heard = []

    def listen(connection: socket.socket) -> None:
        heard.append(connection.recv(1 << 16))
        connection.sendall(b"tdt2" + bytes(48))
        heard.append(connection.recv(1 << 16))

    tensor = full(here, 1.0, COUNT)
    with answering(listen) as address, refused(grpc.StatusCode.FAILED_PRECONDITION, naming="key of the permission"):
        send(here, [tensor], key=b"\r\nFLUSHALL\r\n" * 2 + bytes(8), data_endpoint=address)
    opening, rest = heard
    assert len(opening) == 36
    assert b"FLUSHALL" not in opening
    assert rest == b""


@contextlib.contextmanager
def receiving(key: bytes, after_bytes: int, status: bytes) -> Iterator[tuple[str, threading.Event]]:
    """A receiver that has the key, and answers or ends after so many bytes; and when it was left."""
    left = threading.Event()

    def receive(connection: socket.socket) -> None:
        said = connection.recv(36)
        nonces = said[20:] + bytes(16)
        connection.sendall(b"tdt2" + bytes(16) + hmac.digest(key, b"server" + nonces, "sha256"))
        assert connection.recv(32) == hmac.digest(key, b"client" + nonces, "sha256")
        count = 0
        while count < after_bytes:
            received = len(connection.recv(min(1 << 20, after_bytes - count)))
            if not received:
                break
            count += received
        connection.sendall(status)
        if not status:
            while connection.recv(1 << 20):
                pass
        left.set()

    with answering(receive) as address:
        yield address, left


@pytest.mark.parametrize(
    ("after_bytes", "status", "naming"),
    [
        pytest.param(SIZE, b"\1", "did not keep", id="not kept"),
        pytest.param(1000, b"\1", "bytes", id="not even received"),
    ],
)
def test_a_receiver_that_does_not_keep_it_is_told_of(
    here: RawSession, after_bytes: int, status: bytes, naming: str
) -> None:
    tensor = full(here, 1.0, COUNT)
    with (
        receiving(KEY, after_bytes, status) as (address, _),
        refused(grpc.StatusCode.FAILED_PRECONDITION, naming=naming),
    ):
        send(here, [tensor], data_endpoint=address)


@pytest.mark.parametrize("leave", ["the caller leaves", "the session ends"])
def test_who_leaves_ends_the_sending(server: HasAddress, leave: str) -> None:
    with session_of(server.address) as here, receiving(KEY, 1 << 60, b"") as (address, left):
        tensor = full(here, 1.0, COUNT)
        request = here.request("SendTensors", tensors=[tensor], key=KEY, size_bytes=SIZE, data_endpoint=address)
        method = here.channel.unary_stream("/tensorcompute.v1.TensorService/SendTensors")
        call = method(request.SerializeToString())
        next(call)
        if leave == "the caller leaves":
            call.cancel()
        else:
            here.close()
        assert left.wait(10.0)


def test_a_permission_that_is_too_large_takes_no_memory(there: RawSession) -> None:
    before = there.held()
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, naming=str(4 * 2**48)):
        permission_of(there, [COUNT], [2**48])
    assert there.held() == before


@pytest.mark.parametrize("sent", [0, 1000, SIZE - 1])
def test_what_comes_in_part_leaves_nothing_behind(there: RawSession, sent: int) -> None:
    before = there.held()
    to = permission_of(there, [COUNT - 1], [1])
    assert there.held()[1] == before[1] + SIZE
    with socket.create_connection(("127.0.0.1", int(to.data_endpoint[1:])), timeout=10.0) as connection:
        connection.sendall(b"tdt2" + to.ticket + bytes(16))
        said = connection.recv(52, socket.MSG_WAITALL)
        connection.sendall(hmac.digest(to.key, b"client" + bytes(16) + said[4:20], "sha256") + bytes(sent))
    wait_until(lambda: there.held() == before, 10.0, "the memory is free again")
    with pytest.raises(AssertionError, match="not complete"):
        sum_of(there, 5)


def test_another_permission_for_the_same_uploads_takes_the_place_of_the_first(
    here: RawSession, there: RawSession
) -> None:
    before = there.held()[1]
    permission_of(there, [COUNT])
    to = permission_of(there, [COUNT])
    assert there.held()[1] == before + SIZE
    assert send(here, [full(here, 1.0, COUNT)], key=to.key, socket=to.socket)[-1].done
    with refused(grpc.StatusCode.ALREADY_EXISTS, naming="5"):
        permission_of(there, [COUNT])
    assert sum_of(there, 5) == COUNT


def test_what_comes_for_a_session_that_has_ended_is_not_kept(here: RawSession, other_server: HasAddress) -> None:
    with session_of(other_server.address) as there:
        to = permission_of(there, [COUNT])
    with refused(grpc.StatusCode.FAILED_PRECONDITION, naming="did not keep"):
        send(here, [full(here, 1.0, COUNT)], key=to.key, socket=to.socket)
