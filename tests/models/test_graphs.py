"""Forward passes on CUDA as captured graphs. All but the choice of sizes needs a device."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from tensorcompute.v1 import model_service_pb2 as ms
from tests.models.networks import create, forward, linear_of, relu_mlp, statistics
from tests.models.programs import ask_by_name, convolution, convolved, create_program
from tests.support.raw import Raw
from tests.support.serving import ServerProcess
from tserver.engine.models.description import summarise
from tserver.engine.models.graphs import GraphedForward, captured_sizes
from tserver.engine.models.model import LayeredModel
from tserver.engine.streams import take_pair

RELU = ms.Activation(kind=ms.ACTIVATION_KIND_RELU)


@pytest.mark.parametrize(
    ("max_batch_size", "flops_per_row", "sizes"),
    [
        pytest.param(1, 100, [1], id="one"),
        pytest.param(8, 100, [1, 2, 4, 8], id="a power of two"),
        pytest.param(10, 100, [1, 2, 4, 8, 10], id="another number"),
        pytest.param(100_000, 100, [1 << power for power in range(13)], id="more than is captured"),
        pytest.param(1024, 10**10, [1, 2, 4], id="a large network"),
        pytest.param(1024, 10**12, [], id="a network whose work hides the launches"),
    ],
)
def test_sizes_are_powers_of_two_and_the_largest_batch(
    max_batch_size: int, flops_per_row: int, sizes: list[int]
) -> None:
    assert captured_sizes(max_batch_size, flops_per_row) == sizes


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: docs/gpu.md")


@pytest.mark.cuda
@needs_cuda
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 9, 64])
def test_a_graph_gives_what_the_network_gives(rows: int) -> None:
    device, network = torch.device("cuda", 0), relu_mlp([6, 5, 3])
    first, last = linear_of(network), linear_of(network, 2)
    layers = [summarise(6, 5, RELU, has_bias=True), summarise(5, 3, ms.Activation(), has_bias=True)]
    model = LayeredModel(layers, [(first.weight, first.bias), (last.weight, last.bias)], torch.float32, device)
    pair = take_pair(device)
    assert pair is not None
    graphed = GraphedForward(model, 8, pair)
    with pair.within():
        pair.work.wait_event(model.made)
        for _ in range(6):
            inputs = torch.randn(rows, 6, device=device)
            torch.testing.assert_close(graphed([inputs], rows)[0], model.run([inputs])[0])


@pytest.fixture(scope="module")
def on_cuda() -> Iterator[Raw]:
    """A connection to a server on the GPU."""
    with ServerProcess(device="cuda") as server, Raw(server.address) as raw:
        yield raw


@pytest.mark.cuda
@needs_cuda
def test_callers_on_a_gpu_get_their_own_rows(on_cuda: Raw) -> None:
    network = relu_mlp([6, 5, 3])
    create(on_cuda, "graphed", network, batching={"max_batch_size": 16})
    rows = torch.randn(200, 6)
    with ThreadPoolExecutor(16) as pool:
        outputs = list(pool.map(lambda row: forward(on_cuda, "graphed", row), rows))
    torch.testing.assert_close(torch.stack(outputs), network(rows), rtol=1e-3, atol=1e-4)
    assert statistics(on_cuda, "graphed").inference_count == 200


@pytest.mark.cuda
@needs_cuda
def test_programs_on_a_gpu_give_what_torch_gives_with_graphs_and_without(on_cuda: Raw) -> None:
    described, weights = convolution()
    create_program(on_cuda, "any-size", described, weights)
    # Of one form but for the rows, and so for graphs.
    described.inputs[0].dimensions[2].CopyFrom(ms.Dimension(size=8))
    described.inputs[0].dimensions[3].CopyFrom(ms.Dimension(size=9))
    create_program(on_cuda, "one-size", described, weights, batching={"max_batch_size": 16})
    for name in ("any-size", "one-size"):
        for _ in range(5):
            for rows in (1, 3, 16, 40):
                images = torch.randn(rows, 3, 8, 9)
                given = ask_by_name(on_cuda, name, {"image": images})
                torch.testing.assert_close(given, {"logits": convolved(images, weights)}, rtol=1e-3, atol=1e-3)
