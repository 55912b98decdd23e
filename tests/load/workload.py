"""What is asked under load: rows for the network of W4, whose outputs are known here too, and mixed tensor work.

Knows the contract and numpy; knows neither torch nor `tclient`, so that it can run anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt

from tensorcompute.v1 import model_service_pb2 as ms
from tensorcompute.v1 import model_service_pb2_grpc as model_stubs
from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as service_pb
from tensorcompute.v1 import tensor_service_pb2_grpc as tensor_stubs
from tests.bench.shape import SIZES

NAME = "load-" + "-".join(map(str, SIZES))
TIMEOUT_S = 10.0
ROWS = 16
# Outputs of a row differ in the last places with the rows that it is run beside.
TOLERANCE = 1e-4
OPTIONS = (("grpc.use_local_subchannel_pool", 1),)

Floats = npt.NDArray[np.float32]
Layers = list[tuple[Floats, Floats]]


class WrongAnswer(AssertionError):
    """The server answered, and the answer is wrong."""


def weights(sizes: Sequence[int] = SIZES) -> Layers:
    """The same weights and biases at every call, about as large as torch draws them."""
    draw = np.random.default_rng(0)
    layers = []
    for columns, rows in pairwise(sizes):
        bound = columns**-0.5
        weight = draw.uniform(-bound, bound, (rows, columns)).astype(np.float32)
        layers.append((weight, draw.uniform(-bound, bound, rows).astype(np.float32)))
    return layers


def outputs(rows: Floats, layers: Layers) -> Floats:
    """What the network gives for rows, by numpy: ReLU between the layers."""
    for index, (weight, bias) in enumerate(layers):
        rows = np.maximum(rows, 0) if index else rows
        rows = rows @ weight.T + bias
    return rows


def data_of(array: Floats) -> pb.TensorData:
    """An array as the contract carries it."""
    return pb.TensorData(dtype=pb.D_TYPE_FLOAT32, shape=array.shape, data=array.tobytes())


def create_network(channel: grpc.Channel, name: str = NAME) -> None:
    """Keep the network on the server, where it is not there already. Raises grpc.RpcError."""
    layers = weights()
    specs = [
        ms.LayerSpec(
            in_features=weight.shape[1],
            out_features=weight.shape[0],
            activation=ms.Activation(
                kind=ms.ACTIVATION_KIND_RELU if index < len(layers) - 1 else ms.ACTIVATION_KIND_IDENTITY
            ),
            weight=ms.Operand(data=data_of(weight)),
            bias=ms.Operand(data=data_of(bias)),
        )
        for index, (weight, bias) in enumerate(layers)
    ]
    request = ms.CreateMlpRequest(name=name, version=1, layers=specs, dtype=pb.D_TYPE_FLOAT32)
    try:
        model_stubs.ModelServiceStub(channel).CreateMlp(request, timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.ALREADY_EXISTS:
            raise


class Rows:
    """Single rows for the network, and what it must answer."""

    def __init__(self) -> None:
        rows = np.random.default_rng(1).random((ROWS, SIZES[0]), np.float32)
        self.expected = outputs(rows, weights())
        self.inputs = [data_of(rows[index : index + 1]) for index in range(ROWS)]

    def request(self, number: int) -> ms.MlpForwardRequest:
        """The request with that number, for MlpForward."""
        return ms.MlpForwardRequest(name=NAME, inputs=ms.Operand(data=self.inputs[number % ROWS]))

    def call(self, number: int, timeout_s: float = TIMEOUT_S) -> ms.MlpForwardCall:
        """The request with that number, for MlpForwardStream, under that id."""
        inputs = self.inputs[number % ROWS]
        return ms.MlpForwardCall(id=number, name=NAME, inputs=inputs, deadline_us=int(timeout_s * 1e6))

    def check(self, number: int, output: pb.TensorData) -> None:
        """Raises WrongAnswer unless the output belongs to the request with that number."""
        values = np.frombuffer(output.data, np.float32)
        expected = self.expected[number % ROWS]
        if values.shape != expected.shape or not np.allclose(values, expected, TOLERANCE, TOLERANCE):
            raise WrongAnswer(f"row {number % ROWS}: expected {expected}, got {values}")


class TensorWork:
    """A session that does a little of everything, as a client in another language would: unary and one at a time."""

    SIDE = 64

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub: Any = tensor_stubs.TensorServiceStub(channel)
        request = service_pb.OpenSessionRequest(min_protocol=1, max_protocol=1, client="load test")
        self.secret: bytes = self._stub.OpenSession(request, timeout=TIMEOUT_S).session
        self._array = np.random.default_rng(2).random((self.SIDE, self.SIDE), np.float32)
        self._batches = 0
        self._acked = 0

    def steps(self) -> Iterator[tuple[str, Any]]:
        """One round: every item is the name of an RPC and a function that calls it and returns its response."""
        context = service_pb.SessionContext(session=self.secret)

        def ask(method: str, request: Any) -> Any:
            return getattr(self._stub, method)(request, timeout=TIMEOUT_S)

        made: list[pb.Ref] = []

        def making(method: str, request: Any) -> Any:
            response = ask(method, request)
            made.append(response.tensor.id)
            return response

        create = service_pb.CreateTensorRequest(context=context, data=data_of(self._array))
        yield "CreateTensor", lambda: making("CreateTensor", create)
        source = made[0]
        transpose = service_pb.TransposeRequest(context=context, input=source, dim0=0, dim1=1)
        yield "Transpose", lambda: making("Transpose", transpose)
        add = service_pb.AddRequest(context=context, input=source, other=made[1])
        yield "Add", lambda: making("Add", add)
        reshape = service_pb.ReshapeRequest(context=context, input=made[2], shape=[-1])
        yield "Reshape", lambda: making("Reshape", reshape)
        get = service_pb.GetTensorRequest(context=context, tensor=made[3], include_data=True)
        yield "GetTensor", lambda: self._check(ask("GetTensor", get).data, self._array + self._array.T)
        yield "Execute", lambda: self._execute(source)
        free = service_pb.FreeTensorsRequest(context=context, tensors=made)
        yield "FreeTensors", lambda: ask("FreeTensors", free)

    def _execute(self, source: pb.Ref) -> service_pb.ExecuteResponse:
        """A batch: a matrix product, and its read behind it."""
        self._batches += 1
        names = [] if self._batches > 1 else ["matmul", "tc.read"]
        number = self._batches  # the ids that the server makes for unary calls are of another range
        argument = pb.Value(ref=source)
        calls = [
            pb.Call(id=number, operation=0, args=[argument, argument]),
            pb.Call(operation=1, args=[pb.Value(result=number)]),
        ]
        batch = pb.Batch(seq=self._batches, acked=self._acked, define_operations=names, calls=calls, frees=[number])
        request = service_pb.ExecuteRequest(session=self.secret, batch=batch)
        response: service_pb.ExecuteResponse = self._stub.Execute(request, timeout=TIMEOUT_S)
        self._acked = self._batches
        for result in response.reply.results:
            if result.HasField("error"):
                raise WrongAnswer(f"{result.error.operation}: {result.error.message}")
            self._check(result.value.data, self._array @ self._array)
        return response

    def _check(self, data: pb.TensorData, expected: Floats) -> pb.TensorData:
        values = np.frombuffer(data.data, np.float32)
        if values.size != expected.size or not np.allclose(values, expected.ravel(), TOLERANCE, TOLERANCE):
            raise WrongAnswer(f"expected {expected.size} elements from {expected.flat[0]}, got {values}")
        return data

    def close(self) -> None:
        """End the session."""
        self._stub.CloseSession(service_pb.CloseSessionRequest(session=self.secret), timeout=TIMEOUT_S)
