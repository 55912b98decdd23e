"""Files that are damaged, or made to harm: each ends in a clear error, or gives what it says, and soon."""

from __future__ import annotations

import random
import resource
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.onnx_files.graphs import Array, helper, model, node, numpy_helper, onnx

# More than any device has, or so little that it does no harm.
HUGE = (1 << 20, 1 << 40, (1 << 62) + 1, (1 << 63) - 1)


def convolutions() -> Any:
    """A small network of images."""
    draw = np.random.default_rng(0).standard_normal
    weights: dict[str, Array] = {
        "conv.weight": draw((4, 3, 3, 3)).astype(np.float32),
        "fc.weight": draw((5, 4)).astype(np.float32),
        "fc.bias": draw(5).astype(np.float32),
        "scales": np.array([1, 1, 2, 2], np.float32),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
    }
    nodes = [
        node("Pad", "x pads", "padded"),
        node("Conv", "padded conv.weight", "c", strides=[2, 2], dilations=[1, 1]),
        node("Relu", "c", "r"),
        node("MaxPool", "r", "m", kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1]),
        node("AveragePool", "m", "a", kernel_shape=[2, 2], ceil_mode=1),
        node("GlobalAveragePool", "a", "g"),
        node("Flatten", "g", "f"),
        node("Gemm", "f fc.weight fc.bias", "y", transB=1),
    ]
    return model(nodes, {"x": (np.float32, ["n", 3, 8, 8])}, ["y"], weights)


def shapes() -> Any:
    """A graph that computes with the sizes of its input."""
    numbers: dict[str, Array] = {
        "zero": np.array(0, np.int64),
        "one": np.array([1], np.int64),
        "two": np.array([2], np.int64),
        "table": np.arange(12, dtype=np.float32).reshape(6, 2),
    }
    nodes = [
        node("Shape", "ids", "s"),
        node("Gather", "s zero", "n", axis=0),
        node("Unsqueeze", "n one_axis", "n1"),
        node("Concat", "n1 two", "wanted", axis=0),
        node("Range", "zero n step", "places"),
        node("ConstantOfShape", "wanted", "zeros"),
        node("Gather", "table ids", "rows"),
        node("ReduceSum", "rows one", "sums", keepdims=0),
        node("Expand", "sums wanted", "wide"),
        node("Tile", "wide two_twice", "tiled"),
        node("Slice", "tiled one two one_axis", "cut"),
        node("Cast", "places", "floats", to=1),
        node("Add", "cut zeros", "y"),
        node("Mul", "floats floats", "z"),
    ]
    numbers |= {"one_axis": np.array([0], np.int64), "step": np.array(1, np.int64), "two_twice": np.array([2, 1])}
    return model(nodes, {"ids": (np.int64, ["n", 3])}, ["y", "z"], numbers)


def learned() -> Any:
    """What scikit-learn's estimators become."""
    nodes = [
        node("Scaler", "x", "scaled", domain="ai.onnx.ml", offset=[1.0, 2.0], scale=[0.5, 2.0]),
        node(
            "LinearClassifier",
            "scaled",
            "label scores",
            domain="ai.onnx.ml",
            coefficients=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
            intercepts=[0.0, 1.0, 2.0],
            classlabels_ints=[3, 5, 7],
            post_transform="SOFTMAX",
        ),
        node("Normalizer", "scores", "p", domain="ai.onnx.ml", norm="L1"),
    ]
    return model(nodes, {"x": (np.float32, ["n", 2])}, ["label", "p"])


def sequences() -> Any:
    """A recurrent network whose states are resized, padded and looked at."""
    draw = np.random.default_rng(1).standard_normal
    held: dict[str, Array] = {
        "w": draw((1, 8, 3)).astype(np.float32),
        "r": draw((1, 8, 2)).astype(np.float32),
        "b": draw((1, 16)).astype(np.float32),
        "scales": np.array([1, 1, 2.5, 2], np.float32),
        "pads": np.array([0, 0, 1, 1, 0, 0, 0, 1], np.int64),
        "k": np.array([2], np.int64),
        "depth": np.array(3, np.int64),
        "values": np.array([0, 1], np.float32),
    }
    nodes = [
        node("LSTM", "x w r b", "states last", hidden_size=2, activations=["Sigmoid", "Tanh", "Tanh"], clip=3.0),
        node("Resize", "states _ scales", "larger", mode="linear"),
        node("Pad", "larger pads", "padded", mode="reflect"),
        node("TopK", "padded k", "best places", axis=2),
        node("OneHot", "places depth values", "hot", axis=1),
        node("Attention", "padded padded padded", "a", is_causal=1),
        node("Transpose", "a", "y", perm=[1, 0, 3, 2]),
    ]
    return model(nodes, {"x": (np.float32, ["steps", 2, 3])}, ["y", "hot", "last"], held, opset=24)


BASES: dict[str, tuple[Callable[[], Any], Any]] = {
    "convolutions": (convolutions, np.ones((2, 3, 8, 8), np.float32)),
    "shapes": (shapes, np.ones((2, 3), np.int64)),
    "sequences": (sequences, np.ones((4, 2, 3), np.float32)),
    "learned": (learned, np.ones((2, 2), np.float32)),
}


def flip_bytes(draw: random.Random, made: Any) -> bytes:
    """Some bytes are others."""
    data = bytearray(made.SerializeToString())
    for _ in range(draw.choice((1, 1, 2, 8, 64))):
        data[draw.randrange(len(data))] = draw.randrange(256)
    return bytes(data)


def cut(draw: random.Random, made: Any) -> bytes:
    """The end is missing, or something of the middle is."""
    data = made.SerializeToString()
    at = draw.randrange(len(data))
    return data[:at] + (data[at + draw.randrange(1, 50) :] if draw.random() < 0.5 else b"")


def change_nodes(draw: random.Random, made: Any) -> bytes:
    """Nodes are left out, doubled, in another order, or take and make other values."""
    nodes = list(made.graph.node)
    one = draw.choice(nodes)
    kind = draw.randrange(6)
    if kind == 0:
        nodes.remove(one)
    elif kind == 1:
        nodes.append(one)
    elif kind == 2:
        draw.shuffle(nodes)
    elif kind == 3 and one.input:
        one.input[draw.randrange(len(one.input))] = draw.choice([*one.output, "nothing", "", nodes[-1].output[0]])
    elif kind == 4:
        one.output[0] = draw.choice([made.graph.input[0].name, nodes[0].output[0], "", "elsewhere"])
    else:
        one.op_type = draw.choice(["", "Nothing", "Softmax", "Conv", "Reshape", "LSTM", "Where", "Range", "Shape"])
        one.domain = draw.choice(["", "", "ai.onnx.ml", "com.nobody"])
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    return made.SerializeToString()


def change_attributes(draw: random.Random, made: Any) -> bytes:
    """Attributes have other values, types and names."""
    some = [one for one in made.graph.node if one.attribute]
    attribute = draw.choice(draw.choice(some).attribute)
    kind = draw.randrange(4)
    if kind == 0:
        attribute.type = draw.randrange(15)
    elif kind == 1:
        attribute.name = draw.choice(["", "axis", "kernel_shape", "nothing", "auto_pad"])
    elif kind == 2:
        wild = [0, -1, -5, draw.choice(HUGE), -draw.choice(HUGE)]
        attribute.i = draw.choice(wild)
        attribute.ints[:] = [draw.choice(wild) for _ in range(draw.randrange(5))] if attribute.ints else []
        attribute.floats[:] = [float("nan"), float("inf"), 1e38][: draw.randrange(4)] if attribute.floats else []
    else:
        attribute.s = bytes(draw.randrange(256) for _ in range(draw.randrange(9)))
    return made.SerializeToString()


def change_tensors(draw: random.Random, made: Any) -> bytes:
    """Initializers say more, less or something else than they hold, or what no shape should be."""
    if not made.graph.initializer:
        return flip_bytes(draw, made)
    tensor = draw.choice(made.graph.initializer)
    kind = draw.randrange(5)
    if kind == 0:
        tensor.dims[:] = [draw.choice([*HUGE, -1, 0, 2]) for _ in range(draw.randrange(1, 5))]
    elif kind == 1:
        tensor.data_type = draw.choice([0, 1, 7, 8, 9, 11, 16, 22, 23, 99])
    elif kind == 2:
        tensor.name = draw.choice([made.graph.initializer[0].name, "", made.graph.input[0].name])
    elif kind == 3 and tensor.data_type == onnx.TensorProto.INT64:
        count = len(numpy_helper.to_array(tensor).reshape(-1))
        wild = [draw.choice([*HUGE, -1, -7, 0, 3]) for _ in range(count)]
        tensor.raw_data = np.array(wild, np.int64).tobytes()
    else:
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=draw.choice(["/etc/passwd", "../x", "/dev/zero"]))
    return made.SerializeToString()


def change_values(draw: random.Random, made: Any) -> bytes:
    """Inputs and outputs have other types, sizes and names."""
    value = draw.choice([*made.graph.input, *made.graph.output])
    kind = draw.randrange(5)
    if kind == 0:
        value.type.tensor_type.elem_type = draw.choice([0, 1, 7, 8, 9, 10, 16, 21, 99])
    elif kind == 1:
        value.name = draw.choice(["", "nothing", made.graph.node[0].output[0]])
    elif kind == 2:
        value.type.tensor_type.shape.dim.add().dim_value = draw.choice([*HUGE, -1, 0])
    elif kind == 3:
        value.type.sequence_type.elem_type.tensor_type.elem_type = 1
    else:
        value.type.Clear()
    return made.SerializeToString()


def change_the_frame(draw: random.Random, made: Any) -> bytes:
    """Versions, domains and functions are wrong; functions call themselves, or each other many times over."""
    kind = draw.randrange(5)
    if kind == 0:
        made.opset_import[0].version = draw.choice([0, 1, 6, 99, -1, (1 << 63) - 1])
    elif kind == 1:
        del made.opset_import[:]
    elif kind == 2:
        made.ir_version = draw.choice([0, 1, 99, -1, (1 << 63) - 1])
    elif kind == 3:
        made.graph.node[0].op_type, made.graph.node[0].domain = "again0", "own"
        made.opset_import.append(helper.make_opsetid("own", 1))
        last = draw.choice([0, 31])
        for at in range(32):
            calls = helper.make_node(f"again{at + 1 if at < 31 else last}", ["a"], ["b"], domain="own")
            twice = helper.make_node(calls.op_type, ["b"], ["c"], domain="own")
            imports = [helper.make_opsetid("own", 1)]
            made.functions.append(helper.make_function("own", f"again{at}", ["a"], ["c"], [calls, twice], imports))
    else:
        attribute = made.graph.node[0].attribute.add()
        attribute.name, attribute.type = "body", onnx.AttributeProto.GRAPH
        inner = attribute.g
        for _ in range(draw.choice((3, 30, 60))):
            deeper = inner.node.add()
            deeper.op_type = "If"
            inner = deeper.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH).g
    return made.SerializeToString()


MUTATIONS = [flip_bytes, cut, change_nodes, change_attributes, change_tensors, change_values, change_the_frame]


def outcome(tc: ModuleType, data: bytes, given: Any) -> str:
    """What comes of a file: an error of the house as it is loaded or run, or nothing wrong."""
    try:
        module = tc.onnx.load(data)
    except tc.TensorError as error:
        return "refused" if isinstance(error, (ValueError, RuntimeError)) and str(error) else "not said clearly"
    try:
        with tc.no_grad():
            made = module(given)
        for tensor in made.values() if isinstance(made, dict) else [made]:
            assert tensor.ndim >= 0  # waits for it
    except tc.TensorError:
        return "failed"
    return "ran"


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_mutated_file_ends_in_a_clear_error_or_runs(mutation: Any, tc: ModuleType) -> None:
    draw = random.Random(7)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = []
    for _ in range(8):
        for make, given in BASES.values():
            found.append(outcome(tc, mutation(draw, make()), given))
    assert "refused" in found
    assert "not said clearly" not in found
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 200 << 10
    # The session is as it was.
    assert (tc.ones(2) + 1).tolist() == [2, 2]


@pytest.mark.parametrize("name", BASES)
def test_the_files_themselves_run(name: str, tc: ModuleType) -> None:
    make, given = BASES[name]
    assert outcome(tc, make().SerializeToString(), given) == "ran"


def test_what_is_no_file_is_refused(tc: ModuleType) -> None:
    for data in (b"", b"\x00", b"not a model", b"\xff" * 1000, b"\x0a" * 1000, b"PK\x03\x04"):
        with pytest.raises(ValueError, match=r"onnx\.load: this is no model of ONNX"):
            tc.onnx.load(data)


def test_a_graph_may_be_long(tc: ModuleType) -> None:
    length = 2000
    nodes = [node("Neg", f"v{at}", f"v{at + 1}") for at in range(length)]
    made = model(nodes, {"v0": (np.float32, [2])}, [f"v{length}"])
    assert tc.onnx.load(made.SerializeToString())(tc.ones(2)).tolist() == [1, 1]
