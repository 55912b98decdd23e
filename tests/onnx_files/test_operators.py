"""Operators in the meaning of old opsets, with inputs that vary, and as torch's layers are exported."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.onnx_files.graphs import Array, assert_as_evaluated, helper, model, node, run
from tests.onnx_files.networks import exported


class Resized(nn.Module):
    """torch's interpolation as a layer."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    def forward(self, x: Any) -> Any:
        """Shapes: (n, c, ...) -> (n, c, ...)."""
        return nn.functional.interpolate(x, **self.options)


LAYERS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "an LSTM": (lambda: nn.LSTM(3, 4), (5, 2, 3)),
    "an LSTM of two layers and directions": (lambda: nn.LSTM(3, 4, 2, bidirectional=True, batch_first=True), (2, 5, 3)),
    "a GRU of two directions": (lambda: nn.GRU(3, 4, bidirectional=True), (5, 2, 3)),
    "a GRU without biases": (lambda: nn.GRU(3, 4, bias=False), (5, 2, 3)),
    "an RNN": (lambda: nn.RNN(3, 4), (5, 2, 3)),
    "an RNN with relu": (lambda: nn.RNN(3, 4, nonlinearity="relu"), (5, 2, 3)),
    "a transposed convolution": (lambda: nn.ConvTranspose2d(3, 4, 3, 2, 1, 1, groups=1), (2, 3, 5, 4)),
    "a convolution of groups": (lambda: nn.Conv1d(4, 8, 3, padding=2, dilation=2, groups=2), (2, 4, 9)),
    "a convolution of volumes": (lambda: nn.Conv3d(2, 3, 2), (1, 2, 4, 4, 4)),
    "pools": (lambda: nn.Sequential(nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.AvgPool2d(2, 1, 1)), (2, 3, 8, 8)),
    "group normalization": (lambda: nn.GroupNorm(2, 4), (2, 4, 5)),
    "instance normalization": (lambda: nn.InstanceNorm2d(3, affine=True), (2, 3, 4, 4)),
    "an adaptive pool": (lambda: nn.AdaptiveAvgPool2d((2, 2)), (2, 3, 8, 8)),
    "activations": (lambda: nn.Sequential(nn.SiLU(), nn.Hardswish(), nn.PReLU(3), nn.ELU(), nn.Softplus()), (2, 3, 4)),
    "more activations": (lambda: nn.Sequential(nn.Mish(), nn.GELU("tanh"), nn.Hardtanh(), nn.Softmax(1)), (2, 3, 4)),
    "a pixel shuffle": (lambda: nn.PixelShuffle(2), (1, 8, 3, 3)),
    "a bilinear resize": (lambda: Resized(scale_factor=2, mode="bilinear"), (1, 2, 3, 4)),
    "a bilinear resize of corners": (lambda: Resized(size=(7, 5), mode="bilinear", align_corners=True), (1, 2, 3, 4)),
    "a bicubic resize": (lambda: Resized(scale_factor=2, mode="bicubic"), (1, 2, 4, 4)),
    "a nearest resize": (lambda: Resized(scale_factor=3), (1, 2, 3)),
    "a smaller nearest resize": (lambda: Resized(size=(3, 5)), (1, 2, 7, 4)),
    "reflected padding": (lambda: nn.ReflectionPad2d((1, 2, 0, 1)), (1, 2, 4, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_of_torch_gives_what_it_gives_there(name: str, tc: ModuleType) -> None:
    make, shape = LAYERS[name]
    torch.manual_seed(0)
    layer = make().eval()
    x = torch.randn(shape)
    module = tc.onnx.load(exported(layer, (x,), 17, by_export=False))
    with torch.no_grad(), tc.no_grad():
        wanted = layer(x)
        found = module(tc.tensor(x.numpy()))
    several = list(found.values()) if isinstance(found, dict) else [found]
    flat: list[Any] = []
    for part in wanted if isinstance(wanted, tuple) else (wanted,):
        flat += part if isinstance(part, tuple) else [part]
    for mine, other in zip(several, flat, strict=True):
        np.testing.assert_allclose(mine.numpy(), other.numpy(), rtol=1e-4, atol=1e-5)


DRAW = np.random.default_rng(3)
X = DRAW.standard_normal((2, 3, 4)).astype(np.float32)
IMAGE = DRAW.standard_normal((1, 2, 5, 6)).astype(np.float32)
NUMBERS = np.arange(-6, 6).reshape(3, 4)

# Nodes that make y of x, the input, more initializers, and the opset.
GRAPHS: dict[str, tuple[list[Any], Array, dict[str, Array], int]] = {
    "softmax without an axis": ([node("Softmax", "x", "y")], X, {}, 13),
    "axes as attributes": (
        [
            node("Unsqueeze", "x", "a", axes=[0, 2]),
            node("Squeeze", "a", "b", axes=[0]),
            node("ReduceSum", "b", "y", axes=[0]),
        ],
        X,
        {},
        11,
    ),
    "a slice of old": ([node("Slice", "x", "y", starts=[0, 1], ends=[9, 3], axes=[0, 2])], X, {}, 9),
    "a slice backwards": (
        [node("Slice", "x s e a t", "y")],
        X,
        {"s": np.array([-1, 5]), "e": np.array([-9, 0]), "a": np.array([1, -1]), "t": np.array([-2, -1])},
        17,
    ),
    "clip with attributes": ([node("Clip", "x", "y", min=-0.5, max=0.25)], X, {}, 9),
    "clip with one end": ([node("Clip", "x _ m", "y")], X, {"m": np.array(0.1, np.float32)}, 17),
    "a pad of old": ([node("Pad", "x", "y", pads=[0, 1, 2, 0, 0, 1], value=2.0)], X, {}, 9),
    "a wrapped pad": ([node("Pad", "x p", "y", mode="wrap")], X, {"p": np.array([0, 1, 2, 0, 0, 1])}, 19),
    "an upsample of old": ([node("Upsample", "x s", "y")], IMAGE, {"s": np.array([1, 1, 2, 3], np.float32)}, 9),
    "integers divided": ([node("Div", "x d", "y")], NUMBERS, {"d": np.array(4)}, 17),
    "integers and remainders": ([node("Mod", "x d", "y")], NUMBERS, {"d": np.array(-4)}, 17),
    "integers to a power": ([node("Pow", "x d", "y")], NUMBERS, {"d": np.array(2.0, np.float32)}, 17),
    "integers summed": ([node("ReduceSum", "x", "y", keepdims=0)], NUMBERS.astype(np.int32), {}, 17),
    "a mean of integers that are pooled": (
        [node("Cast", "x", "i", to=6), node("Cast", "i", "f", to=1), node("MaxPool", "f", "y", kernel_shape=[2, 2])],
        IMAGE * 4,
        {},
        17,
    ),
    "reverse and exclusive sums": ([node("CumSum", "x a", "y", reverse=1, exclusive=1)], X, {"a": np.array(-2)}, 17),
    "a reshape that keeps sizes": ([node("Reshape", "x s", "y")], X, {"s": np.array([0, -1, 2])}, 17),
    "a shape that is computed": (
        [
            node("Shape", "x", "s"),
            node("Split", "s", "n a b", axis=0),
            node("Mul", "a b", "ab"),
            node("Concat", "n ab one", "wanted", axis=0),
            node("Reshape", "x wanted", "r"),
            node("Cast", "ab", "f", to=1),
            node("Sqrt", "f", "root"),
            node("Div", "r root", "y"),
        ],
        X,
        {"one": np.array([1])},
        13,
    ),
    "positions and a mask of a size": (
        [
            node("Shape", "x", "s", start=1, end=2),
            node("Squeeze", "s", "n"),
            node("Range", "zero n one", "places"),
            node("Unsqueeze", "places axis", "column"),
            node("Less", "places column", "lower"),
            node("ConstantOfShape", "s", "zeros"),
            node("Where", "lower zeros infinity", "mask"),
            node("MatMul", "mask x", "m"),
            node("Add", "m x", "a"),
            node("ReduceMax", "a", "y"),
        ],
        X,
        {"zero": np.array(0), "one": np.array(1), "axis": np.array([1]), "infinity": np.array(1e4, np.float32)},
        17,
    ),
    "a size as an output": ([node("Size", "x", "y")], X, {}, 17),
    "a constant as an output": ([node("Constant", "", "y", value_floats=[1.0, 2.0])], X, {}, 17),
    "several of one input": ([node("Max", "x x2 half", "y")], X, {"x2": -X, "half": np.array([0.5], np.float32)}, 17),
    "averages with padding that is not even": (
        [node("AveragePool", "x", "y", kernel_shape=[3, 2], strides=[2, 2], pads=[0, 1, 1, 0], count_include_pad=1)],
        IMAGE,
        {},
        19,
    ),
    "a convolution that keeps sizes": (
        [node("Conv", "x w", "y", auto_pad="SAME_UPPER", strides=[2, 2])],
        IMAGE,
        {"w": DRAW.standard_normal((3, 2, 3, 4)).astype(np.float32)},
        17,
    ),
    "a Gemm with everything": (
        [node("Gemm", "x w b", "y", alpha=0.5, beta=2.0, transA=1, transB=1)],
        X[0],
        {"w": X[1].T.copy()[:, :3], "b": np.ones(4, np.float32)},
        17,
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_gives_what_its_opset_says(name: str, tc: ModuleType) -> None:
    nodes, x, more, opset = GRAPHS[name]
    made = model(nodes, {"x": (x.dtype, ["n", *x.shape[1:]])}, ["y"], more, opset)
    made.ir_version = 8
    assert_as_evaluated(tc, made, x, tolerance=1e-4)


@pytest.mark.parametrize(("kind", "axis"), [("Softmax", 1), ("LogSoftmax", 1), ("Hardmax", 2), ("Softmax", 0)])
def test_of_old_a_softmax_ran_over_several_axes(kind: str, axis: int, tc: ModuleType) -> None:
    # onnx's evaluator has the meaning of opset 13 for all.
    made = model([node(kind, "x", "y", axis=axis)], {"x": (X.dtype, X.shape)}, ["y"], {}, 11)
    flat = torch.from_numpy(X.reshape(int(np.prod(X.shape[:axis])), -1))
    if kind == "Hardmax":
        wanted = nn.functional.one_hot(flat.argmax(1), flat.shape[1]).float()
    else:
        wanted = (flat.softmax if kind == "Softmax" else flat.log_softmax)(1)
    np.testing.assert_allclose(run(tc, made, X)[0], wanted.reshape(X.shape).numpy(), rtol=1e-5)


def test_functions_of_a_file_are_run_where_they_are_called(tc: ModuleType) -> None:
    made = model([node("Twice", "x", "y", domain="own")], {"x": (np.float32, [2])}, ["y"])
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    inner = [node("Add", "a a", "b")]
    made.functions.append(helper.make_function("own", "Twice", ["a"], ["b"], inner, imports))
    made.opset_import.append(helper.make_opsetid("own", 1))
    assert tc.onnx.load(made.SerializeToString())(tc.ones(2)).tolist() == [2, 2]
