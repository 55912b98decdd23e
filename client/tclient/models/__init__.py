"""Models: networks that the server keeps under a name and version, and runs for all its callers.

    mlp = tclient.nn.MLP([784, 256, 10])
    served = tclient.models.create("digits", mlp)
    served(numpy_rows)                      # one call; rows of many callers are run together
    print(served)                           # what it takes and gives, and its layers as torch prints them

Any module or function can be one: it is recorded as calls of the operations that the server knows, with weights that
have names. No code of the caller's is sent.

    tagger = tclient.models.create("tagger", net, tclient.models.Input(("batch", "length"), torch.int64, high=9000))

Knows the contract's messages; what a network computes is the server's.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tclient._codec.dtypes import dtype
from tclient._exceptions import make_error
from tclient._layers import activation_of, in_order, layers_of, spec_of, tensors_of
from tclient._session.current import current
from tclient._session.session import Session
from tclient._transfer.model_files import upload
from tclient.models._inputs import Input, TensorInfo
from tclient.models._rpcs import ask, batching_of, code_of
from tclient.models._served import Models, ServedModel
from tensorcompute.v1 import model_service_pb2 as rpc
from tensorcompute.v1 import tensor_service_pb2 as session_rpc

__all__ = ["Input", "ServedModel", "TensorInfo", "create", "get", "list", "load"]


def list() -> Sequence[ServedModel]:
    """All versions of all models that the caller sees, in the order of their names; printed, a line each."""
    session = current()
    answer: rpc.ListMlpsResponse = ask(session, "ListMlps", rpc.ListMlpsRequest(), rpc.ListMlpsResponse)
    return Models(ServedModel(session, summary, summary.version) for summary in answer.mlps)


def get(name: str, version: int | None = None) -> ServedModel:
    """A model by its name; without a version always the latest one. Raises: KeyError if there is none."""
    session = current()
    request = rpc.DescribeMlpRequest(name=name, version=version or 0)
    answer: rpc.DescribeMlpResponse = ask(session, "DescribeMlp", request, rpc.DescribeMlpResponse)
    return ServedModel(session, answer.mlp, version)


def create(
    name: str,
    network: Any,
    inputs: Any = None,
    *,
    version: int | None = None,
    dtype: dtype | None = None,
    replicas: int | None = None,
    public: bool = False,
    **batching: Any,
) -> ServedModel:
    """Make a model of a network: a module of tclient.nn, a function, or a sequence of (weight, bias, activation).

    The weights are copied as they are now. A module or function runs as it is, a few times, in evaluation mode; its
    calls are recorded, and tried against it before they are served. What draws random numbers, reads elements, or
    writes to its weights is refused, with the line.

    Args:
        name: of the model.
        network: a row of Linear layers, Neurons and activations needs no inputs; nor does a module whose first layer
            says what it takes. Of a sequence, weights are tensors or arrays of shape (out, in), biases (out) or None,
            activations a name or None. A Neuron is served as a layer of one output, (..., 1).
        inputs: what the network takes, in the order of its parameters, or a dict of them by name: each an `Input`, or
            an example, a tensor or an array. Of examples, the first dimension varies where that works for all of them,
            and the others are as they are.
        version: None is version 1 of a new name.
        dtype: of the weights of a row of layers; another network is converted before: net.to(dtype).
        replicas: on how many engines it is to be, where the server has several; None is each that has room for it.
        public: whether all callers of the server see it and run it, which takes the role of a publisher. Else it is
            its maker's alone, where the server knows its callers by credentials, and everybody's where it does not.
        batching: the fields of BatchingConfig: max_batch_size, max_queue_delay_us and so on.

    Outputs have the names of a dict's keys or a named tuple's fields; one alone is "output", others are output_0,
    output_1 and so on. What is None is no output.

    Raises: ValueError if the name and version are taken, or the layers do not fit; TypeError for what cannot be served.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> models.create("pictures", net)(numpy.zeros((5, 1, 28, 28), "float32")).shape
        (5, 2)
    """
    session = current()
    settings = batching_of(batching)
    if inputs is None:
        layers = _row_of(network)
        if layers is not None:
            return _of_layers(session, name, layers, version, dtype, replicas or 0, settings, public=public)
    elif isinstance(network, (tuple, Sequence)):
        raise make_error("TypeError", f"{name}: layers that are given one by one take no inputs; leave them out")
    if dtype is not None:
        raise make_error("TypeError", f"{name}: dtype is for rows of layers; convert the network before: net.to(dtype)")
    from tclient.models._created import served_program

    # The request does not travel with the calls: what makes the weights must have been done before it.
    session.synchronize()
    program, weights = served_program(network, inputs, session)
    request = rpc.CreateModelRequest(
        context=session_rpc.SessionContext(session=session.secret),
        name=name,
        version=version or 0,
        program=program,
        weights=weights,
        batching=settings,
        replicas=replicas or 0,
        public=public,
    )
    session.synchronize()
    answer: rpc.CreateModelResponse = ask(session, "CreateModel", request, rpc.CreateModelResponse, timeout_s=None)
    return ServedModel(session, answer.model, version)


def _row_of(network: Any) -> Any:
    """The layers of a network that is a row of them; None of another one. Raises: TypeError for what is no network."""
    from tclient.nn import Module

    if not isinstance(network, Module):
        is_ours = callable(network) and type(network).__module__.partition(".")[0] != "torch"
        return None if is_ours else layers_of(network)
    from tclient.models._network import Network

    known = Network(network)
    with known.evaluating():
        try:
            return layers_of(known.given)
        except TypeError:
            return None


def _of_layers(
    session: Session,
    name: str,
    layers: Sequence[Any],
    version: int | None,
    dtype: dtype | None,
    replicas: int,
    batching: rpc.BatchingConfig,
    *,
    public: bool,
) -> ServedModel:
    """A model of a row of layers."""
    held: Any = [tensors_of(weight, bias) for weight, bias, _ in layers]
    request = rpc.CreateMlpRequest(
        context=session_rpc.SessionContext(session=session.secret),
        name=name,
        version=version or 0,
        layers=[spec_of(pair, activation) for pair, (_, _, activation) in zip(held, layers, strict=True)],
        dtype=code_of(dtype if dtype is not None else held[0][0].dtype),
        batching=batching,
        replicas=replicas,
        public=public,
    )
    # The request does not travel with the calls: what makes the weights must have been done before it.
    session.synchronize()
    answer: rpc.CreateMlpResponse = ask(session, "CreateMlp", request, rpc.CreateMlpResponse, timeout_s=None)
    return ServedModel(session, answer.mlp, version)


def load(
    name: str,
    path: str | os.PathLike[str],
    activations: Sequence[Any] | None = None,
    *,
    layers: Sequence[str] | None = None,
    version: int | None = None,
    dtype: dtype | None = None,
    on_server: bool = False,
    progress: bool = True,
    replicas: int | None = None,
    public: bool = False,
    **batching: Any,
) -> ServedModel:
    """Make a model of a safetensors file: NAME.weight and NAME.bias of each layer.

    activations is one name, module or None a layer, in their order; it may be left out for files that
    `ServedModel.export` wrote. layers names the layers in order, as in ["input", "hidden", "output"]; it may be left
    out where the file tells the order: by what `ServedModel.export` wrote, by names that differ in one number alone, or
    by shapes that fit each other in one order alone. With on_server, path is a file in the server's model directory;
    else the file is uploaded, with a progress bar if that takes over a second. replicas and public are as in `create`.
    Raises: ValueError if the file is damaged or does not fit, no order of its layers is certain, or the name and
    version are taken.
    """
    session = current()
    specs = [rpc.LayerSpec(activation=activation_of(activation)) for activation in in_order("activations", activations)]
    names = in_order("layers", layers)
    if on_server:
        file = rpc.WeightsFile(path=os.fspath(path), layers=names)
    else:
        number = session.queue.next_id()
        upload(session.transfers, number, Path(path), progress)
        file = rpc.WeightsFile(upload=number, layers=names)
    request = rpc.CreateMlpRequest(
        context=session_rpc.SessionContext(session=session.secret),
        name=name,
        version=version or 0,
        layers=specs,
        file=file,
        dtype=code_of(dtype),
        batching=batching_of(batching),
        replicas=replicas or 0,
        public=public,
    )
    answer: rpc.CreateMlpResponse = ask(session, "CreateMlp", request, rpc.CreateMlpResponse, timeout_s=None)
    return ServedModel(session, answer.mlp, version)
