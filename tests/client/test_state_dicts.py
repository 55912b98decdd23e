"""State dicts of other programs: modules take them by their names, from one file or several, as torch's modules do."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file


def block(namespace: Any) -> Any:
    """A module with parameters and buffers, one within another."""
    nn = namespace.nn
    return nn.ModuleDict({"embeddings": nn.Embedding(5, 4), "layer": nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))})


@pytest.fixture
def theirs(tmp_path: Path) -> Any:
    """A module of torch, whose state dict is in "model.safetensors"."""
    torch.manual_seed(0)
    module = block(torch)
    save_file(module.state_dict(), tmp_path / "model.safetensors", {"format": "pt"})
    return module


def assert_same(ours: Any, expected: dict[str, torch.Tensor]) -> None:
    assert set(ours) == set(expected)
    for name, tensor in expected.items():
        assert str(ours[name].dtype) == str(tensor.dtype)
        assert ours[name].float().tolist() == tensor.float().tolist()


def test_a_module_takes_a_foreign_file_by_its_names(tc: ModuleType, theirs: Any, tmp_path: Path) -> None:
    ours = block(tc)
    loaded = ours.load_state_dict(tc.load(tmp_path / "model.safetensors"))
    assert str(loaded) == "<All keys matched successfully>"
    assert_same(ours.state_dict(), theirs.state_dict())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_the_dtype_of_a_file_is_kept(tc: ModuleType, theirs: Any, tmp_path: Path, dtype: str) -> None:
    theirs.to(getattr(torch, dtype))
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    state = tc.load(tmp_path / "model.safetensors")
    assert_same(state, theirs.state_dict())
    ours = block(tc).to(getattr(tc, dtype))
    ours.load_state_dict(state)
    assert_same(ours.state_dict(), theirs.state_dict())
    assigned = block(tc)
    assigned.load_state_dict(state, assign=True)
    assert_same(assigned.state_dict(), theirs.state_dict())


MISFITS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "missing": lambda state: state.pop("layer.0.bias"),
    "unexpected": lambda state: state.update({"bert.pooler.weight": state["layer.0.weight"]}),
    "another shape": lambda state: state.update({"embeddings.weight": state["layer.0.weight"]}),
    "all of these": lambda state: state.update(
        {"embeddings.weight": state.pop("layer.0.bias"), "head": state["layer.1.bias"]}
    ),
}


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "not strict"])
@pytest.mark.parametrize("change", MISFITS.values(), ids=MISFITS)
def test_a_file_that_does_not_fit_is_answered_in_torchs_words(
    tc: ModuleType, theirs: Any, tmp_path: Path, change: Callable[[dict[str, Any]], Any], strict: bool
) -> None:
    state = theirs.state_dict()
    change(state)
    path = tmp_path / "other.safetensors"
    save_file({name: tensor.clone() for name, tensor in state.items()}, path)

    def answer(module: Any, load: Callable[[Path], Any]) -> tuple[str, str]:
        try:
            return "", str(module.load_state_dict(load(path), strict=strict))
        except RuntimeError as error:
            return "RuntimeError", str(error)

    assert answer(block(tc), tc.load) == answer(block(torch), load_file)


def sharded(state: dict[str, torch.Tensor], folder: Path, *, save: Callable[..., Any] = save_file) -> Path:
    """Write a state dict as two files and an index, as Hugging Face does."""
    names = sorted(state)
    half = len(names) // 2
    places: dict[str, str] = {}
    for number, some in enumerate((names[:half], names[half:]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        save({name: state[name] for name in some}, folder / file)
        places |= dict.fromkeys(some, file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}, indent=2))
    return index


@pytest.mark.parametrize("save", [save_file, torch.save], ids=["safetensors", "torch.save"])
def test_a_state_dict_in_several_files_is_read_by_its_index(
    tc: ModuleType, theirs: Any, tmp_path: Path, save: Callable[..., Any]
) -> None:
    index = sharded(theirs.state_dict(), tmp_path, save=save)
    ours = block(tc)
    ours.load_state_dict(tc.load(index))
    assert_same(ours.state_dict(), theirs.state_dict())
    assert_same(tc.load(str(index), map_location="cpu"), theirs.state_dict())


def test_files_that_are_links_are_read_as_a_cache_has_them(tc: ModuleType, theirs: Any, tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    index = sharded(theirs.state_dict(), tmp_path / "blobs")
    for file in (tmp_path / "blobs").iterdir():
        (tmp_path / "snapshot" / file.name).symlink_to(file)
    assert_same(tc.load(tmp_path / "snapshot" / index.name), theirs.state_dict())


def index_of(file: Any) -> str:
    return json.dumps({"weight_map": {"x": file}})


BAD_INDEXES: dict[str, tuple[str, type[Exception], str]] = {
    "no JSON": ('{"weight_map": ', ValueError, "not JSON"),
    "no text": ('{"weight_map": "\udcff"}', ValueError, "not JSON"),
    "deep JSON": ('{"weight_map": ' + "[" * 100_000, ValueError, "not JSON"),
    "a name twice": ('{"weight_map": {"x": "a", "x": "b"}}', ValueError, "comes twice"),
    "no map": ('{"metadata": {}}', ValueError, "no weight_map"),
    "a map that is a list": ('{"weight_map": ["x"]}', ValueError, "no weight_map"),
    "a file that is a number": (index_of(3), ValueError, "no weight_map"),
    "a file above": (index_of("../model.safetensors"), ValueError, "no file of its folder"),
    "a file above by a detour": (index_of("a/../../model.safetensors"), ValueError, "no file of its folder"),
    "an absolute file": (index_of("/etc/passwd"), ValueError, "'/etc/passwd', which is no file of its folder"),
    "the folder itself": (index_of("."), ValueError, "no file of its folder"),
    "a file with a null": (index_of("a\0b"), ValueError, "no file of its folder"),
    "a file that is not there": (index_of("nobody.safetensors"), FileNotFoundError, "nobody.safetensors"),
    "a folder": (index_of("sub"), FileNotFoundError, "sub"),
    "a pipe": (index_of("pipe"), FileNotFoundError, "pipe"),
    "a name without end": (index_of("x" * 10_000), OSError, "too long"),
    "itself": (index_of("bad.index.json"), ValueError, "no safetensors file"),
    "a file without the tensor": (index_of("model.safetensors"), ValueError, "'model.safetensors' has no tensor 'x'"),
    "a file of something else": (index_of("list.safetensors"), ValueError, "has no tensor 'x'"),
    "a file larger than memory": (index_of("huge.safetensors"), RuntimeError, "needs 1099511627776 bytes"),
}


@pytest.mark.parametrize(("text", "kind", "naming"), BAD_INDEXES.values(), ids=BAD_INDEXES)
@pytest.mark.usefixtures("theirs")
def test_an_index_is_not_believed(
    tc: ModuleType, tmp_path: Path, text: str, kind: type[Exception], naming: str
) -> None:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    os.mkfifo(folder / "pipe")
    shutil.copy(tmp_path / "model.safetensors", folder)
    tc.save([tc.ones(1)], folder / "list.safetensors")
    hollow(folder / "huge.safetensors")
    (folder / "bad.index.json").write_text(text, errors="surrogateescape")
    with pytest.raises(kind, match=naming):
        tc.load(folder / "bad.index.json")
    assert tc.ones(1).item() == 1.0


def hollow(path: Path) -> None:
    """A file of a terabyte, which takes no room on the disk."""
    text = json.dumps({"x": {"dtype": "BF16", "shape": [1 << 39], "data_offsets": [0, 1 << 40]}}).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + (1 << 40))


def test_a_file_larger_than_memory_is_refused_and_nothing_of_it_is_kept(tc: ModuleType, tmp_path: Path) -> None:
    hollow(tmp_path / "huge.safetensors")
    with pytest.raises(tc.OutOfMemoryError, match="needs 1099511627776 bytes"):
        tc.load(tmp_path / "huge.safetensors")
    assert tc.ones(1).item() == 1.0
