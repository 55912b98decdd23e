"""W5: the MLP on a batch of 1024 rows, data sent and result returned, one caller: ms per forward pass.

Yardsticks: local torch on the same rows, which sends nothing, and the naive gRPC server.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from .bench import Bench
from .processes import peer, side
from .shape import SIZES
from .side import Options, Order, Run, serve
from .stats import Bar, Row

MODULE = __name__
METHOD = "/bench.Naive/Forward"
ROWS = 1024
BAR = Bar("at most", (1.5,))


def measure(bench: Bench) -> Iterator[Row]:
    """One row per yardstick; the bar is against local torch."""
    order = {"repetitions": bench.choose(40, 15)}
    with (
        bench.server() as server,
        peer("naive") as naive,
        side(MODULE, "tclient", address=server.address) as remote,
        side(MODULE, "torch") as local,
        side(MODULE, "naive gRPC", address=naive.address) as unary,
    ):
        ours, torchs, theirs = bench.take_turns([remote, local, unary], "ms", bench.choose(8, 4), order)
    yield Row("W5", f"MLP, batch of {ROWS}, data both ways", ours, torchs, BAR)
    yield Row("W5", f"MLP, batch of {ROWS}, data both ways", ours, theirs)


def timed(forward: Callable[[], npt.NDArray[np.float32]], order: Order) -> list[float]:
    """The ms that each forward pass takes."""
    figures = []
    for _ in range(order["repetitions"]):
        began = time.perf_counter()
        outputs = forward()
        figures.append((time.perf_counter() - began) * 1e3)
        assert outputs.shape == (ROWS, SIZES[-1])
    return figures


def batch() -> npt.NDArray[np.float32]:
    """The inputs."""
    return np.random.default_rng(0).random((ROWS, SIZES[0]), np.float32)


@contextlib.contextmanager
def with_tclient(options: Options) -> Iterator[Run]:
    """Through the server."""
    import tclient

    with tclient.connect(options.address), tclient.no_grad():
        model, rows = tclient.nn.MLP(list(SIZES), activation="relu"), batch()

        def forward() -> npt.NDArray[np.float32]:
            outputs: npt.NDArray[np.float32] = model(tclient.from_numpy(rows)).numpy()
            return outputs

        yield lambda order: timed(forward, order)


@contextlib.contextmanager
def with_torch(options: Options) -> Iterator[Run]:
    """Without any server."""
    import torch

    from .mlp import network

    model, rows = network(), batch()

    def forward() -> npt.NDArray[np.float32]:
        outputs: npt.NDArray[np.float32] = model(torch.from_numpy(rows)).numpy()
        return outputs

    with torch.no_grad():
        yield lambda order: timed(forward, order)


@contextlib.contextmanager
def with_naive(options: Options) -> Iterator[Run]:
    """The naive server."""
    import grpc

    from tensorcompute.v1 import tensor_pb2 as pb

    limits = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))
    rows = batch()
    with grpc.insecure_channel(options.address, options=limits) as channel:
        call = channel.unary_unary(METHOD, pb.TensorData.SerializeToString, pb.TensorData.FromString)

        def forward() -> npt.NDArray[np.float32]:
            answer = call(pb.TensorData(dtype=pb.D_TYPE_FLOAT32, shape=rows.shape, data=rows.tobytes()))
            return np.frombuffer(answer.data, np.float32).reshape(tuple(answer.shape))

        yield lambda order: timed(forward, order)


if __name__ == "__main__":
    serve({"tclient": with_tclient, "torch": with_torch, "naive gRPC": with_naive})
