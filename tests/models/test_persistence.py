"""Networks in the data directory: there again after a restart, and never served once they are damaged."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
import torch
from safetensors.torch import load_file, save_file

from tensorcompute.v1 import model_service_pb2 as ms
from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as service_pb
from tests.models.networks import by_value, create, forward, linear_of, relu_mlp
from tests.support.raw import Raw, RawSession
from tests.support.refusals import refused
from tests.support.serving import ServerProcess, wait_until

Code = grpc.StatusCode
ROWS = torch.linspace(-1, 1, 12).reshape(2, 6)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data directory for one test."""
    return tmp_path / "data"


def serving(data_dir: Path, *options: str) -> ServerProcess:
    """A server on that directory."""
    return ServerProcess("--data-dir", str(data_dir), *options)


def files_of(data_dir: Path) -> list[str]:
    """The models on disk."""
    root = data_dir / "models"
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def test_networks_are_back_after_a_restart_as_they_were(data_dir: Path) -> None:
    networks = {f"of-{str(dtype)[6:]}": relu_mlp([6, 5, 3], dtype, seed) for seed, dtype in enumerate(DTYPES)}
    batching = {"max_batch_size": 7, "preferred_batch_size": [3], "default_queue_policy": {"max_queue_size": 9}}
    with serving(data_dir) as server, Raw(server.address) as raw:
        for name, network in networks.items():
            create(raw, name, network, batching=batching)
        create(raw, "of-float32", relu_mlp([6, 2]), version=5)
        raw.ask("UpdateMlp", name="of-float64", batching={"max_batch_size": 2})
        before = raw.ask("ListMlps").mlps
        assert all(mlp.is_persistent for mlp in before)
        outputs = {
            name: forward(raw, name, ROWS.to(linear_of(network).weight.dtype)) for name, network in networks.items()
        }
        # Without a chance to say goodbye: what was answered is on disk.
        server.kill()
    with serving(data_dir) as server, Raw(server.address) as raw:
        assert raw.ask("ListMlps").mlps == before
        for name, network in networks.items():
            rows = ROWS.to(linear_of(network).weight.dtype)
            version = 1 if name == "of-float32" else 0
            if not version:
                assert torch.equal(forward(raw, name, rows), outputs[name])
            torch.testing.assert_close(forward(raw, name, rows, version=version), network(rows))
        raw.ask("DeleteMlp", name="of-float32", version=5)
        raw.ask("DeleteMlp", name="of-float16")
        raw.ask("UnloadMlp", name="of-bfloat16")
        raw.ask("LoadMlp", name="of-bfloat16")
        rows = ROWS.to(torch.bfloat16)
        assert torch.equal(forward(raw, "of-bfloat16", rows), outputs["of-bfloat16"])
    names = {path.rpartition("/")[0] for path in files_of(data_dir)}
    assert names == {"of-float32/1", "of-float64/1", "of-bfloat16/1"}


def test_the_file_on_disk_is_what_torch_loads(data_dir: Path) -> None:
    network = relu_mlp([6, 5, 3])
    with serving(data_dir) as server, Raw(server.address) as raw:
        create(raw, "net", network)
    again = relu_mlp([6, 5, 3], seed=9)
    again.load_state_dict(load_file(data_dir / "models/net/1/model.safetensors"))
    torch.testing.assert_close(again(ROWS), network(ROWS))


SOUND = "sound"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with one network."""
    directory = tmp_path_factory.mktemp("template") / "data"
    with serving(directory) as server, Raw(server.address) as raw:
        create(raw, SOUND, relu_mlp([6, 5, 3]))
    return directory


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def manifest(folder: Path, **fields: object) -> None:
    rewrite(folder / "manifest.json", lambda data: json.dumps({**json.loads(data), **fields}).encode())


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "weights cut short": (lambda at: os.truncate(at / "model.safetensors", 100), "100 bytes"),
    "weights of no bytes": (lambda at: os.truncate(at / "model.safetensors", 0), "0 bytes"),
    "one bit turned": (
        lambda at: rewrite(at / "model.safetensors", lambda data: data[:-1] + bytes([data[-1] ^ 1])),
        "sha256",
    ),
    "no weights": (lambda at: (at / "model.safetensors").unlink(), "model.safetensors"),
    "no manifest": (lambda at: (at / "manifest.json").unlink(), "manifest.json"),
    "a manifest cut short": (lambda at: rewrite(at / "manifest.json", lambda data: data[:50]), "JSONDecodeError"),
    "a manifest of nothing": (lambda at: (at / "manifest.json").write_bytes(b""), "JSONDecodeError"),
    "a manifest of another version": (lambda at: manifest(at, format_version=2), "format_version 2"),
    "a manifest of another program": (lambda at: manifest(at, format="recipe"), "not the manifest"),
    "a manifest that was changed": (lambda at: manifest(at, dtype="float64"), "sha256"),
    "a manifest that is a list": (lambda at: (at / "manifest.json").write_bytes(b"[]"), "not the manifest"),
    "another network in its place": (
        lambda at: (at / "manifest.json").write_bytes((at.parents[1] / SOUND / "1/manifest.json").read_bytes()),
        "'sound'",
    ),
}


def damaged(damage: str) -> str:
    """The name of the network with that damage."""
    return f"damaged-{list(DAMAGES).index(damage)}"


@pytest.fixture(scope="module")
def after_damage(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, Path]]:
    """A server that found a network of each damage on its disk, and a sound one."""
    data_dir = tmp_path_factory.mktemp("damaged") / "data"
    with serving(data_dir) as server, Raw(server.address) as raw:
        for name in [SOUND, *map(damaged, DAMAGES)]:
            create(raw, name, relu_mlp([6, 5, 3]))
    for name, (damage, _) in DAMAGES.items():
        damage(data_dir / "models" / damaged(name) / "1")
    with serving(data_dir) as server:
        yield server, data_dir


def test_damaged_networks_are_not_served_and_the_sound_one_is(after_damage: tuple[ServerProcess, Path]) -> None:
    with Raw(after_damage[0].address) as raw:
        assert SOUND in [mlp.name for mlp in raw.ask("ListMlps").mlps]
        torch.testing.assert_close(forward(raw, SOUND, ROWS), relu_mlp([6, 5, 3])(ROWS))


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_reported_and_set_aside(after_damage: tuple[ServerProcess, Path], damage: str) -> None:
    server, data_dir = after_damage
    name, naming = damaged(damage), DAMAGES[damage][1]
    with Raw(server.address) as raw:
        with refused(Code.NOT_FOUND, naming=name):
            forward(raw, name, ROWS)
        told = [json.loads(line) for line in server.stderr if f'"{name}"' in line]
        assert any(line["level"] == "error" and naming in line["cause"] for line in told), told
        # The name is free again.
        create(raw, name, relu_mlp([6, 5, 3]))
    assert sorted(path.name for path in (data_dir / "models" / name).iterdir()) == ["1", "1.corrupt"]


def test_a_network_that_is_damaged_while_it_serves_is_not_loaded_again(data_dir: Path) -> None:
    with serving(data_dir) as server, Raw(server.address) as raw:
        network = relu_mlp([6, 5, 3])
        create(raw, "net", network)
        os.truncate(data_dir / "models/net/1/model.safetensors", 100)
        with refused(Code.FAILED_PRECONDITION, reason="MODEL_CORRUPT", naming="100 bytes"):
            raw.ask("LoadMlp", name="net")
        torch.testing.assert_close(forward(raw, "net", ROWS), network(ROWS))
        assert not raw.ask("DescribeMlp", name="net").mlp.is_persistent


def test_what_a_torn_write_left_is_swept_away_and_what_is_no_model_is_left_alone(
    template: Path, data_dir: Path
) -> None:
    shutil.copytree(template, data_dir)
    models = data_dir / "models"
    left = models / SOUND / ".new-0123456789abcdef"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    shutil.copytree(models / SOUND / "1", models / "a name with blanks/1")
    shutil.copytree(models / SOUND / "1", models / SOUND / "01")
    (models / "notes.txt").write_text("bought milk")
    with serving(data_dir) as server, Raw(server.address) as raw:
        assert [(mlp.name, mlp.version) for mlp in raw.ask("ListMlps").mlps] == [(SOUND, 1)]
    assert not left.exists()
    assert (models / "notes.txt").exists()
    assert (models / "a name with blanks/1/manifest.json").exists()


def test_a_second_server_does_not_get_the_directory(data_dir: Path) -> None:
    with serving(data_dir):
        second = serving(data_dir)
        assert second.wait(40.0) != 0
        assert "another server uses the data directory" in second.log()


def test_models_are_back_when_the_engine_was_killed(data_dir: Path) -> None:
    with serving(data_dir) as server:
        with Raw(server.address) as raw:
            create(raw, "net", relu_mlp([6, 5, 3]))
            os.kill(server.engine_pid(), signal.SIGKILL)

        def answers() -> bool:
            with Raw(server.address) as raw:
                try:
                    return [mlp.name for mlp in raw.ask("ListMlps").mlps] == ["net"]
                except grpc.RpcError:
                    return False

        wait_until(answers, 30.0, "the model is back", interval_s=0.2)


# ---- files of the caller and of the server -------------------------------------------------------------------------


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
