"""ModelService: neurons, layers, perceptrons and kept networks, by anyone with gRPC. The oracle is torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import torch
from torch.nn import functional as F

from tensorcompute.v1 import model_service_pb2 as models_pb
from tensorcompute.v1 import tensor_pb2 as pb
from tests.support.raw import Raw, RawSession
from tests.support.refusals import refused
from tests.support.values import Kept, tensor_data, tensor_of

Code = grpc.StatusCode
INPUTS = torch.tensor([[0.5, -1.0, 2.0], [-3.0, 0.25, 1.0]])
WEIGHTS = torch.tensor([1.0, 2.0, -0.5])
BIAS = torch.tensor(0.25)


def by_value(tensor: torch.Tensor) -> models_pb.Operand:
    return models_pb.Operand(data=tensor_data(tensor))


def by_name(tensor: pb.Ref | Kept) -> models_pb.Operand:
    return models_pb.Operand(tensor=tensor.ref if isinstance(tensor, Kept) else tensor)


def output(answer: Any) -> torch.Tensor:
    return tensor_of(answer.output.data)


ACTIVATIONS: dict[str, tuple[Any, float | None, Any]] = {
    "unspecified": (models_pb.ACTIVATION_KIND_UNSPECIFIED, None, lambda x: x),
    "identity": (models_pb.ACTIVATION_KIND_IDENTITY, None, lambda x: x),
    "step": (models_pb.ACTIVATION_KIND_STEP, None, lambda x: (x >= 0).to(x.dtype)),
    "step at a threshold": (models_pb.ACTIVATION_KIND_STEP, 1.5, lambda x: (x >= 1.5).to(x.dtype)),
    "sign": (models_pb.ACTIVATION_KIND_SIGN, None, lambda x: torch.where(x >= 0, 1.0, -1.0)),
    "sigmoid": (models_pb.ACTIVATION_KIND_SIGMOID, None, torch.sigmoid),
    "tanh": (models_pb.ACTIVATION_KIND_TANH, None, torch.tanh),
    "relu": (models_pb.ACTIVATION_KIND_RELU, None, torch.relu),
    "leaky_relu": (models_pb.ACTIVATION_KIND_LEAKY_RELU, None, F.leaky_relu),
    "leaky_relu with a slope": (models_pb.ACTIVATION_KIND_LEAKY_RELU, 0.3, lambda x: F.leaky_relu(x, 0.3)),
    "leaky_relu with no slope": (models_pb.ACTIVATION_KIND_LEAKY_RELU, 0.0, lambda x: F.leaky_relu(x, 0.0)),
    "elu": (models_pb.ACTIVATION_KIND_ELU, None, F.elu),
    "elu with alpha": (models_pb.ACTIVATION_KIND_ELU, 2.0, lambda x: F.elu(x, 2.0)),
    "gelu": (models_pb.ACTIVATION_KIND_GELU, None, F.gelu),
    "silu": (models_pb.ACTIVATION_KIND_SILU, None, F.silu),
    "softplus": (models_pb.ACTIVATION_KIND_SOFTPLUS, None, F.softplus),
    "softmax": (models_pb.ACTIVATION_KIND_SOFTMAX, None, lambda x: torch.softmax(x, -1)),
}


def activation(name: str) -> models_pb.Activation:
    kind, parameter, _ = ACTIVATIONS[name]
    return models_pb.Activation(kind=kind, parameter=parameter)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_neuron_is_f_of_the_weighted_sum(caller: Raw, name: str) -> None:
    answer = caller.ask(
        "NeuronForward",
        inputs=by_value(INPUTS),
        weights=by_value(WEIGHTS),
        bias=by_value(BIAS),
        activation=activation(name),
    )
    expected = ACTIVATIONS[name][2](INPUTS @ WEIGHTS + BIAS)
    torch.testing.assert_close(output(answer), expected)


def test_a_neuron_of_one_vector_gives_a_scalar(caller: Raw) -> None:
    answer = caller.ask("NeuronForward", inputs=by_value(INPUTS[0]), weights=by_value(WEIGHTS))
    assert output(answer).shape == ()
    torch.testing.assert_close(output(answer), INPUTS[0] @ WEIGHTS)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_layer_is_f_of_the_weighted_sums(caller: Raw, name: str) -> None:
    torch.manual_seed(1)
    inputs, weight, bias = torch.randn(2, 5, 4), torch.randn(3, 4), torch.randn(3)
    answer = caller.ask(
        "LayerForward",
        inputs=by_value(inputs),
        weight=by_value(weight),
        bias=by_value(bias),
        activation=activation(name),
    )
    torch.testing.assert_close(output(answer), ACTIVATIONS[name][2](F.linear(inputs, weight, bias)))


def test_a_perceptron_tells_the_side_of_each_point(caller: Raw) -> None:
    points = torch.tensor([[1.0, 1.0], [-1.0, 0.0], [0.0, 0.0], [0.5, -0.5]])
    line, bias = torch.tensor([1.0, 1.0]), torch.tensor(-0.0)
    answer = caller.ask("PerceptronForward", inputs=by_value(points), weights=by_value(line), bias=by_value(bias))
    assert output(answer).tolist() == [1, -1, 1, 1]


def test_operands_may_be_tensors_of_the_session_and_the_output_may_stay_there(caller: Raw) -> None:
    inputs, weights = caller.create(data=tensor_data(INPUTS)), caller.create(data=tensor_data(WEIGHTS))
    held = caller.held()
    answer = caller.ask("NeuronForward", inputs=by_name(inputs.id), weights=by_name(weights.id), options={"keep": True})
    assert not answer.output.HasField("data")
    assert caller.held() == (held[0] + 1, held[1] + 8)
    torch.testing.assert_close(caller.get(answer.output.tensor.id), INPUTS @ WEIGHTS)
    both = caller.ask(
        "NeuronForward",
        inputs=by_name(inputs.id),
        weights=by_value(WEIGHTS),
        options={"keep": True, "return_data": True},
    )
    torch.testing.assert_close(output(both), INPUTS @ WEIGHTS)
    torch.testing.assert_close(caller.get(both.output.tensor.id), INPUTS @ WEIGHTS)


def test_an_output_that_is_not_kept_leaves_nothing(nothing_leaks: RawSession) -> None:
    answer = nothing_leaks.ask("NeuronForward", inputs=by_value(INPUTS), weights=by_value(WEIGHTS))
    assert not answer.output.tensor.HasField("id")


NAME = "kept-network.1"


@pytest.fixture
def name(anyone: Raw) -> Iterator[str]:
    """A name for a network that is let go at the end."""
    yield NAME
    if any(mlp.name == NAME for mlp in anyone.ask("ListMlps").mlps):
        anyone.ask("DeleteMlp", name=NAME)


def layers() -> tuple[list[models_pb.LayerSpec], list[torch.Tensor]]:
    torch.manual_seed(2)
    w1, b1, w2 = torch.randn(5, 3), torch.randn(5), torch.randn(2, 5)
    relu, softmax = activation("relu"), activation("softmax")
    specs = [
        models_pb.LayerSpec(in_features=3, out_features=5, activation=relu, weight=by_value(w1), bias=by_value(b1)),
        models_pb.LayerSpec(in_features=5, out_features=2, activation=softmax, weight=by_value(w2)),
    ]
    return specs, [w1, b1, w2]


def test_a_network_is_kept_described_run_listed_and_deleted(caller: Raw, name: str) -> None:
    specs, (w1, b1, w2) = layers()
    made = caller.ask("CreateMlp", name=name, layers=specs).mlp
    assert (made.name, made.parameters, made.parameter_bytes) == (name, 15 + 5 + 10, 4 * 30)
    assert (made.dtype, made.device) == (pb.D_TYPE_FLOAT32, "cpu")
    assert [(layer.in_features, layer.out_features, layer.has_bias, layer.parameters) for layer in made.layers] == [
        (3, 5, True, 20),
        (5, 2, False, 10),
    ]
    assert made.layers[1].activation.kind == models_pb.ACTIVATION_KIND_SOFTMAX
    assert caller.ask("DescribeMlp", name=name).mlp == made
    assert made in caller.ask("ListMlps").mlps
    answer = caller.ask("MlpForward", name=name, inputs=by_value(INPUTS))
    expected = torch.softmax(F.linear(torch.relu(F.linear(INPUTS, w1, b1)), w2), -1)
    torch.testing.assert_close(output(answer), expected)
    caller.ask("DeleteMlp", name=name)
    assert made not in caller.ask("ListMlps").mlps
    gone: dict[str, dict[str, Any]] = {"DescribeMlp": {}, "DeleteMlp": {}, "MlpForward": {"inputs": by_value(INPUTS)}}
    for method, fields in gone.items():
        with refused(Code.NOT_FOUND, naming=name):
            caller.ask(method, name=name, **fields)


def test_a_network_is_shared_by_all_sessions(session: RawSession, other: RawSession, name: str) -> None:
    session.ask("CreateMlp", name=name, layers=layers()[0])
    there = other.ask("MlpForward", name=name, inputs=by_value(INPUTS))
    session.ask("CloseSession", session=session.secret)
    again = other.ask("MlpForward", name=name, inputs=by_value(INPUTS))
    torch.testing.assert_close(output(there), output(again))


def test_weights_are_copied(session: RawSession, name: str) -> None:
    w = session.create(data=tensor_data(torch.ones(2, 3)))
    spec = models_pb.LayerSpec(in_features=3, out_features=2, weight=by_name(w.id))
    session.ask("CreateMlp", name=name, layers=[spec])
    before = output(session.ask("MlpForward", name=name, inputs=by_value(INPUTS)))
    session.run(session.call(0, "Tensor.zero_", pb.Value(ref=w.id))).clean()
    session.ask("FreeTensors", tensors=[w.id])
    after = output(session.ask("MlpForward", name=name, inputs=by_value(INPUTS)))
    torch.testing.assert_close(after, before)
    torch.testing.assert_close(after, INPUTS @ torch.ones(3, 2))


def test_a_network_without_weights_draws_them_as_torch_does(caller: Raw, name: str) -> None:
    spec = models_pb.LayerSpec(in_features=100, out_features=50)
    made = caller.ask("CreateMlp", name=name, layers=[spec], dtype=pb.D_TYPE_FLOAT64).mlp
    assert (made.parameters, made.dtype, made.layers[0].has_bias) == (5050, pb.D_TYPE_FLOAT64, True)
    unit = output(caller.ask("MlpForward", name=name, inputs=by_value(torch.eye(100, dtype=torch.float64))))
    zero = output(caller.ask("MlpForward", name=name, inputs=by_value(torch.zeros(100, dtype=torch.float64))))
    bound = 1 / math.sqrt(100)
    assert zero.abs().max() <= bound
    assert (unit - zero).abs().max() <= bound * (1 + 1e-12)
    assert zero.std() > bound / 3
    assert (unit - zero).std() > bound / 3


def test_a_name_that_is_taken_is_refused_and_the_network_stays(caller: Raw, name: str) -> None:
    caller.ask("CreateMlp", name=name, layers=layers()[0])
    with refused(Code.ALREADY_EXISTS, naming=name):
        caller.ask("CreateMlp", name=name, layers=[models_pb.LayerSpec(in_features=1, out_features=1)])
    assert caller.ask("DescribeMlp", name=name).mlp.parameters == 30


def test_networks_are_listed_in_the_order_of_their_names(anyone: Raw) -> None:
    spec = models_pb.LayerSpec(in_features=1, out_features=1)
    for name in ("order-b", "order-C", "order-a"):
        anyone.ask("CreateMlp", name=name, layers=[spec])
    names = [mlp.name for mlp in anyone.ask("ListMlps").mlps]
    for name in ("order-b", "order-C", "order-a"):
        anyone.ask("DeleteMlp", name=name)
    assert names == sorted(names)
    assert len(names) >= 3


def spec(rows: int, columns: int, **fields: Any) -> models_pb.LayerSpec:
    return models_pb.LayerSpec(in_features=columns, out_features=rows, **fields)


BAD_NETWORKS: dict[str, tuple[str, list[models_pb.LayerSpec], tuple[grpc.StatusCode, ...], str]] = {
    "no layers": (NAME, [], (Code.INVALID_ARGUMENT,), "layer"),
    "no name": ("", [spec(1, 1)], (Code.INVALID_ARGUMENT,), "name"),
    "a name with a path": ("../etc/passwd", [spec(1, 1)], (Code.INVALID_ARGUMENT,), "../etc/passwd"),
    "a name that begins with a dot": (".hidden", [spec(1, 1)], (Code.INVALID_ARGUMENT,), ".hidden"),
    "a name with a null": ("a\0b", [spec(1, 1)], (Code.INVALID_ARGUMENT,), "name"),
    "a name with a new line behind it": ("abc\n", [spec(1, 1)], (Code.INVALID_ARGUMENT,), "name"),
    "a name that is too long": ("n" * 129, [spec(1, 1)], (Code.INVALID_ARGUMENT,), "nnn"),
    "a layer of no inputs": (NAME, [spec(1, 0)], (Code.INVALID_ARGUMENT,), "in_features 0"),
    "a layer of no neurons": (NAME, [spec(0, 1)], (Code.INVALID_ARGUMENT,), "out_features 0"),
    "layers that do not fit each other": (NAME, [spec(4, 3), spec(2, 5)], (Code.INVALID_ARGUMENT,), "5"),
    "a weight of another shape": (NAME, [spec(4, 3, weight=by_value(torch.ones(3, 4)))], (Code.INVALID_ARGUMENT,), "4"),
    "a bias of another shape": (
        NAME,
        [spec(4, 3, weight=by_value(torch.ones(4, 3)), bias=by_value(torch.ones(5)))],
        (Code.INVALID_ARGUMENT,),
        "5",
    ),
    "a weight that is not there": (NAME, [spec(4, 3, weight=by_name(pb.Ref(id=987)))], (Code.NOT_FOUND,), "987"),
    "more neurons than memory": (
        NAME,
        [spec(2**40, 2**20)],
        (Code.RESOURCE_EXHAUSTED, Code.INVALID_ARGUMENT),
        "",
    ),
    "more neurons than numbers": (
        NAME,
        [spec(2**64 - 1, 2**64 - 1)],
        (Code.RESOURCE_EXHAUSTED, Code.INVALID_ARGUMENT),
        "",
    ),
}


@pytest.mark.parametrize(("name", "specs", "codes", "naming"), BAD_NETWORKS.values(), ids=BAD_NETWORKS)
def test_a_network_that_cannot_be_is_refused(
    nothing_leaks: RawSession,
    name: str,
    specs: list[models_pb.LayerSpec],
    codes: tuple[grpc.StatusCode, ...],
    naming: str,
) -> None:
    before = nothing_leaks.ask("ListMlps")
    with refused(*codes, naming=naming):
        nothing_leaks.ask("CreateMlp", name=name, layers=specs)
    assert nothing_leaks.ask("ListMlps") == before


def test_a_network_of_an_unknown_activation_is_refused(nothing_leaks: RawSession) -> None:
    odd = spec(1, 1)
    odd.activation.kind = 99  # type: ignore[assignment]
    with refused(Code.INVALID_ARGUMENT, naming="99"):
        nothing_leaks.ask("CreateMlp", name=NAME, layers=[odd])


def test_a_network_of_an_integer_dtype_is_refused(nothing_leaks: RawSession) -> None:
    with refused(Code.INVALID_ARGUMENT, naming="int32"):
        nothing_leaks.ask("CreateMlp", name=NAME, layers=[spec(1, 1)], dtype=pb.D_TYPE_INT32)


BAD_FORWARDS: dict[str, tuple[str, dict[str, Any], tuple[grpc.StatusCode, ...], str]] = {
    "a neuron without inputs": ("NeuronForward", {"weights": by_value(WEIGHTS)}, (Code.INVALID_ARGUMENT,), "inputs"),
    "a neuron without weights": ("NeuronForward", {"inputs": by_value(INPUTS)}, (Code.INVALID_ARGUMENT,), "weights"),
    "a neuron of another length": (
        "NeuronForward",
        {"inputs": by_value(INPUTS), "weights": by_value(torch.ones(4))},
        (Code.INVALID_ARGUMENT,),
        "4",
    ),
    "a neuron of an unknown tensor": (
        "NeuronForward",
        {"inputs": by_name(pb.Ref(id=987)), "weights": by_value(WEIGHTS)},
        (Code.NOT_FOUND,),
        "987",
    ),
    "a layer of another length": (
        "LayerForward",
        {"inputs": by_value(INPUTS), "weight": by_value(torch.ones(2, 4))},
        (Code.INVALID_ARGUMENT,),
        "4",
    ),
    "a layer whose weight is a vector": (
        "LayerForward",
        {"inputs": by_value(INPUTS), "weight": by_value(torch.ones(4))},
        (Code.INVALID_ARGUMENT,),
        "",
    ),
    "a perceptron of another length": (
        "PerceptronForward",
        {"inputs": by_value(INPUTS), "weights": by_value(torch.ones(9))},
        (Code.INVALID_ARGUMENT,),
        "9",
    ),
    "data shorter than its shape": (
        "PerceptronForward",
        {"inputs": {"data": {"dtype": 1, "shape": [3], "data": b"1"}}, "weights": by_value(WEIGHTS)},
        (Code.INVALID_ARGUMENT,),
        "12",
    ),
    "a network that is not there": (
        "MlpForward",
        {"name": "nobody", "inputs": by_value(INPUTS)},
        (Code.NOT_FOUND,),
        "nobody",
    ),
}


@pytest.mark.parametrize(("method", "fields", "codes", "naming"), BAD_FORWARDS.values(), ids=BAD_FORWARDS)
def test_a_forward_pass_that_does_not_fit_is_refused_and_leaves_nothing(
    nothing_leaks: RawSession,
    method: str,
    fields: dict[str, Any],
    codes: tuple[grpc.StatusCode, ...],
    naming: str,
) -> None:
    with refused(*codes, naming=naming):
        nothing_leaks.ask(method, **fields, options={"keep": True})
