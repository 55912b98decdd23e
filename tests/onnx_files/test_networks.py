"""Networks that torch exported give here what they give in torch, whatever exported them."""

from __future__ import annotations

import copy
import functools
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from tests.onnx_files.networks import Bert, ResNet, exported

# The exporter, and the opset that it writes.
STYLES = [(False, 13), (False, 17), (False, 20), (True, 20)]


@functools.cache
def written(name: str, by_export: bool, opset: int) -> tuple[Any, bytes]:
    """A network, and its file with a batch (and for texts a length) that varies."""
    torch.manual_seed(0)
    network: Any
    if name == "resnet":
        network, inputs, names = ResNet().eval(), (torch.randn(2, 3, 32, 32),), ["x"]
        sizes = [{0: "n"}]
    else:
        network, names = Bert().eval(), ["input_ids", "attention_mask"]
        inputs = (torch.randint(1, 50, (2, 7)), torch.ones(2, 7, dtype=torch.int64))  # type: ignore[assignment]
        sizes = [{0: "n", 1: "steps"}] * 2
    vary(network)
    options: dict[str, Any] = {"input_names": names}
    if by_export:
        options["dynamic_shapes"] = tuple(sizes)
    else:
        options["dynamic_axes"] = dict(zip(names, sizes, strict=True))
    return network, exported(network, inputs, opset, by_export=by_export, **options)


def vary(network: Any) -> None:
    """Weights that differ from each other: exporters write those that are alike once."""
    for name, tensor in network.state_dict().items():
        if tensor.dtype.is_floating_point:
            tensor += torch.rand_like(tensor) * (1 if "running" in name else 0.1)


def inputs_of(name: str, rows: int, steps: int) -> tuple[Any, ...]:
    """Inputs of other sizes than those with which the network was exported."""
    torch.manual_seed(rows)
    if name == "resnet":
        return (torch.randn(rows, 3, 32, 32),)
    mask = torch.ones(rows, steps, dtype=torch.int64)
    mask[-1, steps // 2 :] = 0
    return torch.randint(1, 50, (rows, steps)), mask


def assert_close(found: Any, wanted: Any) -> None:
    """One tensor or several are as torch's."""
    several = list(found.values()) if isinstance(found, dict) else [found]
    for mine, other in zip(several, wanted if isinstance(wanted, tuple) else (wanted,), strict=True):
        np.testing.assert_allclose(mine.detach().numpy(), other.detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("by_export", "opset"), STYLES, ids=[f"{'new' if new else 'old'}-{at}" for new, at in STYLES])
@pytest.mark.parametrize("name", ["resnet", "bert"])
def test_an_exported_network_gives_what_torch_gives(name: str, by_export: bool, opset: int, tc: ModuleType) -> None:
    network, file = written(name, by_export, opset)
    module = tc.onnx.load(file)
    compiled = tc.compile(module, fullgraph=True)
    for rows, steps in ((1, 7), (3, 4)):
        inputs = inputs_of(name, rows, steps)
        mine = [tc.tensor(each.numpy()) for each in inputs]
        with torch.no_grad(), tc.no_grad():
            wanted = network(*inputs)
            assert_close(module(*mine), wanted)
            compiled(*mine)
            assert_close(compiled(*mine), wanted)


def test_a_graph_says_what_it_takes_and_gives(tc: ModuleType) -> None:
    _, file = written("bert", True, 20)
    module = tc.onnx.load(file)
    assert module.inputs == (
        ("input_ids", tc.int64, ("n", "steps")),
        ("attention_mask", tc.int64, ("n", "steps")),
    )
    (hidden, pooled) = module.outputs
    assert (hidden.dtype, hidden.shape) == (tc.float32, ("n", "steps", 16))
    assert pooled.shape == ("n", 16)
    assert "input_ids: int64[n, steps], attention_mask: int64[n, steps] -> " in repr(module)
    inputs = {"attention_mask": tc.ones(1, 3, dtype=tc.int64), "input_ids": tc.ones(1, 3, dtype=tc.int64)}
    assert list(module(**inputs)) == [hidden.name, pooled.name]


def test_the_weights_keep_their_names_and_can_be_loaded_and_trained(tc: ModuleType) -> None:
    network, file = written("bert", True, 20)
    network = copy.deepcopy(network)
    module = tc.onnx.load(file)
    state = network.state_dict()
    mine = module.state_dict()
    assert {"layer.0.norm1.weight", "words.weight", "pooler.bias"} <= set(mine) & set(state)
    assert module.names["layer.1.up.bias"] == "layer.1.up.bias"
    np.testing.assert_array_equal(mine["layer.0.norm1.weight"].numpy(), state["layer.0.norm1.weight"].numpy())
    inputs = inputs_of("bert", 2, 5)
    tensors = [tc.tensor(each.numpy()) for each in inputs]
    before = copy.deepcopy(module)
    with torch.no_grad():
        network.words.weight.mul_(2)
        network.layer[0].norm1.bias.add_(1)
    changed = {name: state[name].numpy() for name in ("words.weight", "layer.0.norm1.bias")}
    module.load_state_dict(changed, strict=False)
    wanted = network(*inputs)
    assert_close(module(*tensors), wanted)
    assert not tc.allclose(list(before(*tensors).values())[1], list(module(*tensors).values())[1])
    list(module(*tensors).values())[1].sum().backward()
    wanted[1].sum().backward()
    assert_close(module.get_parameter("layer.0.norm1.weight").grad, network.layer[0].norm1.weight.grad)


def test_running_statistics_are_buffers_and_a_graph_is_called_for_evaluation(tc: ModuleType) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2)).eval()
    vary(network)
    options: Any = {"input_names": ["x"], "do_constant_folding": False, "training": torch.onnx.TrainingMode.EVAL}
    module = tc.onnx.load(exported(network, (torch.randn(4, 3),), 17, by_export=False, **options))
    assert set(dict(module.named_buffers())) >= {"0.running_mean", "0.running_var"}
    assert set(dict(module.named_parameters())) == {"0.weight", "0.bias", "1.weight", "1.bias"}
    assert not module.training
    x = torch.randn(4, 3)
    assert_close(module(tc.tensor(x.numpy())), network(x))


def test_a_graph_is_read_from_a_path_and_its_bytes(tc: ModuleType, tmp_path: Any) -> None:
    _, file = written("resnet", False, 17)
    (tmp_path / "net.onnx").write_bytes(file)
    x = np.ones((1, 3, 32, 32), np.float32)
    for source in (tmp_path / "net.onnx", str(tmp_path / "net.onnx"), bytearray(file)):
        assert tc.onnx.load(source)(x).shape == (1, 10)


@pytest.mark.parametrize("style", [(False, 13), (True, 20)], ids=["old-13", "new-20"])
@pytest.mark.parametrize("name", ["resnet", "bert"])
def test_a_graph_is_served_to_batches_of_any_size(name: str, style: tuple[bool, int], tc: ModuleType) -> None:
    network, file = written(name, *style)
    module = tc.onnx.load(file)
    inputs = {value.name: tc.models.Input(value.shape, value.dtype) for value in module.inputs}
    served = tc.models.create(f"onnx-{name}-{style[1]}", module, inputs)
    for rows, steps in ((1, 7), (4, 3)):
        given = inputs_of(name, rows, steps)
        found = served(*[each.numpy() for each in given])
        with torch.no_grad():
            wanted = network(*given)
        several = list(found.values()) if isinstance(found, dict) else [found]
        for mine, other in zip(several, wanted if isinstance(wanted, tuple) else (wanted,), strict=True):
            np.testing.assert_allclose(mine, other.numpy(), rtol=1e-4, atol=1e-5)
    served.delete()
