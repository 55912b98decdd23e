"""Forward passes of models that run at once on the engine's thread: in their place among the calls of a session.

Knows sessions' stores and models; who keeps models under names is told by `Find`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import torch

from tensorcompute.v1 import model_service_pb2 as ms
from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as ts
from tserver.engine import inspect, networks, streams
from tserver.engine.models.description import activation_layer
from tserver.engine.models.model import LayeredModel, Model
from tserver.engine.models.program_model import ProgramModel
from tserver.engine.models.spec import TensorSpec, bind
from tserver.engine.object_store import ObjectStore
from tserver.engine.operations import Operation
from tserver.engine.streams import StreamPair
from tserver.engine.transfers import send
from tserver.engine.values import dtype_of, tensor_from_bytes
from tserver.errors import InvalidArgument


class Servable(Protocol):
    """A model that is kept under a name and a version."""

    name: str

    def ready(self) -> Model:
        """The weights. Raises: ModelNotReady."""

    def run_now(self, inputs: Sequence[torch.Tensor], rows: int, pair: StreamPair | None) -> Sequence[torch.Tensor]:
        """The outputs for inputs, at once and alone, on the pair that has the current stream."""


Find = Callable[[str, int], Servable]
"""Finds a model by name and version; 0 is the latest one. Raises: NotFound."""
FindWithin = Callable[[str, str, int], Servable]
"""The same among the names that a session sees: by its namespace first."""


def forward(find: Find, pair: StreamPair | None, name: Any, version: Any, *inputs: Any) -> Any:
    """One forward pass; `pair` has the current stream. Inputs are in the model's order, and so are outputs.

    Raises: NotFound, ModelNotReady, InvalidArgument, TypeError.
    """
    if (
        not isinstance(name, str)
        or type(version) is not int
        or not all(isinstance(each, torch.Tensor) for each in inputs)
    ):
        raise TypeError("model_forward: give a name, a version and tensors")
    served = find(name, version)
    model = served.ready()
    if len(inputs) != len(model.inputs):
        raise InvalidArgument(
            f"{_bare(name)!r} takes {len(model.inputs)} inputs ({_names(model.inputs)}), but {len(inputs)} are given"
        )
    if isinstance(model, LayeredModel):
        return _forward_rows(served, model, pair, inputs[0])
    outputs = _forward_all(served, model, pair, inputs)
    return outputs[0] if len(outputs) == 1 else tuple(outputs)


def forward_by_name(
    find: Find, pair: StreamPair | None, name: str, version: int, inputs: Mapping[str, torch.Tensor]
) -> list[tuple[str, torch.Tensor]]:
    """The same with inputs by name; the outputs with their names, in the model's order."""
    served = find(name, version)
    model = served.ready()
    ordered = [inputs[each] for each in check_names(_bare(name), model.inputs, inputs)]
    outputs = _forward_all(served, model, pair, ordered)
    return [(spec.name, output) for spec, output in zip(model.outputs, outputs, strict=True)]


def check_names(model: str, specs: Sequence[TensorSpec], given: Collection[str]) -> list[str]:
    """The names of a model's inputs, each of which must have been given. Raises: InvalidArgument."""
    names = [spec.name for spec in specs]
    if set(names) != set(given):
        missing = [name for name in names if name not in given]
        unknown = [name for name in given if name not in names]
        raise InvalidArgument(
            f"{model!r} takes the inputs {_names(specs)}"
            + (f"; {', '.join(map(repr, missing))[:500]} missing" if missing else "")
            + (f"; there is no {', '.join(repr(name[:100]) for name in unknown[:5])}" if unknown else "")
        )
    return names


def rows_and_form(model: Model, sizes: Mapping[str, int]) -> tuple[int, tuple[int, ...] | None]:
    """How many rows a request of these sizes is, and what it must have in common with others to be run with them; None
    where it is run alone.
    """
    if not model.is_batched:
        return 1, None
    batch = model.inputs[0].dimensions[0]
    return sizes[str(batch)], tuple(size for name, size in sizes.items() if name != batch)


def _forward_rows(served: Servable, model: LayeredModel, pair: StreamPair | None, inputs: torch.Tensor) -> torch.Tensor:
    rows = model.check_tensor(inputs)
    inputs = _there(inputs, model.device)
    if inputs.dim() == 2:
        return served.run_now([inputs], rows, pair)[0]
    outputs = served.run_now([inputs.reshape(-1, model.in_features)], rows, pair)[0]
    return outputs.reshape(*inputs.shape[:-1], model.out_features)


def _forward_all(
    served: Servable, model: Model, pair: StreamPair | None, inputs: Sequence[torch.Tensor]
) -> Sequence[torch.Tensor]:
    for spec, tensor in zip(model.inputs, inputs, strict=True):
        if tensor.layout is not torch.strided:
            raise InvalidArgument(f"input {spec.name!r} is a {tensor.layout} tensor; call to_dense() first")
    sizes = bind(model.inputs, [tensor.dtype for tensor in inputs], [tensor.shape for tensor in inputs])
    there = [_there(tensor, model.device) for tensor in inputs]
    if isinstance(model, ProgramModel):
        # What the caller has is not written to.
        there = [tensor.clone() if index in model.written else tensor for index, tensor in enumerate(there)]
    return served.run_now(there, rows_and_form(model, sizes)[0], pair)


def _there(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on the device, without gradients."""
    tensor = tensor.detach() if tensor.requires_grad else tensor
    if tensor.device != device:
        return send(tensor, device) if tensor.is_cpu else tensor.to(device)
    return tensor


def _bare(name: str) -> str:
    """A name without that of its owner."""
    return name.rpartition("/")[2]


def _names(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{spec.name!r}" for spec in specs)[:1000]


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


def read(store: ObjectStore, given: pb.Ref | pb.TensorData) -> torch.Tensor:
    """A tensor of the session, or one that came by value. Raises: InvalidArgument, UnknownId, CallFailed."""
    if isinstance(given, pb.TensorData):
        return tensor_from_bytes(dtype_of(given.dtype), list(given.shape), given.data)
    return store.tensor(given)


def rows_of(model: LayeredModel, tensor: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """The rows of a tensor as they are now, on the model's device, and their mark: later writes are not seen there."""
    rows = tensor.detach().to(model.device).reshape(-1, model.in_features).clone()
    return rows, streams.mark(rows)


def keep(store: ObjectStore, output: torch.Tensor, shape: Sequence[int], max_data_bytes: int) -> ms.ForwardOutput:
    """Leave an output in the session, and return its elements, too, unless they may have no bytes."""
    tensor = streams.adopt(output).reshape(*shape)
    if store.counts:
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
