"""Files of the client: what is saved comes back, other programs can read it, and nobody's file is believed."""

from __future__ import annotations

import copy
import io
import json
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

DTYPES = [
    *("bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64"),
    *("float16", "bfloat16", "float32", "float64", "complex64", "float8_e5m2", "float8_e4m3fn"),
]


def values(module: Any, dtype: str) -> Any:
    """A few elements of a dtype, each other than its neighbour."""
    kind = getattr(module, dtype)
    if dtype == "bool":
        return module.tensor([[True, False], [False, True]])
    if dtype == "complex64":
        return module.tensor([[1 + 2j, -3j], [0j, 4.5 + 0j]])
    return module.tensor([[1.0, 2.0], [0.5, 96.0]]).to(kind)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a file may be written."""
    return tmp_path / "file.safetensors"


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tensor_of_every_dtype_comes_back(tc: ModuleType, path: Path, dtype: str) -> None:
    x = values(tc, dtype)
    tc.save(x, path)
    back = tc.load(path)
    assert back.dtype is x.dtype
    assert back.shape == x.shape
    assert back.tolist() == x.tolist()


@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_reads_what_is_saved_and_the_other_way_round(tc: ModuleType, path: Path, dtype: str) -> None:
    tc.save({"x": values(tc, dtype), "one": tc.tensor(7)}, path)
    theirs = safetensors.torch.load_file(path)
    assert theirs["x"].dtype is getattr(torch, dtype)
    assert theirs["x"].tolist() == values(torch, dtype).tolist()
    assert theirs["one"].shape == ()
    safetensors.torch.save_file(theirs, path)
    ours = tc.load(path)
    assert set(ours) == {"x", "one"}
    assert str(ours["x"].dtype) == f"torch.{dtype}"
    assert ours["x"].tolist() == values(torch, dtype).tolist()


ODD: dict[str, Callable[[Any], Any]] = {
    "no-dimensions": lambda m: m.tensor(3.5),
    "empty": lambda m: m.zeros(0, 3),
    "view": lambda m: m.arange(12).reshape(3, 4).t()[1:, ::2],
    "expanded": lambda m: m.arange(3).expand(2, 3),
    "conjugate": lambda m: m.tensor([1 + 2j]).conj(),
    "with-gradients": lambda m: m.ones(2, requires_grad=True) * 2,
    "large": lambda m: m.arange(700_000).float(),
}


@pytest.mark.parametrize("make", ODD.values(), ids=ODD.keys())
def test_tensors_of_all_forms_come_back(tc: ModuleType, path: Path, make: Callable[[Any], Any]) -> None:
    x = make(tc)
    tc.save([x, tc.ones(1)], path)
    back, _ = tc.load(path)
    assert back.shape == x.shape
    assert tc.equal(back, x.detach())
    assert back.requires_grad == x.requires_grad


OBJECTS: dict[str, Callable[[Any], Any]] = {
    "mapping": lambda m: {"b": m.ones(2), "a": m.zeros(1)},
    "nothing": lambda m: {},
    "checkpoint": lambda m: {"model": {"0.weight": m.ones(2)}, "epoch": 3, "rate": 1e-3, "best": None, "done": False},
    "sequences": lambda m: [m.ones(1), (m.zeros(1), "text"), []],
    "numbered": lambda m: {0: m.ones(1), 5: {"x": m.zeros(1)}},
    "not-finite": lambda m: {"best": float("inf"), "x": m.ones(1)},
    "unicode": lambda m: {"größe.重み": m.ones(1)},
    "no-name": lambda m: {"": m.ones(1)},
}


def plain(value: Any) -> Any:
    """The same with lists in the place of tensors."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(item) for item in value)
    return ("tensor", value.tolist()) if hasattr(value, "tolist") else value


@pytest.mark.parametrize("make", OBJECTS.values(), ids=OBJECTS.keys())
def test_what_is_around_the_tensors_comes_back(tc: ModuleType, path: Path, make: Callable[[Any], Any]) -> None:
    saved = make(tc)
    tc.save(saved, path)
    back = tc.load(path)
    assert plain(back) == plain(saved)
    assert list(back) == list(saved)
    safetensors.torch.load_file(path)


def train(tc: ModuleType, network: Any, optimizer: Any, steps: int) -> float:
    x = tc.linspace(-1, 1, 12).reshape(4, 3)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (network(x) - 1).square().mean()
        loss.backward()
        optimizer.step()
    return float(loss.item())


def test_training_goes_on_from_a_file_as_if_it_had_not_stopped(tc: ModuleType, path: Path) -> None:
    def make() -> tuple[Any, Any]:
        network = tc.nn.Sequential(tc.nn.Linear(3, 5), tc.nn.BatchNorm1d(5), tc.nn.ReLU(), tc.nn.Linear(5, 1))
        return network, tc.optim.Adam(network.parameters(), lr=0.05)

    network, optimizer = make()
    train(tc, network, optimizer, 3)
    tc.save({"model": network.state_dict(), "optimizer": optimizer.state_dict()}, path)
    expected = train(tc, network, optimizer, 3)

    other, its_optimizer = make()
    checkpoint = tc.load(path)
    other.load_state_dict(checkpoint["model"])
    its_optimizer.load_state_dict(checkpoint["optimizer"])
    assert train(tc, other, its_optimizer, 3) == expected


def test_the_state_of_a_network_goes_to_torch_and_back(tc: ModuleType, path: Path) -> None:
    ours = tc.nn.Sequential(tc.nn.Linear(3, 5), tc.nn.Tanh(), tc.nn.Linear(5, 2))
    theirs = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2))
    tc.save(ours.state_dict(), path)
    theirs.load_state_dict(safetensors.torch.load_file(path))
    x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    assert ours(tc.from_numpy(x)).detach().numpy() == pytest.approx(theirs(torch.from_numpy(x)).detach().numpy())


def test_a_copy_of_a_network_has_parameters_of_its_own_and_the_same_state(tc: ModuleType) -> None:
    network = tc.nn.Sequential(tc.nn.Linear(3, 2), tc.nn.BatchNorm1d(2))
    twin = copy.deepcopy(network)
    tc.testing.assert_close(twin.state_dict(), network.state_dict())
    with tc.no_grad():
        twin[0].weight.zero_()
    assert network[0].weight.abs().sum().item() > 0
    assert twin[0].weight.requires_grad


def test_copies_of_tensors_are_as_in_torch(tc: ModuleType) -> None:
    seen = []
    for module in (tc, torch):
        x = module.ones(2, requires_grad=True)
        (x * 3).sum().backward()
        twin, shared = copy.deepcopy(x), copy.copy(x)
        pair = copy.deepcopy([x, x])
        with module.no_grad():
            x.add_(1)
        with pytest.raises(RuntimeError) as refused:
            copy.deepcopy(x * 2)
        same = pair[0] is pair[1]
        seen.append((twin.tolist(), twin.grad.tolist(), twin.requires_grad, shared.tolist(), same, str(refused.value)))
    assert seen[0] == seen[1]


MIXED: dict[str, Callable[[Any], Any]] = {
    "matmul": lambda m: m.ones(2, 2) @ m.ones(2, 2),
    "linear": lambda m: m.nn.functional.linear(m.ones(1, 2), m.ones(3, 2)),
    "network": lambda m: m.nn.Sequential(m.nn.Linear(2, 3), m.nn.ReLU(), m.nn.Linear(3, 1))(m.ones(1, 2)),
    "conv": lambda m: m.nn.functional.conv1d(m.ones(1, 1, 4), m.ones(1, 1, 2)),
    "add": lambda m: m.ones(2) + m.ones(2),
    "sum": lambda m: m.ones(2).sum(),
    "mixed": lambda m: (m.ones(2, 2) @ m.ones(2, 2)) + m.ones(2, 2),
    "loss": lambda m: m.nn.functional.mse_loss(m.ones(2, 2) @ m.ones(2, 2), m.ones(2, 2)),
    "double": lambda m: m.ones(2, 2, dtype=m.float64) @ m.ones(2, 2, dtype=m.float64),
}


@pytest.mark.parametrize("make", MIXED.values(), ids=MIXED.keys())
def test_autocast_gives_the_dtypes_of_torch(tc: ModuleType, make: Callable[[Any], Any]) -> None:
    dtypes = []
    for module in (tc, torch):
        with module.autocast("cpu", dtype=module.bfloat16):
            dtypes.append(str(make(module).dtype))
    assert dtypes[0] == dtypes[1]


def test_a_saved_state_waits_for_shapes_and_elements_and_loading_not_at_all(tc: ModuleType, path: Path) -> None:
    network = tc.nn.MLP([8, 8, 8, 8, 4])
    session = network[0].weight._ref.session
    before = session.stats.waits
    tc.save(network.state_dict(), path)
    assert session.stats.waits - before <= 2
    before = session.stats.waits
    tc.load(path)
    assert session.stats.waits == before


class FullDisk(io.BytesIO):
    """A file that takes the header and the first tensor only."""

    writes = 0

    def write(self, data: Any) -> int:
        self.writes += 1
        if self.writes > 2:
            raise OSError(28, "No space left on device")
        return super().write(data)


def test_a_save_that_fails_does_not_disturb_the_session(tc: ModuleType) -> None:
    tensors = [tc.full((400_000,), float(n)) for n in range(4)]
    with pytest.raises(OSError, match="No space left"):
        tc.save(tensors, FullDisk())
    assert [x[0].item() for x in tensors] == [0.0, 1.0, 2.0, 3.0]


def test_a_file_that_is_open_will_do(tc: ModuleType) -> None:
    file = io.BytesIO()
    tc.save({"x": tc.arange(3)}, file)
    file.seek(0)
    assert tc.load(file)["x"].tolist() == [0, 1, 2]


def test_a_device_may_be_named(tc: ModuleType, path: Path) -> None:
    tc.save(tc.ones(1), path)
    assert tc.load(path, map_location="cpu").device.type == "cpu"
    assert tc.load(path, map_location=tc.device("cpu"), weights_only=True).tolist() == [1.0]


REFUSED: dict[str, tuple[Callable[[Any], Any], type[Exception], str]] = {
    "lock": (lambda m: {"a": threading.Lock()}, TypeError, "cannot pickle '_thread.lock' object"),
    "lambda": (lambda m: {"f": [lambda: 1]}, (AttributeError, pickle.PicklingError), "Can't pickle"),  # type: ignore[dict-item]
    "torch-tensor": (lambda m: {"a": torch.ones(1)}, TypeError, "'a' is a Tensor, which the function torch._utils"),
    "failed": (lambda m: {"x": m.ones(2) + m.ones(3)}, RuntimeError, "The size of tensor a"),
    "what-the-server-has": (
        lambda m: m.optim.SGD([m.ones(1)], lr=1)._remote,
        TypeError,
        "cannot pickle a RemoteObject",
    ),
}


@pytest.mark.parametrize(("make", "kind", "text"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_saved_is_refused_and_leaves_no_file(
    tc: ModuleType, path: Path, make: Callable[[Any], Any], kind: type[Exception], text: str
) -> None:
    path.write_bytes(b"what was there before")
    with pytest.raises(kind, match=text):
        tc.save(make(tc), path)
    assert path.read_bytes() == b"what was there before"
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_names_that_would_be_the_same_are_told_apart(tc: ModuleType, path: Path) -> None:
    saved = {"a.b": tc.ones(1), "a": {"b": tc.zeros(1)}, "__metadata__": tc.full((1,), 2.0)}
    tc.save(saved, path)
    assert plain(tc.load(path)) == plain(saved)
    assert set(safetensors.torch.load_file(path)) == {"a.b", "a.b~2", "__metadata__~2"}


def test_a_file_of_an_earlier_version_is_read(tc: ModuleType, path: Path) -> None:
    said = {"dict": [["x", {"tensor": "x"}], ["n", {"list": [{"value": 1}, {"tuple": []}]}]]}
    path.write_bytes(file_of({"__metadata__": {"tclient.structure": json.dumps(said)}, "x": described()["x"]}, EIGHT))
    assert plain(tc.load(path)) == plain({"x": tc.zeros(2), "n": [1, ()]})


@pytest.mark.parametrize("padding", range(32))
def test_a_header_of_any_length_is_none_of_torch_s(tc: ModuleType, path: Path, padding: int) -> None:
    header = json.dumps(described()).encode() + b" " * 8 * padding
    path.write_bytes(file_of(header + b" " * (-len(header) % 8), EIGHT))
    assert tc.load(path)["x"].tolist() == [0, 0]


def file_of(header: Any, elements: bytes = b"", length: int | None = None) -> bytes:
    """A file with this header, whatever it says."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + elements


def described(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    """What a header says of one tensor."""
    return {"x": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


EIGHT = b"\0" * 8
DAMAGED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty"),
    "short": (b"\1\2\3", "3 bytes"),
    "pickle-of-torch": (b"PK\x03\x04rest of an archive", "file of torch.save that is not read: the archive is damaged"),
    "pickle": (b"\x80\x02}q\x00.", "file of torch.save that is not read: the pickle in it is damaged"),
    "long-header": (file_of(described(), EIGHT, length=1 << 62), "announces a header of 4611686018427387904 bytes"),
    "header-beyond-the-end": (file_of(described(), b"", length=500), "announces a header of 500 bytes"),
    "no-json": (file_of(b"{not json"), "header cannot be read"),
    "no-text": (file_of(b"\xff\xfe\xfd"), "header cannot be read"),
    "deep-json": (file_of(b"[" * 100_000), "header cannot be read"),
    "no-object": (file_of([1, 2]), "not a JSON object"),
    "no-description": (file_of({"x": 3}), "'x' is not described"),
    "more-description": (file_of({"x": {**described()["x"], "code": "import os"}}, EIGHT), "'x' is not described"),
    "dtype": (file_of(described(dtype="F33"), EIGHT), "the dtype 'F33'; known are BOOL"),
    "dtype-of-no-text": (file_of(described(dtype=["F32"]), EIGHT), "the dtype"),
    "negative-shape": (file_of(described(shape=[-2]), EIGHT), r"the shape \[-2\]"),
    "shape-of-texts": (file_of(described(shape=["2"]), EIGHT), "the shape"),
    "shape-of-bools": (file_of(described(shape=[True, 2]), EIGHT), "the shape"),
    "many-dimensions": (file_of(described(shape=[1] * 65, offsets=[0, 4]), EIGHT[:4]), "the shape"),
    "huge-shape": (file_of(described(shape=[1 << 40, 1 << 40]), EIGHT), "'x' has 8 bytes, which is not what F32"),
    "offsets-beyond-the-end": (file_of(described(offsets=[0, 800]), EIGHT), "there are 8 bytes of elements"),
    "offsets-backwards": (file_of(described(offsets=[8, 0]), EIGHT), r"said to be at \[8, 0\]"),
    "too-few-bytes": (file_of(described(shape=[3]), EIGHT), "'x' has 8 bytes"),
    "gap": (file_of(described(offsets=[4, 12]), EIGHT + b"\0" * 4), "leave a gap"),
    "overlap": (file_of({**described(), "y": described()["x"]}, EIGHT), "overlap"),
    "bytes-of-nobody": (file_of(described(), EIGHT + b"more"), "4 bytes at its end"),
    "name-twice": (file_of(b'{"x":1,"x":2}'), "comes twice"),
    "metadata": (file_of({"__metadata__": {"a": 1}}), "__metadata__ is not a mapping of texts"),
    "bools": (file_of(described("BOOL", [8]), b"\2" * 8), "bools that are neither 0 nor 1"),
    "structure-of-others": (
        file_of({"__metadata__": {"tclient.structure": '{"tensor":"y"}'}, **described()}, EIGHT),
        "does not describe its tensors",
    ),
    "structure-of-nonsense": (
        file_of({"__metadata__": {"tclient.structure": '{"call":["os.system"]}'}, **described()}, EIGHT),
        "does not describe its tensors",
    ),
    **{
        f"objects-{name}": (
            file_of({"__metadata__": {"tclient.objects": json.dumps(text)}, **described()}, EIGHT),
            "does not describe its tensors",
        )
        for name, text in {
            "no-object": [],
            "no-nodes": {"root": [0]},
            "unknown-node": {"root": [3], "nodes": []},
            "negative-node": {"root": [-1], "nodes": [["list"]]},
            "unknown-kind": {"root": [0], "nodes": [["call", "os", "system"]]},
            "unknown-tensor": {"root": [0], "nodes": [["tensor", "y", {}]]},
            "view-of-nothing": {"root": [0], "nodes": [["tensor", "x", {"view": [[-1], [1], 0]}]]},
            "tensor-of-no-class": {"root": [0], "nodes": [["tensor", "x", {"class": 3}]]},
            "tuple-in-itself": {"root": [0], "nodes": [["tuple", [0]]]},
            "deep": {"root": [0], "nodes": [["list", [n + 1]] for n in range(20_000)]},
            "endless-key": {
                "root": [0],
                "nodes": [["dict", [1], 1], *[["tuple", [n + 2], [n + 2]] for n in range(60)], ["tuple"]],
            },
            "methods": {
                "root": [0],
                "nodes": [
                    ["object", "call", [1], [2], [3]],
                    ["name", "collections", "OrderedDict"],
                    ["tuple"],
                    ["dict", "items", 1],
                ],
            },
            "bytes": {"root": [0], "nodes": [["bytes", "no base64!"]]},
            "device": {"root": [0], "nodes": [["device", "nowhere"]]},
        }.items()
    },
    "deep-structure": (
        file_of({"__metadata__": {"tclient.structure": '{"list":[' * 50_000}, **described()}, EIGHT),
        "does not describe its tensors",
    ),
}


@pytest.mark.parametrize(("content", "text"), DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_file_is_refused_with_what_is_wrong(tc: ModuleType, path: Path, content: bytes, text: str) -> None:
    path.write_bytes(content)
    with pytest.raises(ValueError, match=text) as refused:
        tc.load(path)
    assert "file.safetensors" in str(refused.value)
    assert tc.ones(1).item() == 1.0


def test_a_file_that_is_not_there_is_named(tc: ModuleType, path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"file\.safetensors"):
        tc.load(path)
