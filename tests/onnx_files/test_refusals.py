"""What graphs cannot be run here say so before anything is sent, all at once and by name."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tclient._onnx.load import KNOWN
from tests.onnx_files.graphs import helper, model, node, onnx, run
from tests.support.serving import ROOT

X: Any = {"x": (np.float32, ["n", 4])}


def refusal(tc: ModuleType, made: Any, kind: type[Exception] = RuntimeError) -> str:
    """The text with which a model is refused."""
    with pytest.raises(tc.TensorError) as caught:
        tc.onnx.load(made.SerializeToString())
    assert isinstance(caught.value, kind)
    return str(caught.value)


def test_operators_that_are_missing_are_all_named(tc: ModuleType) -> None:
    nodes = [
        helper.make_node("StringSplit", ["x"], ["a"], name="/split"),
        helper.make_node("Relu", ["x"], ["b"]),
        helper.make_node("Fused", ["b"], ["c"], domain="com.somebody"),
        helper.make_node("Fused", ["c"], ["y"], domain="com.somebody"),
    ]
    made = model(nodes, X, ["y"])
    made.opset_import.append(helper.make_opsetid("com.somebody", 1))
    assert refusal(tc, made) == (
        "onnx.load: there is nothing here for these operators: StringSplit: node '/split' (StringSplit); "
        "com.somebody.Fused: node that makes 'c' (com.somebody.Fused) and 1 more"
    )


def test_attributes_that_are_not_supported_are_all_named(tc: ModuleType) -> None:
    nodes = [
        helper.make_node("MaxPool", ["x"], ["a"], name="/pool", kernel_shape=[2, 2, 2, 2]),
        helper.make_node("Cast", ["a"], ["y"], name="/cast", to=onnx.TensorProto.STRING),
    ]
    text = refusal(tc, model(nodes, {"x": (np.float32, [1, 2, 8, 8, 8, 8])}, ["y"]))
    assert "node '/pool' (MaxPool): its windows have 4 axes, and 1 to 3 are supported" in text
    assert "node '/cast' (Cast): there are no tensors of the type numbered 8" in text


def test_elements_of_computed_tensors_are_not_read(tc: ModuleType) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["sizes"], to=7),
        helper.make_node("Reshape", ["x", "sizes"], ["a"], name="/reshape"),
        helper.make_node("Tile", ["a", "sizes"], ["y"], name="/tile"),
    ]
    text = refusal(tc, model(nodes, {"x": (np.float32, [2])}, ["y"]))
    assert "must follow from constants and sizes" in text
    assert "node '/reshape' (Reshape) needs the elements of 'sizes', its input 1, which the server computes" in text
    assert "node '/tile' (Tile) needs the elements of 'sizes'" in text


def test_nodes_that_nothing_needs_are_not_asked_for(tc: ModuleType) -> None:
    nodes = [node("Relu", "x", "y"), node("MaxPool", "x", "a", kernel_shape=[2, 2, 2, 2, 2])]
    assert run(tc, model(nodes, X, ["y"]), np.full((1, 4), -1, np.float32))[0].tolist() == [[0] * 4]


@pytest.mark.parametrize(
    ("nodes", "outputs", "text"),
    [
        ([node("Relu", "nothing", "y")], ["y"], "takes 'nothing', which nothing before it makes"),
        ([node("Relu", "y", "y")], ["y"], "takes 'y', which nothing before it makes"),
        ([node("Relu", "b", "a"), node("Relu", "a", "b")], ["b"], "takes 'b', which nothing before it makes"),
        ([node("Relu", "x", "y"), node("Neg", "x", "y")], ["y"], "makes 'y', which is there already"),
        ([node("Relu", "x", "x")], ["x"], "makes 'x', which is there already"),
        ([node("Relu", "x", "y")], ["z"], "the output 'z' is made by nothing"),
        ([node("Relu", "x", "y")], ["y", "y"], "the output 'y' is made by nothing, or named twice"),
        ([node("Relu", "x", "y")], [], "the graph has no outputs"),
        ([node("Relu", "x x", "y")], ["y"], "node that makes 'y' (Relu): "),
        ([node("LeakyRelu", "x", "y", alpha="much")], ["y"], "node that makes 'y' (LeakyRelu): "),
        ([node("Concat", "x x", "y")], ["y"], "node that makes 'y' (Concat): "),
    ],
    ids=range(11),
)
def test_a_graph_that_is_wrong_is_refused(nodes: Any, outputs: list[str], text: str, tc: ModuleType) -> None:
    assert text in refusal(tc, model(nodes, X, outputs), ValueError)


def test_initializers_hold_what_they_say(tc: ModuleType) -> None:
    made = model([node("Add", "x w", "y")], X, ["y"], {"w": np.ones(4, np.float32)})
    for sizes in ([1 << 40], [1 << 62, 1 << 62], [-1], [3]):
        made.graph.initializer[0].dims[:] = sizes
        assert "the tensor 'w'" in refusal(tc, made, ValueError)


def test_old_files_and_other_types_are_refused_by_name(tc: ModuleType) -> None:
    assert "opset 6, and opsets are read from 7 on" in refusal(tc, model([node("Relu", "x", "y")], X, ["y"], opset=6))
    made = model([node("Relu", "x", "y")], X, ["y"])
    made.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.STRING
    assert "'x' is of string, which tensors lack" in refusal(tc, made)


def test_inputs_that_do_not_fit_are_refused(tc: ModuleType) -> None:
    nodes = [node("Add", "x z", "y")]
    module = tc.onnx.load(
        model(nodes, {"x": (np.float32, ["n", 4]), "z": (np.float32, ["n", None])}, ["y"]).SerializeToString()
    )
    x = tc.ones(2, 4)
    assert module(x, z=x).tolist() == [[2] * 4] * 2
    for inputs, named in (((x,), {}), ((x, x, x), {}), ((x, x), {"z": x}), ((x,), {"w": x}), ((x, [1.0]), {})):
        with pytest.raises(TypeError, match=r"the graph takes|the input 'z' is to be a tensor"):
            module(*inputs, **named)
    with pytest.raises(ValueError, match=r"the input x: float32\[n, 4\] is given int64\[2, 4\]"):
        module(x.long(), x)
    with pytest.raises(ValueError, match=r"the input x: float32\[n, 4\] is given float32\[2, 5\]"):
        module(tc.ones(2, 5), x)
    with pytest.raises(ValueError, match=r"the input z: float32\[n, \?\] is given float32\[3, 4\], where {'n': 2}"):
        module(x, tc.ones(3, 4))


def test_numbers_that_do_not_fit_name_the_node(tc: ModuleType) -> None:
    nodes = [helper.make_node("Expand", ["x", "s"], ["y"], name="/expand")]
    module = tc.onnx.load(model(nodes, X, ["y"], {"s": np.array([3, 4])}).SerializeToString())
    assert module(tc.ones(1, 4)).shape == (3, 4)
    with pytest.raises(ValueError, match=r"node '/expand' \(Expand\): "):
        module(tc.ones(2, 4))


def test_the_documentation_lists_the_operators() -> None:
    table = (ROOT / "docs" / "networks.md").read_text(encoding="utf-8")
    for domain, title in (("", "ai.onnx"), ("ai.onnx.ml", "ai.onnx.ml")):
        (told,) = re.findall(rf"^\| {re.escape(title)} \| (.*) \|$", table, re.M)
        assert told.split(", ") == sorted(kind for found, kind in KNOWN if found == domain)


def test_without_the_package_it_is_told_what_to_install(tc: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"install it with: pip install 'tclient\[onnx\]'"):
        tc.onnx.load(b"")


# ---- data in other files -------------------------------------------------------------------------------------------


def written(folder: Path, location: str, **more: str) -> Path:
    """A model in a folder, whose weights lie at a place."""
    made = model([node("Add", "x w", "y")], X, ["y"], {"w": np.arange(4, dtype=np.float32)})
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=value)
    (folder / "net.onnx").write_bytes(made.SerializeToString())
    return folder / "net.onnx"


def test_weights_may_lie_beside_the_model(tc: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    held = np.arange(6, dtype=np.float32)
    (tmp_path / "data" / "w.bin").write_bytes(held.tobytes())
    module = tc.onnx.load(written(tmp_path, "data/w.bin", offset="8", length="16"))
    assert module(tc.zeros(1, 4)).tolist() == [[2, 3, 4, 5]]
    with pytest.raises(ValueError, match="give the path of the model, and not its bytes"):
        tc.onnx.load((tmp_path / "net.onnx").read_bytes())


@pytest.mark.parametrize(
    ("location", "more"),
    [
        ("../secret.bin", {}),
        ("inner/../../secret.bin", {}),
        ("{folder}/secret.bin", {}),
        ("/dev/zero", {}),
        ("link.bin", {}),
        ("linked/secret.bin", {}),
        ("pipe", {}),
        ("", {}),
        (".", {}),
        ("missing.bin", {}),
        ("short.bin", {}),
        ("w.bin", {"offset": "-4"}),
        ("w.bin", {"offset": "8"}),
        ("w.bin", {"length": "99999999999"}),
        ("w.bin", {"length": "-1"}),
        ("w.bin", {"length": "many"}),
    ],
)
def test_weights_elsewhere_are_not_read(location: str, more: dict[str, str], tc: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "inner").mkdir(parents=True)
    held = np.arange(4, dtype=np.float32).tobytes()
    for path in (tmp_path / "secret.bin", folder / "w.bin"):
        path.write_bytes(held)
    (folder / "short.bin").write_bytes(held[:8])
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "linked").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe")
    with pytest.raises(tc.TensorError, match=r"onnx\.load: the tensor 'w'") as caught:
        tc.onnx.load(written(folder, location.format(folder=tmp_path), **more))
    assert isinstance(caught.value, ValueError)


def test_an_initializer_is_named_as_it_can_be(tc: ModuleType) -> None:
    names = ["forward", "a", "a.b", "x.y.z", "..", "inputs.w", "1", "onnx::Add_7", "a_b"]
    total, nodes = "x", []
    for at, name in enumerate(names):
        nodes.append(helper.make_node("Add", [total, name], [f"t{at}"]))
        total = f"t{at}"
    held = {name: np.full(4, 2.0**at, np.float32) for at, name in enumerate(names)}
    module = tc.onnx.load(model(nodes, X, [total], held).SerializeToString())
    assert module(tc.zeros(1, 4)).tolist() == [[511] * 4]
    state = module.state_dict()
    assert {name: state[key].tolist() for name, key in module.names.items()} == {
        name: array.tolist() for name, array in held.items()
    }
    assert {name for name, key in module.names.items() if name == key} == {"a", "x.y.z", "1", "onnx::Add_7", "a_b"}
