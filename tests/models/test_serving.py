"""Kept networks on a real server: what they compute, alone and together with others. The oracle is torch.

Outputs of a batch are those of a run alone within torch.testing's tolerances for the dtype (float32: 1.3e-6 relative,
1e-5 absolute): a product of many rows may add its terms in another order than one of a single row.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tensorcompute.v1 import model_service_pb2 as ms
from tensorcompute.v1 import tensor_pb2 as pb
from tests.models.networks import by_value, create, forward, linear_of, relu_mlp, statistics
from tests.support.raw import Raw, RawSession
from tests.support.refusals import parse, refused
from tests.support.serving import HasAddress, wait_until
from tests.support.values import tensor_data, tensor_of

Code = grpc.StatusCode
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
# Longer than any test: requests are held back until the settings change or a batch is full.
HELD = 60_000_000

ACTIVATIONS: dict[str, tuple[ms.ActivationKind, Callable[[torch.Tensor], torch.Tensor]]] = {
    "identity": (ms.ACTIVATION_KIND_IDENTITY, lambda x: x),
    "step": (ms.ACTIVATION_KIND_STEP, lambda x: (x >= 0).to(x.dtype)),
    "sign": (ms.ACTIVATION_KIND_SIGN, lambda x: (x >= 0).to(x.dtype) * 2 - 1),
    "sigmoid": (ms.ACTIVATION_KIND_SIGMOID, torch.sigmoid),
    "tanh": (ms.ACTIVATION_KIND_TANH, torch.tanh),
    "relu": (ms.ACTIVATION_KIND_RELU, torch.relu),
    "leaky_relu": (ms.ACTIVATION_KIND_LEAKY_RELU, F.leaky_relu),
    "elu": (ms.ACTIVATION_KIND_ELU, F.elu),
    "gelu": (ms.ACTIVATION_KIND_GELU, F.gelu),
    "silu": (ms.ACTIVATION_KIND_SILU, F.silu),
    "softplus": (ms.ACTIVATION_KIND_SOFTPLUS, F.softplus),
    "softmax": (ms.ACTIVATION_KIND_SOFTMAX, lambda x: torch.softmax(x, -1)),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_runs_in_every_dtype(anyone: Raw, name: str, activation: str, dtype: torch.dtype) -> None:
    kind, function = ACTIVATIONS[activation]
    torch.manual_seed(1)
    weight, bias, rows = torch.randn(5, 4).to(dtype), torch.randn(5).to(dtype), torch.randn(3, 4).to(dtype)
    spec = ms.LayerSpec(in_features=4, out_features=5, weight=by_value(weight), bias=by_value(bias))
    spec.activation.kind = kind
    anyone.ask("CreateMlp", name=name, layers=[spec], dtype=tensor_data(weight).dtype)
    torch.testing.assert_close(forward(anyone, name, rows), function(F.linear(rows, weight, bias)))
    layer: dict[str, Any] = {"weight": spec.weight, "bias": spec.bias, "activation": spec.activation}
    answer = anyone.ask("LayerForward", inputs=by_value(rows), **layer)
    torch.testing.assert_close(tensor_of(answer.output.data), function(F.linear(rows, weight, bias)))


@pytest.mark.parametrize("shape", [(6,), (1, 6), (5, 6), (2, 3, 4, 6)], ids=str)
def test_inputs_of_any_shape_keep_all_dimensions_but_the_last(
    anyone: Raw, session: RawSession, name: str, shape: tuple[int, ...]
) -> None:
    network = relu_mlp([6, 8, 3])
    create(anyone, name, network)
    rows = torch.randn(shape)
    torch.testing.assert_close(forward(anyone, name, rows), network(rows))
    here = session.create(data=tensor_data(rows))
    answer = session.ask("MlpForward", name=name, inputs={"tensor": here.id}, options={"keep": True})
    assert not answer.output.HasField("data")
    torch.testing.assert_close(session.get(answer.output.tensor.id), network(rows))
    alone = session.ask("MlpForward", name=name, inputs={"tensor": here.id}, seq=1)
    torch.testing.assert_close(tensor_of(alone.output.data), network(rows))


def test_outputs_by_value_may_have_what_a_message_to_the_server_has(session: RawSession, name: str) -> None:
    network = relu_mlp([4, 2000])
    create(session, name, network)
    for count in (132, 520):
        rows = torch.randn(count, 4)
        torch.testing.assert_close(forward(session, name, rows), network(rows))
        here = session.create(data=tensor_data(rows))
        of_tensor = session.ask("MlpForward", name=name, inputs={"tensor": here.id})
        torch.testing.assert_close(tensor_of(of_tensor.output.data), network(rows))


def downloaded(session: RawSession, kept: pb.TensorMeta) -> torch.Tensor:
    """The elements of a float32 tensor that is too large for a message."""
    elements = b"".join([part.chunk for part in session.download(kept.id)])
    return torch.frombuffer(bytearray(elements), dtype=torch.float32)


TOO_LARGE_OPTIONS: dict[str, dict[str, Any]] = {
    "by value": {},
    "kept too": {"options": {"keep": True, "return_data": True}},
    "numbered": {"seq": 1},
    "numbered and kept": {"seq": 1, "options": {"keep": True, "return_data": True}},
}


@pytest.mark.parametrize("fields", TOO_LARGE_OPTIONS.values(), ids=TOO_LARGE_OPTIONS)
@pytest.mark.parametrize("is_here", [False, True], ids=["an array", "a tensor"])
def test_outputs_that_no_message_has_are_refused_with_the_remedy_and_not_to_be_asked_for_again(
    session: RawSession, name: str, fields: dict[str, Any], is_here: bool
) -> None:
    network = relu_mlp([4, 2000])
    create(session, name, network)
    rows = torch.randn(525, 4)
    inputs: Any = {"tensor": session.create(data=tensor_data(rows)).id} if is_here else by_value(rows)
    before = session.held()
    with refused(Code.RESOURCE_EXHAUSTED, reason="TOO_LARGE_FOR_A_MESSAGE", naming="Download") as told:
        session.ask("MlpForward", name=name, inputs=inputs, **fields)
    assert told.retry_after_s is None
    assert session.held() == before
    # What is numbered is run in its place, and looked at then.
    assert statistics(session, name).execution_count == int("seq" in fields)
    kept = session.ask("MlpForward", name=name, inputs=inputs, options={"keep": True}).output.tensor
    torch.testing.assert_close(downloaded(session, kept).reshape(525, 2000), network(rows))


def test_a_layer_returns_what_a_message_has_and_refuses_more_with_the_remedy(session: RawSession) -> None:
    inputs, weight = torch.randn(400, 3), torch.randn(2700, 3)
    layer: dict[str, Any] = {"weight": by_value(weight)}
    for keep in (False, True):
        options = {"keep": keep, "return_data": True}
        answer = session.ask("LayerForward", inputs=by_value(inputs[:380]), options=options, **layer)
        torch.testing.assert_close(tensor_of(answer.output.data), F.linear(inputs[:380], weight))
        before = session.held()
        with refused(Code.RESOURCE_EXHAUSTED, reason="TOO_LARGE_FOR_A_MESSAGE", naming="Download") as told:
            session.ask("LayerForward", inputs=by_value(inputs), options=options, **layer)
        assert told.retry_after_s is None
        assert session.held() == before
    kept = session.ask("LayerForward", inputs=by_value(inputs), options={"keep": True}, **layer).output.tensor
    torch.testing.assert_close(downloaded(session, kept).reshape(400, 2700), F.linear(inputs, weight))


def test_inputs_by_value_can_be_kept(session: RawSession, name: str) -> None:
    network = relu_mlp([6, 3])
    create(session, name, network)
    rows = torch.randn(2, 6)
    options = {"keep": True, "return_data": True}
    answer = session.ask("MlpForward", name=name, inputs=by_value(rows), options=options)
    torch.testing.assert_close(tensor_of(answer.output.data), network(rows))
    torch.testing.assert_close(session.get(answer.output.tensor.id), network(rows))


def test_a_tensor_is_read_in_its_place_among_the_calls(session: RawSession, name: str) -> None:
    create(session, name, relu_mlp([2, 1]), batching={"max_queue_delay_us": HELD})
    here = session.create(data=tensor_data(torch.ones(1, 2)))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(session.ask, "MlpForward", name=name, inputs={"tensor": here.id})
        wait_until(lambda: statistics(session, name).waiting == 1, 10.0, "the request waits")
        session.ask("Add", input=here.id, scalar={"number": 5.0}, in_place=True)
        session.ask("UpdateMlp", name=name)
        answer = waiting.result(20.0)
    torch.testing.assert_close(tensor_of(answer.output.data), relu_mlp([2, 1])(torch.ones(1, 2)))


def test_a_description_counts_and_prints_as_torch_does(anyone: Raw, name: str) -> None:
    network = relu_mlp([784, 256, 128, 10])
    made = create(anyone, name, network)
    assert made.text == str(network)
    assert made.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert made.parameter_bytes == 4 * made.parameters
    assert made.flops_per_row == 2 * (784 * 256 + 256 * 128 + 128 * 10) + 256 + 128 + 10
    assert (made.version, made.state, made.non_finite_parameters) == (1, ms.MLP_STATE_READY, 0)
    assert not made.is_persistent
    assert made.batching.max_batch_size == 1024


PRINTED: dict[str, tuple[ms.Activation, nn.Module]] = {
    "sigmoid": (ms.Activation(kind=ms.ACTIVATION_KIND_SIGMOID), nn.Sigmoid()),
    "tanh": (ms.Activation(kind=ms.ACTIVATION_KIND_TANH), nn.Tanh()),
    "leaky_relu": (ms.Activation(kind=ms.ACTIVATION_KIND_LEAKY_RELU), nn.LeakyReLU()),
    "leaky_relu of 0.2": (ms.Activation(kind=ms.ACTIVATION_KIND_LEAKY_RELU, parameter=0.2), nn.LeakyReLU(0.2)),
    "elu": (ms.Activation(kind=ms.ACTIVATION_KIND_ELU), nn.ELU()),
    "gelu": (ms.Activation(kind=ms.ACTIVATION_KIND_GELU), nn.GELU()),
    "silu": (ms.Activation(kind=ms.ACTIVATION_KIND_SILU), nn.SiLU()),
    "softplus": (ms.Activation(kind=ms.ACTIVATION_KIND_SOFTPLUS), nn.Softplus()),
    "softmax": (ms.Activation(kind=ms.ACTIVATION_KIND_SOFTMAX), nn.Softmax(dim=-1)),
}


@pytest.mark.parametrize(("activation", "module"), PRINTED.values(), ids=PRINTED)
def test_activations_print_as_torch_prints_them(
    anyone: Raw, name: str, activation: ms.Activation, module: nn.Module
) -> None:
    spec = ms.LayerSpec(in_features=2, out_features=3, activation=activation)
    made = anyone.ask("CreateMlp", name=name, layers=[spec]).mlp
    assert made.text == str(nn.Sequential(nn.Linear(2, 3), module))


def test_weights_that_are_no_numbers_are_served_and_reported(anyone: Raw, name: str) -> None:
    network = relu_mlp([3, 2])
    linear_of(network).weight[0, 1] = float("nan")
    linear_of(network).bias[1] = float("inf")
    assert create(anyone, name, network).non_finite_parameters == 2
    rows = torch.ones(1, 3)
    torch.testing.assert_close(forward(anyone, name, rows), network(rows), equal_nan=True)


BAD_INPUTS: dict[str, tuple[Any, grpc.StatusCode, str]] = {
    "too narrow": (by_value(torch.ones(2, 3)), Code.INVALID_ARGUMENT, "must be 4"),
    "too wide": (by_value(torch.ones(5)), Code.INVALID_ARGUMENT, "must be 4"),
    "a number": (by_value(torch.tensor(1.0)), Code.INVALID_ARGUMENT, "must be 4"),
    "another dtype": (by_value(torch.ones(2, 4, dtype=torch.float64)), Code.INVALID_ARGUMENT, "float64"),
    "integers": (by_value(torch.ones(2, 4, dtype=torch.int64)), Code.INVALID_ARGUMENT, "int64"),
    "no rows": (by_value(torch.ones(0, 4)), Code.INVALID_ARGUMENT, "no rows"),
    "no rows in the middle": (by_value(torch.ones(2, 0, 4)), Code.INVALID_ARGUMENT, "no rows"),
    "fewer bytes than the shape": (
        {"data": {"dtype": 1, "shape": [1, 4], "data": b"123"}},
        Code.INVALID_ARGUMENT,
        "16",
    ),
    "a negative size": ({"data": {"dtype": 1, "shape": [-1, -1, 4], "data": bytes(16)}}, Code.INVALID_ARGUMENT, "-1"),
    "a shape beyond all numbers": (
        {"data": {"dtype": 1, "shape": [1 << 62] * 60 + [4], "data": bytes(16)}},
        Code.INVALID_ARGUMENT,
        "needs",
    ),
    "a dtype nobody knows": ({"data": {"dtype": 77, "shape": [4], "data": bytes(16)}}, Code.INVALID_ARGUMENT, "77"),
    "nothing": ({}, Code.INVALID_ARGUMENT, "empty"),
    "more than a message carries": (by_value(torch.ones(70_000, 4)), Code.INVALID_ARGUMENT, "1120000"),
    "a tensor that is not there": ({"tensor": pb.Ref(id=987)}, Code.NOT_FOUND, "987"),
    "a tensor without a name": ({"tensor": pb.Ref()}, Code.INVALID_ARGUMENT, "not named"),
}


@pytest.mark.parametrize(("inputs", "code", "naming"), BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_inputs_that_do_not_fit_are_refused_and_the_network_serves_on(
    anyone: Raw, name: str, inputs: Any, code: grpc.StatusCode, naming: str
) -> None:
    network = relu_mlp([4, 2])
    create(anyone, name, network)
    with refused(code, naming=naming):
        anyone.ask("MlpForward", name=name, inputs=inputs)
    torch.testing.assert_close(forward(anyone, name, torch.ones(1, 4)), network(torch.ones(1, 4)))


@pytest.mark.parametrize("method", ["NeuronForward", "PerceptronForward", "LayerForward"])
def test_no_forward_pass_takes_inputs_without_rows(anyone: Raw, method: str) -> None:
    weights: dict[str, Any] = (
        {"weight": by_value(torch.ones(2, 3))} if method == "LayerForward" else {"weights": by_value(torch.ones(3))}
    )
    with refused(Code.INVALID_ARGUMENT, naming="no rows"):
        anyone.ask(method, inputs=by_value(torch.ones(0, 3)), **weights)


# ---- batching ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_outputs_are_the_same_alone_and_in_a_batch(
    server: HasAddress, anyone: Raw, name: str, dtype: torch.dtype
) -> None:
    network = relu_mlp([32, 64, 10], dtype)
    create(anyone, name, network, batching={"max_batch_size": 24, "max_queue_delay_us": HELD})
    rows = torch.randn(24, 32).to(dtype)
    with ThreadPoolExecutor(24) as pool:
        together = list(pool.map(lambda row: forward(anyone, name, row), rows))
    assert [(batch.batch_size, batch.compute_infer.count) for batch in statistics(anyone, name).batches] == [(24, 1)]
    anyone.ask("UpdateMlp", name=name, batching={"max_batch_size": 1})
    alone = [forward(anyone, name, row) for row in rows]
    torch.testing.assert_close(torch.stack(together), torch.stack(alone))
    torch.testing.assert_close(torch.stack(together), network(rows))
    told = statistics(anyone, name)
    assert (told.inference_count, told.execution_count, told.success.count) == (48, 25, 48)
    assert told.queue.count == told.compute_input.count == told.compute_infer.count == told.compute_output.count == 48


def test_requests_of_different_sizes_and_kinds_share_a_batch(session: RawSession, name: str) -> None:
    network = relu_mlp([4, 3])
    create(session, name, network, batching={"max_batch_size": 8, "max_queue_delay_us": HELD})
    rows = torch.randn(8, 4)
    kept = session.create(data=tensor_data(rows[1:3]))
    asked: list[dict[str, Any]] = [
        {"inputs": by_value(rows[0])},
        {"inputs": {"tensor": kept.id}},
        {"inputs": by_value(rows[3:6])},
        {"inputs": by_value(rows[6:]), "options": {"keep": True}},
    ]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda fields: session.ask("MlpForward", name=name, **fields), asked))
    assert statistics(session, name).execution_count == 1
    torch.testing.assert_close(tensor_of(answers[0].output.data), network(rows[0]))
    torch.testing.assert_close(tensor_of(answers[1].output.data), network(rows[1:3]))
    torch.testing.assert_close(tensor_of(answers[2].output.data), network(rows[3:6]))
    torch.testing.assert_close(session.get(answers[3].output.tensor.id), network(rows[6:]))


def test_a_row_that_does_not_fit_fails_alone(anyone: Raw, name: str) -> None:
    network = relu_mlp([4, 3])
    create(anyone, name, network, batching={"max_batch_size": 2, "max_queue_delay_us": HELD})
    with ThreadPoolExecutor(3) as pool:
        good = [pool.submit(forward, anyone, name, torch.full((1, 4), 1.0))]
        wait_until(lambda: statistics(anyone, name).waiting == 1, 10.0, "a request waits")
        with refused(Code.INVALID_ARGUMENT, naming="must be 4"):
            forward(anyone, name, torch.ones(1, 5))
        good.append(pool.submit(forward, anyone, name, torch.full((1, 4), float("nan"))))
        outputs = [waiting.result(20.0) for waiting in good]
    torch.testing.assert_close(outputs[0], network(torch.ones(1, 4)))
    assert outputs[1].isnan().all()


def test_preferred_sizes_are_run_as_soon_as_they_are_there(anyone: Raw, name: str) -> None:
    batching = {"max_batch_size": 64, "preferred_batch_size": [4], "max_queue_delay_us": HELD}
    create(anyone, name, relu_mlp([4, 3]), batching=batching)
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda _: forward(anyone, name, torch.ones(1, 4)), range(12)))
    assert [(batch.batch_size, batch.compute_infer.count) for batch in statistics(anyone, name).batches] == [(4, 3)]


def test_a_request_with_more_rows_than_a_batch_runs_alone(anyone: Raw, session: RawSession, name: str) -> None:
    network = relu_mlp([4, 3])
    create(anyone, name, network, batching={"max_batch_size": 8})
    rows = torch.randn(100, 4)
    torch.testing.assert_close(forward(anyone, name, rows), network(rows))
    here = session.create(data=tensor_data(rows))
    answer = session.ask("MlpForward", name=name, inputs={"tensor": here.id})
    torch.testing.assert_close(tensor_of(answer.output.data), network(rows))
    assert [batch.batch_size for batch in statistics(anyone, name).batches] == [100]


def test_a_deadline_is_honoured_in_the_queue_and_nothing_is_run(anyone: Raw, name: str) -> None:
    create(anyone, name, relu_mlp([4, 3]), batching={"max_queue_delay_us": HELD})
    with pytest.raises(grpc.RpcError) as told:
        anyone.ask("MlpForward", name=name, inputs=by_value(torch.ones(1, 4)), timeout_s=0.2)
    assert isinstance(told.value, grpc.Call)
    assert told.value.code() == Code.DEADLINE_EXCEEDED
    wait_until(lambda: statistics(anyone, name).waiting == 0, 10.0, "the request has left the queue")
    after = statistics(anyone, name)
    assert (after.execution_count, after.timed_out + after.cancelled) == (0, 1)


def test_a_time_allowed_in_the_queue_is_honoured(anyone: Raw, name: str) -> None:
    batching = {"max_queue_delay_us": HELD, "default_queue_policy": {"allow_timeout_override": True}}
    create(anyone, name, relu_mlp([4, 3]), batching=batching)
    with refused(Code.DEADLINE_EXCEEDED, reason="QUEUE_TIMEOUT", naming="queue"):
        forward(anyone, name, torch.ones(1, 4), timeout_us=50_000)
    after = statistics(anyone, name)
    assert (after.execution_count, after.timed_out, after.fail.count) == (0, 1, 1)


def test_a_cancelled_request_leaves_the_queue(anyone: Raw, name: str) -> None:
    create(anyone, name, relu_mlp([4, 3]), batching={"max_queue_delay_us": HELD})
    multi = anyone.channel.unary_unary("/tensorcompute.v1.ModelService/MlpForward")
    request = anyone.request("MlpForward", name=name, inputs=by_value(torch.ones(1, 4)))
    call = multi.future(request.SerializeToString())
    wait_until(lambda: statistics(anyone, name).waiting == 1, 10.0, "the request waits")
    call.cancel()
    wait_until(lambda: statistics(anyone, name).waiting == 0, 10.0, "the request has left the queue")
    after = statistics(anyone, name)
    assert (after.execution_count, after.cancelled) == (0, 1)


def test_a_full_queue_refuses_and_says_when_to_retry(anyone: Raw, name: str) -> None:
    batching = {"max_queue_delay_us": HELD, "default_queue_policy": {"max_queue_size": 2}}
    create(anyone, name, relu_mlp([4, 3]), batching=batching)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(forward, anyone, name, torch.ones(1, 4)) for _ in range(2)]
        wait_until(lambda: statistics(anyone, name).waiting == 2, 10.0, "two requests wait")
        with refused(Code.RESOURCE_EXHAUSTED, reason="QUEUE_FULL", naming="2 requests") as told:
            forward(anyone, name, torch.ones(1, 4))
        assert told.retry_after_s is not None
        assert told.retry_after_s > 0
        anyone.ask("UpdateMlp", name=name)
        for request in waiting:
            assert request.result(20.0).shape == (1, 3)
    assert statistics(anyone, name).rejected == 1


def test_settings_that_contradict_each_other_are_refused_and_change_nothing(anyone: Raw, name: str) -> None:
    made = create(anyone, name, relu_mlp([4, 3]))
    with refused(Code.INVALID_ARGUMENT, naming="max_batch_size"):
        anyone.ask("UpdateMlp", name=name, batching={"max_batch_size": 0})
    assert anyone.ask("DescribeMlp", name=name).mlp == made


# ---- versions ------------------------------------------------------------------------------------------------------


def constant(value: float) -> nn.Sequential:
    """A network of four inputs that gives their sum times a value, exactly."""
    network = relu_mlp([4, 2])
    linear_of(network).weight.fill_(value)
    linear_of(network).bias.zero_()
    return network


def test_the_latest_version_serves_unless_one_is_pinned(anyone: Raw, name: str) -> None:
    for version in (1, 7, 3):
        create(anyone, name, constant(version), version=version)
    listed = [mlp.version for mlp in anyone.ask("ListMlps").mlps if mlp.name == name]
    assert listed == [1, 3, 7]
    one = torch.full((4,), 0.25)
    assert forward(anyone, name, one).tolist() == [7, 7]
    assert forward(anyone, name, one, version=3).tolist() == [3, 3]
    anyone.ask("UnloadMlp", name=name, version=7)
    assert anyone.ask("MlpForward", name=name, inputs=by_value(one)).version == 3
    with refused(Code.FAILED_PRECONDITION, reason="MODEL_NOT_READY", naming="version 7"):
        forward(anyone, name, one, version=7)
    anyone.ask("LoadMlp", name=name, version=7)
    assert forward(anyone, name, one).tolist() == [7, 7]
    anyone.ask("DeleteMlp", name=name, version=7)
    assert forward(anyone, name, one).tolist() == [3, 3]
    with refused(Code.NOT_FOUND, naming="it has 1, 3"):
        forward(anyone, name, one, version=7)


def test_a_version_that_is_taken_is_refused(anyone: Raw, name: str) -> None:
    create(anyone, name, constant(1), version=2)
    with refused(Code.ALREADY_EXISTS, naming="version 2"):
        create(anyone, name, constant(1), version=2)
    with refused(Code.ALREADY_EXISTS, naming="version 3"):
        create(anyone, name, constant(1))
    with refused(Code.INVALID_ARGUMENT, naming=str(2**32 - 1)):
        create(anyone, name, constant(1), version=2**32 - 1)


def test_unloading_runs_the_requests_that_wait(anyone: Raw, name: str) -> None:
    create(anyone, name, constant(1), batching={"max_queue_delay_us": 300_000})
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(forward, anyone, name, torch.ones(4))
        wait_until(lambda: statistics(anyone, name).waiting == 1, 10.0, "the request waits")
        anyone.ask("UnloadMlp", name=name)
        assert waiting.result(20.0).tolist() == [4, 4]
    assert anyone.ask("DescribeMlp", name=name).mlp.state == ms.MLP_STATE_UNAVAILABLE


@pytest.mark.parametrize("change", ["UnloadMlp", "DeleteMlp"])
def test_requests_that_are_held_back_are_run_at_once_when_nobody_can_join_them(
    anyone: Raw, name: str, change: str
) -> None:
    network = relu_mlp([4, 3])
    create(anyone, name, network, batching={"max_queue_delay_us": HELD})
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(forward, anyone, name, torch.ones(1, 4))
        wait_until(lambda: statistics(anyone, name).waiting == 1, 10.0, "a request waits")
        anyone.ask(change, name=name)
        torch.testing.assert_close(waiting.result(20.0), network(torch.ones(1, 4)))


def test_versions_change_under_load_without_a_failed_or_a_mixed_answer(
    server: HasAddress, anyone: Raw, name: str
) -> None:
    create(anyone, name, constant(1))
    stop = threading.Event()
    seen: list[set[int]] = [set() for _ in range(8)]
    wrong: list[str] = []

    def ask(index: int) -> None:
        with Raw(server.address) as raw:
            while not stop.is_set():
                try:
                    answer = raw.ask("MlpForward", name=name, inputs=by_value(torch.ones(3, 4)))
                except grpc.RpcError as error:
                    wrong.append(str(parse(error)))
                    return
                rows = tensor_of(answer.output.data)
                if not bool((rows == 4 * answer.version).all()):
                    wrong.append(f"version {answer.version} answered {rows}")
                seen[index].add(answer.version)

    def all_saw(version: int) -> bool:
        return bool(wrong) or all(version in each for each in seen)

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    try:
        for version in range(2, 8):
            create(anyone, name, constant(version), version=version)
            wait_until(partial(all_saw, version), 20.0, f"version {version} answers")
            anyone.ask("LoadMlp", name=name, version=version)
            anyone.ask("UnloadMlp", name=name, version=version - 1)
            anyone.ask("DeleteMlp", name=name, version=version - 1)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []
