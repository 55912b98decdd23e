"""Networks from safetensors files, of the server's model directory and uploaded, and back as such files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import torch
from safetensors.torch import save_file

from tensorcompute.v1 import model_service_pb2 as ms
from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as service_pb
from tests.models.networks import by_value, forward, relu_mlp
from tests.support.raw import RawSession
from tests.support.refusals import refused
from tests.support.serving import ServerProcess

Code = grpc.StatusCode
ROWS = torch.linspace(-1, 1, 12).reshape(2, 6)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory with a file in it, one outside it, and links to that one."""
    directory = tmp_path_factory.mktemp("models")
    inside = directory / "inside"
    (inside / "sub").mkdir(parents=True)
    tensors = {key: value.contiguous() for key, value in relu_mlp([6, 5, 3]).state_dict().items()}
    save_file(tensors, inside / "sub/net.safetensors")
    save_file(tensors, directory / "secret.safetensors")
    (inside / "link.safetensors").symlink_to(directory / "secret.safetensors")
    (inside / "loop.safetensors").symlink_to(inside / "loop.safetensors")
    os.mkfifo(inside / "pipe.safetensors")
    with (inside / "hollow.safetensors").open("wb") as hollow:
        hollow.write((2).to_bytes(8, "little") + b"{}")
        hollow.truncate(1 << 40)
    with (inside / "huge.safetensors").open("wb") as huge:
        header = {"weight": {"dtype": "F32", "shape": [1 << 19, 1 << 19], "data_offsets": [0, 1 << 40]}}
        text = json.dumps(header).encode()
        huge.write(len(text).to_bytes(8, "little") + text)
        huge.truncate(8 + len(text) + (1 << 40))
    (inside / "liar.safetensors").write_bytes((1 << 50).to_bytes(8, "little") + b"{}")
    return inside


@pytest.fixture(scope="module")
def with_files(model_dir: Path) -> Iterator[RawSession]:
    """A session with a server that has a model directory."""
    with ServerProcess("--model-dir", str(model_dir)) as server, RawSession(server.address) as session:
        yield session


RELU_THEN_NONE = [
    ms.LayerSpec(activation=ms.Activation(kind=ms.ACTIVATION_KIND_RELU)),
    ms.LayerSpec(in_features=5, out_features=3),
]


def test_a_file_of_the_server_becomes_a_network(with_files: RawSession) -> None:
    file = {"path": "sub/net.safetensors"}
    with_files.ask("CreateMlp", name="from-path", layers=RELU_THEN_NONE, file=file)
    torch.testing.assert_close(forward(with_files, "from-path", ROWS), relu_mlp([6, 5, 3])(ROWS))


BAD_PATHS: dict[str, tuple[str, grpc.StatusCode, str]] = {
    "one that is not there": ("nobody.safetensors", Code.NOT_FOUND, "nobody.safetensors"),
    "a folder": ("sub", Code.NOT_FOUND, "sub"),
    "one above": ("../secret.safetensors", Code.INVALID_ARGUMENT, "leads out"),
    "one above by a detour": ("sub/../../secret.safetensors", Code.INVALID_ARGUMENT, "leads out"),
    "an absolute one": ("/etc/passwd", Code.INVALID_ARGUMENT, "leads out"),
    "a link that leads out": ("link.safetensors", Code.INVALID_ARGUMENT, "leads out"),
    "one with a null": ("a\0b", Code.INVALID_ARGUMENT, "null"),
    "a name without end": ("x" * 10_000, Code.INVALID_ARGUMENT, "xxx"),
    "a link to itself": ("loop.safetensors", Code.INVALID_ARGUMENT, "loop"),
    "a pipe": ("pipe.safetensors", Code.NOT_FOUND, "pipe"),
    "a terabyte of nothing": ("hollow.safetensors", Code.INVALID_ARGUMENT, "behind the header"),
    "one larger than memory": ("huge.safetensors", Code.RESOURCE_EXHAUSTED, str(1 << 40)[:6]),
    "one that lies": ("liar.safetensors", Code.INVALID_ARGUMENT, str(1 << 50)),
}


@pytest.mark.parametrize(("path", "code", "naming"), BAD_PATHS.values(), ids=BAD_PATHS)
def test_a_path_that_is_no_file_of_the_directory_is_refused(
    with_files: RawSession, path: str, code: grpc.StatusCode, naming: str
) -> None:
    with refused(code, naming=naming):
        with_files.ask("CreateMlp", name="bad-path", layers=RELU_THEN_NONE, file={"path": path})


def upload(session: RawSession, data: bytes) -> dict[str, int]:
    """Send a file."""
    number = session.id()
    header = service_pb.UploadHeader(context=session.context(), id=number, dtype=pb.D_TYPE_UINT8, shape=[len(data)])
    session.upload(header, [data[at : at + (1 << 20)] for at in range(0, len(data), 1 << 20)])
    return {"upload": number}


def test_a_file_comes_back_as_it_was_sent(with_files: RawSession, model_dir: Path) -> None:
    data = (model_dir / "sub/net.safetensors").read_bytes()
    with_files.ask("CreateMlp", name="sent", layers=RELU_THEN_NONE, file=upload(with_files, data))
    requests = [with_files.request("DownloadMlp", name="sent").SerializeToString()]
    messages = with_files.send_stream("DownloadMlp", requests)
    exported = b"".join(message.chunk for message in messages[1:-1])
    assert messages[0].header.total_bytes == len(exported)
    made = with_files.ask("CreateMlp", name="again", file=upload(with_files, exported), dtype=pb.D_TYPE_FLOAT64).mlp
    assert made.dtype == pb.D_TYPE_FLOAT64
    assert [layer.activation.kind for layer in made.layers] == [ms.ACTIVATION_KIND_RELU, 0]
    torch.testing.assert_close(forward(with_files, "again", ROWS.double()), relu_mlp([6, 5, 3])(ROWS).double())


def test_a_numbered_request_with_a_file_is_applied_once(with_files: RawSession, model_dir: Path) -> None:
    with RawSession(with_files.address) as session:
        file = upload(session, (model_dir / "sub/net.safetensors").read_bytes())
        for _ in range(2):
            made = session.ask("CreateMlp", name="once", layers=RELU_THEN_NONE, file=file, seq=1).mlp
            assert (made.name, made.version) == ("once", 1)


def test_a_file_that_does_not_fit_its_description_is_refused_and_nothing_is_left(
    with_files: RawSession, model_dir: Path
) -> None:
    before, held = with_files.ask("ListMlps"), with_files.held()
    data = (model_dir / "sub/net.safetensors").read_bytes()
    with refused(Code.INVALID_ARGUMENT, naming="give layers"):
        with_files.ask("CreateMlp", name="bad-file", file=upload(with_files, data))
    with refused(Code.INVALID_ARGUMENT, naming="3 layers"):
        with_files.ask("CreateMlp", name="bad-file", layers=[ms.LayerSpec()] * 3, file=upload(with_files, data))
    with refused(Code.INVALID_ARGUMENT, naming="layer 0 has weights"):
        own = [ms.LayerSpec(weight=by_value(torch.ones(5, 6))), ms.LayerSpec()]
        with_files.ask("CreateMlp", name="bad-file", layers=own, file={"path": "sub/net.safetensors"})
    with refused(Code.NOT_FOUND, naming="987"):
        with_files.ask("CreateMlp", name="bad-file", layers=RELU_THEN_NONE, file={"upload": 987})
    with refused(Code.INVALID_ARGUMENT, naming="safetensors"):
        with_files.ask("CreateMlp", name="bad-file", layers=RELU_THEN_NONE, file=upload(with_files, b"nothing of it"))
    assert (with_files.ask("ListMlps"), with_files.held()) == (before, held)
