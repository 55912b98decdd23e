"""Models: networks that the server keeps under a name and version, and runs for all its callers.

    mlp = tclient.nn.MLP([784, 256, 10])
    served = tclient.models.create("digits", mlp)
    served(numpy_rows)                      # one call; rows of many callers are run together
    print(served)                           # reads like torch

Knows the contract's messages; what a network computes is the server's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from tclient._codec.dtypes import BY_CODE, dtype
from tclient._codec.values import array_of
from tclient._exceptions import BY_REASON, RequestRefused, ServerBusy, TensorError, TensorValueError, make_error
from tclient._issue import call_builtin
from tclient._layers import activation_of, in_order, layers_of, spec_of, tensors_of
from tclient._session.current import current
from tclient._session.session import Session
from tclient._tensor import Tensor
from tclient._transfer.model_files import save, upload
from tclient._transport.channel import ANSWER_S, MODEL_SERVICE, Channel
from tclient._transport.limits import transferring
from tclient._transport.statuses import is_broken, name_of, status_of, translate
from tensorcompute.v1 import model_service_pb2 as rpc
from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as session_rpc

__all__ = ["ServedModel", "create", "get", "list", "load"]


# What may be applied twice is asked again where the connection breaks.
_REPEATABLE = {"DescribeMlp", "GetMlpStatistics", "ListMlps", "LoadMlp", "UnloadMlp", "UpdateMlp"}
# What a reason or status of the model service is to a Python program.
_RAISED = {"INVALID_ARGUMENT": "ValueError", "NOT_FOUND": "KeyError", "ALREADY_EXISTS": "ValueError"}


class ServedModel:
    """A network that the server keeps. Called with a tensor or an array, it runs a forward pass: one call on the wire.

    A tensor gives a tensor, at once and in the session's order, and records no gradients. A numpy array or a nested
    list gives a numpy array, and is run together with the rows of other callers. Without a version it is always the
    latest one.

    Shapes: (..., in) -> (..., out).
    """

    def __init__(self, session: Session, summary: rpc.MlpSummary, version: int | None) -> None:
        self._session = session
        self._summary = summary
        self.name = summary.name
        self.version = version

    def __call__(
        self, inputs: Any, *, priority: int = 0, timeout_s: float | None = None, queue_timeout_us: int = 0
    ) -> Any:
        """The outputs for inputs. timeout_s is for the answer, queue_timeout_us for the wait before the model is run.

        A tensor is not queued, nor is an array that, or whose outputs, are too large for a message: the model is run
        in its place among the calls of the session. priority and the two times are for what is queued.

        Raises: ValueError for inputs that do not fit, and for a priority or a time where there is no queue; KeyError if
        the model is gone; ServerBusy if its queue is full or the time is up.
        """
        for_the_queue = priority or queue_timeout_us or timeout_s is not None
        if isinstance(inputs, Tensor):
            if for_the_queue:
                raise TensorValueError(
                    f"{self.name}: a tensor is not queued, so it has no priority, timeout_s or queue_timeout_us; "
                    "leave them out, or give a numpy array"
                )
            return call_builtin("tc.model_forward", self.name, self.version or 0, inputs)
        array, element = array_of(self._as_array(inputs))
        if array.nbytes <= self._session.channel.max_inline:
            call = rpc.MlpForwardCall(
                name=self.name,
                version=self.version or 0,
                inputs=pb.TensorData(dtype=_code(element), shape=array.shape, data=array.tobytes()),
                priority=priority,
                timeout_us=queue_timeout_us,
                deadline_us=0 if timeout_s is None else max(1, int(timeout_s * 1e6)),
            )
            try:
                answer = self._session.forwards.run(call, timeout_s)
                if answer.WhichOneof("outcome") == "failure":
                    failure = answer.failure
                    raise _raised(name_of(failure.code), failure.reason, failure.message)
                output = answer.output
                return np.frombuffer(bytearray(output.data), array.dtype).reshape(tuple(output.shape))
            except RequestRefused as refusal:
                if refusal.reason not in ("MESSAGE_TOO_LARGE", "TOO_LARGE_FOR_A_MESSAGE"):
                    raise
        if for_the_queue:
            raise TensorValueError(
                f"{self.name}: inputs of {array.nbytes} bytes, or their outputs, are too large for a message and not "
                "queued, so they have no priority, timeout_s or queue_timeout_us; leave them out, or give fewer rows "
                "at a time"
            )
        import tclient

        with self._session.use():
            return self(tclient.from_numpy(array)).numpy()

    def describe(self) -> rpc.MlpSummary:
        """What the server says of it now: layers, parameters, bytes, FLOPs per row, state, settings."""
        request = rpc.DescribeMlpRequest(name=self.name, version=self.version or 0)
        answer: rpc.DescribeMlpResponse = _ask(self._session, "DescribeMlp", request, rpc.DescribeMlpResponse)
        self._summary = answer.mlp
        return self._summary

    def statistics(self) -> rpc.MlpStatistics:
        """How often and how fast it was run."""
        request = rpc.GetMlpStatisticsRequest(name=self.name, version=self.version or 0)
        answer: rpc.GetMlpStatisticsResponse = _ask(
            self._session, "GetMlpStatistics", request, rpc.GetMlpStatisticsResponse
        )
        return answer.statistics

    def configure(self, **batching: Any) -> None:
        """Change how requests are batched: max_batch_size, max_queue_delay_us and the rest of BatchingConfig."""
        settings = _batching({**_set_fields(self.describe().batching), **batching})
        request = rpc.UpdateMlpRequest(name=self.name, version=self.version or 0, batching=settings)
        self._summary = _ask(self._session, "UpdateMlp", request, rpc.UpdateMlpResponse).mlp

    def unload(self) -> None:
        """Take the weights off the device; all versions, where this is not one of them."""
        request = rpc.UnloadMlpRequest(name=self.name, version=self.version or 0)
        _ask(self._session, "UnloadMlp", request, rpc.UnloadMlpResponse)

    def reload(self) -> None:
        """Bring the weights to the device, or anew from the server's disk; requests are answered all the while."""
        request = rpc.LoadMlpRequest(name=self.name, version=self.version or 0)
        self._summary = _ask(self._session, "LoadMlp", request, rpc.LoadMlpResponse).mlp

    def delete(self) -> None:
        """Let go of it, on the server's disk too; of all versions, where this is not one of them."""
        request = rpc.DeleteMlpRequest(name=self.name, version=self.version or 0)
        _ask(self._session, "DeleteMlp", request, rpc.DeleteMlpResponse)

    def export(self, path: str | os.PathLike[str], *, progress: bool = True) -> None:
        """Save it as a safetensors file, which torch can load into a Sequential of the same layers.

        The file is there whole or not at all.
        """
        request = rpc.DownloadMlpRequest(name=self.name, version=self.version or 0)
        channel = self._session.channel
        with transferring(channel, "export"):
            try:
                save(channel.server_stream(MODEL_SERVICE + "DownloadMlp", request), Path(path), progress)
            except grpc.RpcError as error:
                raise _translated(error, channel) from None

    @property
    def dtype(self) -> dtype:
        """The element type of weights, inputs and outputs."""
        return BY_CODE[self._summary.dtype]

    def parameter_count(self) -> int:
        """How many weights and biases it has."""
        return self._summary.parameters

    def __repr__(self) -> str:
        return self._summary.text

    def _as_array(self, inputs: Any) -> np.ndarray[Any, Any]:
        if isinstance(inputs, np.ndarray):
            return inputs
        element = self.dtype
        if element.numpy is None:
            raise make_error("TypeError", f"{self.name} is {element._name}, which numpy does not have; give a tensor")
        return np.asarray(inputs, element.numpy)


def list() -> Sequence[ServedModel]:
    """All versions of all models of the server, in the order of their names."""
    session = current()
    answer: rpc.ListMlpsResponse = _ask(session, "ListMlps", rpc.ListMlpsRequest(), rpc.ListMlpsResponse)
    return [ServedModel(session, summary, summary.version) for summary in answer.mlps]


def get(name: str, version: int | None = None) -> ServedModel:
    """A model by its name; without a version always the latest one. Raises: KeyError if there is none."""
    session = current()
    request = rpc.DescribeMlpRequest(name=name, version=version or 0)
    answer: rpc.DescribeMlpResponse = _ask(session, "DescribeMlp", request, rpc.DescribeMlpResponse)
    return ServedModel(session, answer.mlp, version)


def create(
    name: str, network: Any, *, version: int | None = None, dtype: dtype | None = None, **batching: Any
) -> ServedModel:
    """Make a model of a network: a module of tclient.nn, or a sequence of (weight, bias, activation).

    A module is one of Linear layers, Neurons and activations, in a row; its weights are copied as they are now. Weights
    are tensors or arrays of shape (out, in), biases (out) or None, activations a name or None. A Neuron is served as a
    layer of one output, (..., 1).

    version=None is version 1 of a new name. `batching` are the fields of BatchingConfig: max_batch_size,
    max_queue_delay_us and so on.
    Raises: ValueError if the name and version are taken, or the layers do not fit; TypeError for what cannot be served.
    """
    session = current()
    layers = layers_of(network)
    held: Any = [tensors_of(weight, bias) for weight, bias, _ in layers]
    request = rpc.CreateMlpRequest(
        context=session_rpc.SessionContext(session=session.secret),
        name=name,
        version=version or 0,
        layers=[spec_of(pair, activation) for pair, (_, _, activation) in zip(held, layers, strict=True)],
        dtype=_code(dtype if dtype is not None else held[0][0].dtype),
        batching=_batching(batching),
    )
    # The request does not travel with the calls: what makes the weights must have been done before it.
    session.synchronize()
    answer: rpc.CreateMlpResponse = _ask(session, "CreateMlp", request, rpc.CreateMlpResponse, timeout_s=None)
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
    **batching: Any,
) -> ServedModel:
    """Make a model of a safetensors file: NAME.weight and NAME.bias of each layer.

    activations is one name, module or None a layer, in their order; it may be left out for files that
    `ServedModel.export` wrote. layers names the layers in order, as in ["input", "hidden", "output"]; it may be left
    out where the file tells the order: by what `ServedModel.export` wrote, by names that differ in one number alone, or
    by shapes that fit each other in one order alone. With on_server, path is a file in the server's model directory;
    else the file is uploaded, with a progress bar if that takes over a second.
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
        dtype=_code(dtype),
        batching=_batching(batching),
    )
    answer: rpc.CreateMlpResponse = _ask(session, "CreateMlp", request, rpc.CreateMlpResponse, timeout_s=None)
    return ServedModel(session, answer.mlp, version)


def _code(element: dtype | None) -> Any:
    return 0 if element is None else pb.DType.ValueType(element.code)


def _batching(settings: Mapping[str, Any]) -> rpc.BatchingConfig:
    try:
        return rpc.BatchingConfig(**settings)
    except ValueError as error:
        fields = ", ".join(rpc.BatchingConfig.DESCRIPTOR.fields_by_name)
        raise make_error("TypeError", f"{error}; the settings of batching are {fields}") from None


def _set_fields(message: rpc.BatchingConfig) -> dict[str, Any]:
    return {field.name: value for field, value in message.ListFields()}


def _ask(session: Session, method: str, request: Any, response: Any, *, timeout_s: float | None = ANSWER_S) -> Any:
    channel = session.channel
    deadline = None if timeout_s is None else time.monotonic() + timeout_s

    def attempt() -> Any:
        channel.check_alive()
        left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            return channel.unary(MODEL_SERVICE + method, request, response, timeout_s=left_s)
        except grpc.RpcError as error:
            if method in _REPEATABLE and is_broken(error):
                raise
            raise _translated(error, channel) from None

    with transferring(channel, method):
        return channel.again(attempt, ANSWER_S)


def _translated(error: grpc.RpcError, channel: Channel) -> TensorError:
    failure = translate(error, channel.address)
    if isinstance(failure, RequestRefused):
        return _raised(status_of(error), failure.reason, str(failure))
    return failure


def _raised(status: str, reason: str, message: str) -> TensorError:
    """The exception for a refusal of the model service."""
    if status in _RAISED and reason not in BY_REASON:
        return make_error(_RAISED[status], message, reason=reason)
    busy = status in ("RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "UNAVAILABLE")
    failure = BY_REASON.get(reason, ServerBusy if busy else RequestRefused)(message)
    failure.reason = reason
    return failure
