"""Networks in the data directory: there again after a restart, and never served once they are damaged."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
import torch
from safetensors.torch import load_file

from tensorcompute.v1 import model_service_pb2 as ms
from tests.models.networks import create, forward, linear_of, relu_mlp, specs_of
from tests.support.raw import Raw, path_of
from tests.support.refusals import refused
from tests.support.serving import ServerProcess, wait_until
from tserver.engine.models.description import summarise
from tserver.engine.models.model import LayeredContent
from tserver.errors import ModelNotReady
from tserver.models.batching import BatchingConfig
from tserver.models.store import Store
from tserver.storage import files

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


def into_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


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
    "a manifest that nests without end": (
        lambda at: (at / "manifest.json").write_bytes(b"[" * 100_000),
        "nested",
    ),
    "weights that are a folder": (lambda at: into_a_folder(at / "model.safetensors"), "model.safetensors"),
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


def test_settings_are_not_changed_on_a_damaged_manifest_and_the_network_serves_on(data_dir: Path) -> None:
    with serving(data_dir) as server, Raw(server.address) as raw:
        network = relu_mlp([6, 5, 3])
        made = create(raw, "net", network)
        (data_dir / "models/net/1/manifest.json").write_bytes(b"{")
        with refused(Code.FAILED_PRECONDITION, reason="MODEL_CORRUPT", naming="set aside"):
            raw.ask("UpdateMlp", name="net", batching={"max_batch_size": 2})
        now = raw.ask("DescribeMlp", name="net").mlp
        assert (now.batching, now.is_persistent) == (made.batching, False)
        torch.testing.assert_close(forward(raw, "net", ROWS), network(ROWS))


def test_a_disk_that_fails_is_no_damage(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(data_dir)
    layers = [summarise(1, 1, ms.Activation(), has_bias=False)]
    content = LayeredContent(layers, [(torch.ones(1, 1), None)], torch.float32)
    store.save("net", 1, content, BatchingConfig())

    def fail(path: Path, most_bytes: int) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(files, "read", fail)
        with pytest.raises(ModelNotReady, match="Too many open files") as told:
            store.read("net", 1)
    assert told.value.reason == "MODEL_UNREADABLE"
    assert store.read("net", 1).content.manifest() == content.manifest()
    store.close()


def test_another_network_on_disk_does_not_take_the_place_of_the_one_that_serves(template: Path, data_dir: Path) -> None:
    shutil.copytree(template, data_dir)
    folder = data_dir / "models" / SOUND / "1"
    same, other = relu_mlp([6, 4, 3], seed=5), relu_mlp([7, 3])
    with serving(data_dir) as server, Raw(server.address) as raw:
        with serving(data_dir.with_name("second")) as second, Raw(second.address) as elsewhere:
            for replacement in (same, other):
                create(elsewhere, SOUND, replacement)
                shutil.rmtree(folder)
                shutil.copytree(data_dir.with_name("second") / "models" / SOUND / "1", folder)
                elsewhere.ask("DeleteMlp", name=SOUND)
                if replacement is same:
                    loaded = raw.ask("LoadMlp", name=SOUND).mlp
                    assert [layer.out_features for layer in loaded.layers] == [4, 3]
                    torch.testing.assert_close(forward(raw, SOUND, ROWS), same(ROWS))
        with refused(Code.FAILED_PRECONDITION, naming="another network"):
            raw.ask("LoadMlp", name=SOUND)
        torch.testing.assert_close(forward(raw, SOUND, ROWS), same(ROWS))


def test_a_caller_who_goes_away_leaves_a_network_that_is_on_disk_or_none(data_dir: Path) -> None:
    with serving(data_dir) as server, Raw(server.address) as raw:
        network = relu_mlp([300, 600, 8])
        for number in range(20):
            name = f"net-{number}"
            request = raw.request("CreateMlp", name=name, layers=specs_of(network)).SerializeToString()
            call = raw.channel.unary_unary(path_of("CreateMlp")).future(request)
            time.sleep(number * 0.001)
            call.cancel()
        wait_until(lambda: all(mlp.is_persistent for mlp in raw.ask("ListMlps").mlps), 10.0, "all are on disk")
        assert len(raw.ask("ListMlps").mlps) > 0


def test_a_place_on_disk_that_is_taken_is_told(data_dir: Path) -> None:
    with serving(data_dir) as server, Raw(server.address) as raw:
        (data_dir / "models/net/1").mkdir(parents=True)
        (data_dir / "models/net/1/notes.txt").write_text("mine")
        with refused(Code.ALREADY_EXISTS, naming="on disk"):
            create(raw, "net", relu_mlp([6, 3]))
        assert not raw.ask("ListMlps").mlps
        assert (data_dir / "models/net/1/notes.txt").read_text() == "mine"


def test_what_a_torn_write_left_is_swept_away_and_what_is_no_model_is_left_alone(
    template: Path, data_dir: Path
) -> None:
    shutil.copytree(template, data_dir)
    models = data_dir / "models"
    left = models / SOUND / ".new-0123456789abcdef"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    settings = models / SOUND / ".new-fedcba9876543210"
    settings.write_bytes(b"half")
    shutil.copytree(models / SOUND / "1", models / "a name with blanks/1")
    shutil.copytree(models / SOUND / "1", models / SOUND / "01")
    (models / "notes.txt").write_text("bought milk")
    with serving(data_dir) as server, Raw(server.address) as raw:
        assert [(mlp.name, mlp.version) for mlp in raw.ask("ListMlps").mlps] == [(SOUND, 1)]
    assert not left.exists()
    assert not settings.exists()
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
