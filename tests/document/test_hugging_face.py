"""The example that runs models of Hugging Face: the same modules on torch give the same, and names must all match."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.document.test_examples import EXAMPLES, run_example

_FILES = ("hugging_face", "_classifiers")


def _imported(monkeypatch: pytest.MonkeyPatch, namespace: Any) -> ModuleType:
    """The example as it is with this in the place of tclient."""
    with monkeypatch.context() as patch:
        for name in _FILES:
            patch.delitem(sys.modules, name, raising=False)
        patch.setitem(sys.modules, "tclient", namespace)
        module = importlib.import_module("hugging_face")
        for name in _FILES:
            del sys.modules[name]
    return module


@pytest.fixture
def both(tc: ModuleType, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """The example, and the same with torch."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    importlib.import_module("_server")  # is of the client, whatever runs the modules
    return _imported(monkeypatch, tc), _imported(monkeypatch, torch)


CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("bert", {}),
    "bert, with relu and two classes": ("bert", {"hidden_act": "relu", "id2label": {"0": "a", "1": "b"}}),
    "vit": ("vit", {}),
    "vit without biases, of one colour": ("vit", {"qkv_bias": False, "num_channels": 1}),
    "resnet": ("resnet", {}),
    "resnet of basic layers": ("resnet", {"layer_type": "basic", "downsample_in_first_stage": True}),
    "resnet that narrows early": ("resnet", {"downsample_in_bottleneck": True}),
}


@pytest.mark.parametrize(("name", "change"), CHANGES.values(), ids=CHANGES)
def test_a_model_gives_what_it_gives_on_torch(
    both: tuple[Any, Any], tmp_path: Path, name: str, change: dict[str, Any]
) -> None:
    ours, theirs = both
    ours.SMALL = {name: {**ours.SMALL[name], **change}}
    (folder,) = ours.make(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    expected = theirs.build(config)
    expected.load_state_dict(weights)
    expected.eval()
    module = ours.load(folder)
    assert list(module.state_dict()) == list(expected.state_dict())
    given = ours.inputs_of(config, 3)
    assert module.training is False
    with torch.no_grad():
        told = expected(**{key: torch.from_numpy(value.numpy()) for key, value in given.items()})
    assert told.std() > 0.01
    torch.testing.assert_close(torch.from_numpy(module(**given).detach().numpy()), told)


def test_what_is_padding_changes_nothing(both: tuple[Any, Any], tmp_path: Path) -> None:
    ours, _ = both
    folder = ours.make(tmp_path)[0]
    module, given = ours.load(folder), ours.inputs_of(ours.config_of(folder), 3)
    assert given["attention_mask"].sum(1).tolist() == [12, 11, 10]
    scores = module(**given)
    given["input_ids"][1, 11] = 7
    torch.testing.assert_close(module(**given).tolist(), scores.tolist())
    given["input_ids"][1, 10] = 7
    assert module(**given)[1].tolist() != scores[1].tolist()


def test_a_name_that_does_not_match_is_refused_as_torch_refuses_it(both: tuple[Any, Any], tmp_path: Path) -> None:
    ours, theirs = both
    folder = ours.make(tmp_path)[0]
    weights = load_file(folder / "model.safetensors")
    weights["bert.embeddings.LayerNorm.gamma"] = weights.pop("bert.embeddings.LayerNorm.weight")
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(RuntimeError) as expected:
        theirs.build(ours.config_of(folder)).load_state_dict(weights)
    with pytest.raises(RuntimeError) as refused:
        ours.load(folder)
    assert str(refused.value) == str(expected.value)


def test_weights_of_half_the_size_in_several_files_are_loaded(both: tuple[Any, Any], tmp_path: Path) -> None:
    ours, _ = both
    folder = ours.make(tmp_path)[1]
    weights = {name: tensor.bfloat16() for name, tensor in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    places = {}
    for number, name in enumerate(weights):
        places[name] = f"model-0000{number % 2 + 1}-of-00002.safetensors"
    for file in set(places.values()):
        save_file({name: weights[name] for name in weights if places[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    state = ours.load(folder).state_dict()
    for name, tensor in weights.items():
        assert state[name].tolist() == tensor.float().tolist()


def test_models_that_are_made_are_run_from_their_folders(server: Any, tmp_path: Path) -> None:
    address, made = ("--address", server.address, "--out", str(tmp_path)), tmp_path / "models"
    first = run_example("hugging_face", *address, "--make", str(made))
    assert sorted(path.name for path in made.iterdir()) == ["bert", "resnet", "vit"]
    again = run_example("hugging_face", *address, str(made / "bert"), str(made / "vit"), str(made / "resnet"))
    assert (first.stdout, again.stderr) == (again.stdout, "")
    (made / "bert/config.json").write_text('{"architectures": ["GPT2LMHeadModel"]}')
    unknown = run_example("hugging_face", *address, str(made / "bert"))
    assert (unknown.returncode, "GPT2LMHeadModel; known are Bert" in unknown.stderr) == (1, True)
