"""What no port may be made to do by what is too large, too deep, or named so that it leads elsewhere.

Who is not known is told nothing by any port: test_every_rpc. Floods of connections: test_connections. TLS: test_tls.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tensorcompute.oip import inference_pb2 as oip
from tests.models.networks import create, relu_mlp
from tests.support.listeners import listener
from tests.support.raw import METHODS, Raw
from tests.support.serving import ServerProcess, children_of, serving, wait_until
from tests.trust.test_every_rpc import served_routes
from tserver.front.listeners import _MAX_STREAMS

Code = grpc.StatusCode
MIB = 1 << 20
GRPC, HTTP = ("main", "oip"), ("http", "metrics")
OIP_METHODS = oip.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods
INFER = "/inference.GRPCInferenceService/ModelInfer"
EXECUTE = "/tensorcompute.v1.TensorService/Execute"
# What stands in a file beside the data directory.
MARKER = "what-stands-in-a-file-of-somebody-else"
FORGED = 'x\n{"level": "error", "message": "forged"}\x1b[2J\u2028\x9b2J'


class Open(NamedTuple):
    """A server with all ports, and the folder that its data directory is in."""

    server: ServerProcess
    folder: Path
    ports: dict[str, str]

    def path_of(self, method: MethodDescriptor) -> str:
        return f"/{method.containing_service.full_name}/{method.name}"

    def http(self, port: str, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        """What is answered to exactly this path."""
        host, _, number = self.ports[port].rpartition(":")
        connection = http.client.HTTPConnection(host, int(number), timeout=20.0)
        try:
            connection.request(method, path, body or None, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


@pytest.fixture(scope="module", params=["one server", "a house"])
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    folder = tmp_path_factory.mktemp("ports")
    (folder / "secret.txt").write_text(MARKER)
    options = [part for name in ("oip", *HTTP) for part in (f"--{name}-listen", "127.0.0.1:0")]
    options += ["--data-dir", str(folder / "data"), "--oip-model-control", "--oip-max-message-bytes", str(8 * MIB)]
    options += ["--log-format", "json", *(["--engines", "2"] if request.param == "a house" else [])]
    with serving(*options) as server:
        with Raw(server.address) as raw:
            create(raw, "net", relu_mlp((4, 2)))
        ports = {"main": server.address, **{name: listener(server, name) for name in ("oip", *HTTP)}}
        yield Open(server, folder, ports)


def outcome(address: str, path: str, data: bytes, **options: Any) -> tuple[Code, bytes]:
    """How an RPC ends, and what it answers."""
    compression = options.pop("compression", None)
    made = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(address, options=made, compression=compression) as channel:
        call: Any = channel.stream_stream(path)
        try:
            return Code.OK, b"".join(call(iter([data]), timeout=20.0, **options))
        except grpc.RpcError as error:
            told: Any = error
            return told.code(), (told.details() or "").encode()


# --- what is too much ---


@pytest.mark.parametrize("port", GRPC)
def test_a_connection_may_have_so_many_streams_and_no_more(opened: Open, port: str) -> None:
    host, _, number = opened.ports[port].rpartition(":")
    with socket.create_connection((host, int(number)), timeout=10.0) as connection:
        # The preface, and settings that say nothing.
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))
        file = connection.makefile("rb")
        head = file.read(9)
        assert head[3] == 4, "settings come first"
        told = file.read(int.from_bytes(head[:3], "big"))
    settings = dict(struct.iter_unpack(">HI", told))
    assert settings[3] == _MAX_STREAMS


@pytest.mark.parametrize("port", GRPC)
def test_headers_of_grpc_are_bounded(opened: Open, port: str) -> None:
    for metadata in ((("x", "y" * 100_000),), tuple((f"x{number}", "y" * 100) for number in range(1000))):
        code, _ = outcome(opened.ports[port], INFER if port == "oip" else EXECUTE, b"", metadata=metadata)
        assert code is Code.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("port", HTTP)
def test_headers_of_http_are_bounded(opened: Open, port: str) -> None:
    path = "/metrics" if port == "metrics" else "/v2"
    assert opened.http(port, "GET", path)[0] == 200
    assert opened.http(port, "GET", path, x="y" * 100_000)[0] == 400
    assert opened.http(port, "GET", f"{path}?{'y' * 100_000}")[0] in (400, 414)


def _peaks(pid: int) -> int:
    """The most memory that a process and its children have had, in bytes."""
    told = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return (int(told[1]) << 10 if told else 0) + sum(map(_peaks, children_of(pid)))


@pytest.mark.parametrize("port", GRPC)
def test_a_little_that_becomes_much_is_refused_before_it_does(opened: Open, port: str) -> None:
    before = _peaks(opened.server.pid)
    with ThreadPoolExecutor(2) as pool:
        bombs = pool.map(
            lambda _: outcome(
                opened.ports[port],
                INFER if port == "oip" else EXECUTE,
                bytes(48 * MIB),
                compression=grpc.Compression.Gzip,
            )[0],
            range(4),
        )
        assert set(bombs) == {Code.RESOURCE_EXHAUSTED}
    assert _peaks(opened.server.pid) - before < 40 * MIB


# --- what is too deep ---


@pytest.mark.parametrize("port", GRPC)
@pytest.mark.parametrize("depth", [200, 100_000])
def test_messages_are_not_nested_without_end(opened: Open, port: str, depth: int) -> None:
    # Groups of a field that no message has: what reads them goes down all the same.
    data = b"\xfb\x3f" * depth + b"\xfc\x3f" * depth
    code, _ = outcome(opened.ports[port], INFER if port == "oip" else EXECUTE, data)
    assert code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize("depth", [30, 900, 200_000])
def test_json_is_not_nested_without_end(opened: Open, depth: int) -> None:
    deep = b"[" * depth + b"1" + b"]" * depth
    values = b'{"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 4], "data": %s}]}' % deep
    for body in (deep, values, b'{"a":' * depth + b"1" + b"}" * depth):
        status, told = opened.http("http", "POST", "/v2/models/net/infer", body)
        assert status == 400
        assert json.loads(told)["error"]


# --- what leads elsewhere ---


def _texts(message: Descriptor) -> Iterator[FieldDescriptor]:
    yield from (field for field in message.fields if field.type == FieldDescriptor.TYPE_STRING)


def _saying(kind: Descriptor, text: str, depth: int = 0) -> Message:
    """A message whose texts all say this, and so do those of the messages in it."""
    made: Any = GetMessageClass(kind)()
    for field in _texts(kind):
        if field.is_repeated:
            getattr(made, field.name).append(text)
        else:
            setattr(made, field.name, text)
    for field in kind.fields:
        inner = field.message_type
        if inner is None or inner.GetOptions().map_entry or depth > 2:
            continue
        below = _saying(inner, text, depth + 1)
        if field.is_repeated:
            getattr(made, field.name).append(below)
        else:
            getattr(made, field.name).CopyFrom(below)
    return made


def _said_everywhere(opened: Open, text: str) -> list[tuple[str, bytes]]:
    """What every RPC answers, and every path of HTTP, where all that can be named is called so."""
    found = []
    for port, methods in (("main", METHODS.values()), ("oip", OIP_METHODS)):
        for method in methods:
            path = opened.path_of(method)
            request = _saying(method.input_type, text).SerializeToString()
            code, answer = outcome(opened.ports[port], path, request)
            assert code not in (Code.UNKNOWN, Code.INTERNAL, Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED), (path, answer)
            found.append((path, answer))
    quoted = "".join(f"%{byte:02x}" for byte in text.encode())
    for route in served_routes():
        path = re.sub(r"\{\w+\}", quoted, route.path).replace("[", "").replace("]", "")
        body = json.dumps({"key": text, "name": text, "inputs": [{"name": text}]}).encode()
        status, answer = opened.http("http", route.method, path, body if route.method == "POST" else b"")
        assert status < 500 or status == 501, (path, answer)
        found.append((path, answer))
    return found


PATHS = [
    "../secret.txt",
    "../../secret.txt",
    "..",
    "./../secret.txt",
    "{folder}/secret.txt",
    "file://{folder}/secret.txt",
]


@pytest.mark.parametrize("path", PATHS)
def test_no_name_leads_to_a_file(opened: Open, path: str) -> None:
    before = sorted(opened.folder.iterdir())
    answers = _said_everywhere(opened, path.format(folder=opened.folder))
    assert len(answers) > 50
    assert [where for where, answer in answers if MARKER.encode() in answer] == []
    assert sorted(opened.folder.iterdir()) == before
    assert (opened.folder / "secret.txt").read_text() == MARKER


def test_no_path_of_http_leads_to_a_file(opened: Open) -> None:
    for port in HTTP:
        for up in ("..", "%2e%2e", "..%2f..", "..;", ".%00."):
            for path in (f"/{up}/secret.txt", f"/v2/{up}/{up}/secret.txt", f"/v2/models/{up}/secret.txt"):
                status, answer = opened.http(port, "GET", path)
                assert status in (400, 404), path
                assert MARKER.encode() not in answer


def test_no_name_forges_a_line_of_the_log(opened: Open) -> None:
    _said_everywhere(opened, FORGED)
    with Raw(opened.server.address) as raw:
        raw.open_session(client=FORGED).close()
    wait_until(lambda: any("session ended" in line for line in opened.server.stderr), 5.0, "a line")
    lines = [line for line in opened.server.stderr if line]
    assert [line for line in lines if "logger" not in json.loads(line)] == []
    assert [line for line in lines if not line.isprintable()] == []
