"""Forward passes of models that run at once on the engine's thread: in their place among the calls of a session.

Knows sessions' stores and models; who keeps models under names is told by `Find`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch

from tensorcompute.v1 import model_service_pb2 as ms
from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as ts
from tserver.engine import inspect, networks, streams
from tserver.engine.models.description import activation_layer
from tserver.engine.models.model import Model
from tserver.engine.object_store import ObjectStore
from tserver.engine.operations import Operation
from tserver.engine.streams import StreamPair
from tserver.engine.transfers import send
from tserver.errors import InvalidArgument


class Servable(Protocol):
    """A model that is kept under a name and a version."""

    def ready(self) -> Model:
        """The weights. Raises: ModelNotReady."""

    def run_now(self, rows: torch.Tensor, pair: StreamPair | None) -> torch.Tensor:
        """The outputs for rows, at once and alone, on the pair that has the current stream."""


Find = Callable[[str, int], Servable]
"""Finds a model by name and version; 0 is the latest one. Raises: NotFound."""


def forward(find: Find, pair: StreamPair | None, name: Any, version: Any, inputs: Any) -> torch.Tensor:
    """One forward pass; `pair` has the current stream.

    Raises: NotFound, ModelNotReady, InvalidArgument, TypeError.
    """
    if not isinstance(name, str) or type(version) is not int or not isinstance(inputs, torch.Tensor):
        raise TypeError("model_forward: give a name, a version and a tensor")
    served = find(name, version)
    model = served.ready()
    model.check_tensor(inputs)
    if inputs.requires_grad:
        inputs = inputs.detach()
    if inputs.device != model.device:
        inputs = send(inputs, model.device) if inputs.is_cpu else inputs.to(model.device)
    if inputs.dim() == 2:
        return served.run_now(inputs, pair)
    outputs = served.run_now(inputs.reshape(-1, model.in_features), pair)
    return outputs.reshape(*inputs.shape[:-1], model.out_features)


def layer_operation(activation: ms.Activation) -> Operation:
    """A forward pass of one layer that the call brings along. Raises: InvalidArgument."""
    last = activation_layer(activation)

    def run(inputs: Any, weight: Any, bias: Any) -> Any:
        return _run_network([{"kind": "linear", "weight": weight, "bias": bias}, last], inputs)

    return Operation("LayerForward", run)


def neuron_operation(activation: ms.Activation) -> Operation:
    """The same of one neuron. Raises: InvalidArgument."""
    return _neuron("NeuronForward", activation_layer(activation))


def perceptron_operation() -> Operation:
    """The same of one perceptron."""
    return _neuron("PerceptronForward", {"kind": "sign"})


def model_operation(find: Find, name: str, version: int) -> Operation:
    """A forward pass of a model that is kept."""

    def run(store: ObjectStore, inputs: Any) -> Any:
        return forward(find, store.state.pair, name, version, inputs)

    return Operation("MlpForward", run, needs_store=True)


def rows_of(model: Model, tensor: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """The rows of a tensor as they are now, on the model's device, and their mark: later writes are not seen there."""
    rows = tensor.detach().to(model.device).reshape(-1, model.in_features).clone()
    return rows, streams.mark(rows)


def keep(store: ObjectStore, output: torch.Tensor, shape: list[int], max_data_bytes: int) -> ms.ForwardOutput:
    """Leave an output in the session, and return its elements, too, unless they may have no bytes."""
    tensor = streams.adopt(output).reshape(shape)
    if store.max_bytes:
        store.charge("MlpForward", tensor, elsewhere=False)
    call_id = store.new_server_id()
    store.keep(call_id, tensor)
    ref = pb.Ref(id=call_id)
    kept = ms.ForwardOutput(tensor=inspect.description(tensor, ref))
    if max_data_bytes:
        wanted = ts.GetTensorRequest(tensor=ref, include_data=True)
        kept.data.CopyFrom(inspect.get_tensor(store, wanted, max_data_bytes).data)
    return kept


def _neuron(name: str, activation: dict[str, Any]) -> Operation:
    def run(inputs: Any, weights: Any, bias: Any) -> Any:
        return _run_network([{"kind": "neuron", "weight": weights, "bias": bias}, activation], inputs)

    return Operation(name, run)


def _run_network(layers: list[dict[str, Any]], inputs: torch.Tensor) -> torch.Tensor:
    """One forward pass of a network that is not kept. Raises: InvalidArgument where inputs have no rows."""
    if inputs.dim() and 0 in inputs.shape[:-1]:
        raise InvalidArgument(f"inputs of shape {list(inputs.shape)} have no rows; give at least one")
    return networks.build(layers).forward(inputs)
