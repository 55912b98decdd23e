"""ServedModel: a model of the server, as a function of its inputs.

Knows the contract's messages; what a network computes is the server's.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from tclient import _notebook
from tclient._codec.dtypes import BY_CODE, DTYPES, dtype
from tclient._codec.operations import Operation
from tclient._codec.values import array_of
from tclient._exceptions import (
    RequestRefused,
    ServerBusy,
    TensorError,
    TensorTypeError,
    TensorValueError,
    make_error,
)
from tclient._issue import call_builtin, dispatch
from tclient._session.session import Session
from tclient._tensor import Tensor
from tclient._transfer.model_files import save
from tclient._transport.channel import MODEL_SERVICE
from tclient._transport.limits import transferring
from tclient._transport.patience import Patience
from tclient._transport.statuses import name_of
from tclient.models._inputs import TensorInfo, info_of
from tclient.models._rpcs import ask, batching_of, code_of, refusal, translated
from tensorcompute.v1 import model_service_pb2 as rpc
from tensorcompute.v1 import tensor_pb2 as pb

# What outputs are called that have no names of their own.
_NUMBERED = "output_"
_STATES = {rpc.MLP_STATE_READY: "ready", rpc.MLP_STATE_UNLOADING: "unloading", rpc.MLP_STATE_UNAVAILABLE: "unloaded"}
_TOO_LARGE = ("MESSAGE_TOO_LARGE", "TOO_LARGE_FOR_A_MESSAGE")


class ServedModel:
    """A network that the server keeps. Called with tensors or arrays, it runs a forward pass: one call on the wire.

    Tensors give tensors, at once and in the session's order, and record no gradients. numpy arrays and nested lists
    give numpy arrays, and are run together with the rows of other callers. Without a version it is always the latest
    one.

    Shapes: those of `inputs` -> those of `outputs`; of a row of layers, (..., in) -> (..., out).
    """

    def __init__(self, session: Session, summary: rpc.MlpSummary, version: int | None) -> None:
        self._session = session
        self._summary = summary
        self.name = summary.name
        self.version = version

    def __call__(
        self, *inputs: Any, priority: int = 0, timeout_s: float | None = None, queue_timeout_us: int = 0, **named: Any
    ) -> Any:
        """The outputs for inputs, which are given in order or by name.

        One output is returned as it is; several as a dict, where they have names of their own, and else as a tuple.
        timeout_s is for the answer, queue_timeout_us for the wait before the model is run. Tensors are not queued, nor
        are arrays that, or whose outputs, are too large for a message: the model is run in its place among the calls of
        the session. priority and the two times are for what is queued.

        Raises: TypeError for inputs that are missing or too many; ValueError for inputs that do not fit, and for a
        priority or a time where there is no queue; KeyError if the model is gone; ServerBusy if its queue is full or
        the time is up.
        """
        given = self._ordered(inputs, named)
        for_the_queue = bool(priority or queue_timeout_us or timeout_s is not None)
        if any(isinstance(each, Tensor) for each in given):
            if for_the_queue:
                raise TensorValueError(
                    f"{self.name}: a tensor is not queued, so it has no priority, timeout_s or queue_timeout_us; "
                    "leave them out, or give a numpy array"
                )
            return self._run_tensors(given)
        arrays = [array_of(self._as_array(each, info)) for each, info in zip(given, self._infos(given), strict=True)]
        size_bytes = sum(array.nbytes for array, _ in arrays)
        if size_bytes <= self._session.channel.max_inline and not self._has_outputs_without_numpy:
            call = rpc.MlpForwardCall(
                name=self.name,
                version=self.version or 0,
                priority=priority,
                timeout_us=queue_timeout_us,
                deadline_us=0 if timeout_s is None else max(1, int(timeout_s * 1e6)),
            )
            datas = [
                pb.TensorData(dtype=code_of(element), shape=array.shape, data=array.tobytes())
                for array, element in arrays
            ]
            if self._is_program:
                call.tensors.extend(
                    rpc.NamedTensor(name=info.name, data=data) for info, data in zip(self.inputs, datas, strict=True)
                )
            else:
                call.inputs.CopyFrom(datas[0])
            try:
                return self._run_arrays(call, timeout_s)
            except RequestRefused as refused:
                if refused.reason not in _TOO_LARGE:
                    raise
        if for_the_queue:
            raise TensorValueError(
                f"{self.name}: inputs of {size_bytes} bytes, or their outputs, are too large for a message and not "
                "queued, so they have no priority, timeout_s or queue_timeout_us; leave them out, or give fewer rows "
                "at a time"
            )
        import tclient

        with self._session.use():
            made = self._run_tensors([tclient.from_numpy(array) for array, _ in arrays])
        if isinstance(made, dict):
            return {name: output.numpy() for name, output in made.items()}
        return tuple(output.numpy() for output in made) if isinstance(made, tuple) else made.numpy()

    def _ordered(self, inputs: tuple[Any, ...], named: dict[str, Any]) -> Sequence[Any]:
        """The inputs in the order that the model has them. Raises: TypeError."""
        names = self._names
        if not named and len(inputs) == len(names):
            return inputs
        missing = names[len(inputs) :]
        if len(inputs) > len(names) or set(missing) != set(named):
            shown = ", ".join(map(repr, self.inputs)) if self._is_program else "input"
            told = ", ".join([f"{len(inputs)} in order"] * bool(inputs) + list(named)) or "none"
            raise TensorTypeError(f"{self.name} takes {shown}; given are {told}")
        return [*inputs, *(named[name] for name in missing)]

    def _infos(self, given: Sequence[Any]) -> Sequence[TensorInfo | None]:
        return self.inputs if self._is_program else [None] * len(given)

    def _run_tensors(self, given: Sequence[Any]) -> Any:
        """The model in its place among the calls of the session."""
        version = self.version or 0
        if not self._is_program:
            return call_builtin("tc.model_forward", self.name, version, given[0])
        import tclient

        tensors = [
            each if isinstance(each, Tensor) else tclient.tensor(self._as_array(each, info))
            for each, info in zip(given, self.inputs, strict=True)
        ]
        made: Any = dispatch(_forward(len(self.outputs)), (self.name, version, *tensors), None)
        return self._named([made] if len(self.outputs) == 1 else list(made))

    def _run_arrays(self, call: rpc.MlpForwardCall, timeout_s: float | None) -> Any:
        """The model on what is in a message."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        patience: Patience | None = None
        refused: TensorError | None = None
        while True:
            left_s = None if until is None else max(0.0, until - time.monotonic())
            try:
                answer = self._session.forwards.run(call, left_s)
            except ServerBusy as late:
                if patience is None or refused is None or late.reason != "DEADLINE_EXCEEDED":
                    raise
                # The time is up with the last attempt: why it took so many is told.
                raise patience.spent(refused) from None
            outcome = answer.WhichOneof("outcome")
            if outcome != "failure":
                break
            failure = answer.failure
            refused = refusal(name_of(failure.code), failure.reason, failure.message)
            if not isinstance(refused, ServerBusy) or not failure.retry_after_s:
                raise refused
            # It was not run: the queue was full.
            patience = patience or Patience(left_s)
            if not patience.wait(failure.retry_after_s):
                raise patience.spent(refused)
        if outcome == "outputs":
            return self._named([_array_of(each.data) for each in answer.outputs.tensors])
        return _array_of(answer.output)

    def _named(self, outputs: list[Any]) -> Any:
        """The outputs as they are returned."""
        if len(outputs) == 1:
            return outputs[0]
        names = [info.name for info in self.outputs]
        if all(name == f"{_NUMBERED}{number}" for number, name in enumerate(names)):
            return tuple(outputs)
        return dict(zip(names, outputs, strict=True))

    # ---- what there is of it -------------------------------------------------------------------------------------

    def describe(self) -> rpc.MlpSummary:
        """What the server says of it now: inputs, outputs, layers, parameters, bytes, state, settings."""
        request = rpc.DescribeMlpRequest(name=self.name, version=self.version or 0)
        answer: rpc.DescribeMlpResponse = ask(self._session, "DescribeMlp", request, rpc.DescribeMlpResponse)
        self._know(answer.mlp)
        return self._summary

    def statistics(self) -> rpc.MlpStatistics:
        """How often and how fast it was run."""
        request = rpc.GetMlpStatisticsRequest(name=self.name, version=self.version or 0)
        answer: rpc.GetMlpStatisticsResponse = ask(
            self._session, "GetMlpStatistics", request, rpc.GetMlpStatisticsResponse
        )
        return answer.statistics

    def configure(self, *, replicas: int | None = None, **batching: Any) -> None:
        """Change how requests are batched: max_batch_size, max_queue_delay_us and the rest of BatchingConfig.

        replicas is on how many of the server's engines it is to be; 0 is each that has room for it, None as it is.
        """
        known = {field.name: value for field, value in self.describe().batching.ListFields()}
        settings = batching_of({**known, **batching})
        request = rpc.UpdateMlpRequest(name=self.name, version=self.version or 0, batching=settings, replicas=replicas)
        self._know(ask(self._session, "UpdateMlp", request, rpc.UpdateMlpResponse).mlp)

    def unload(self) -> None:
        """Take the weights off the device; all versions, where this is not one of them."""
        request = rpc.UnloadMlpRequest(name=self.name, version=self.version or 0)
        ask(self._session, "UnloadMlp", request, rpc.UnloadMlpResponse)

    def reload(self) -> None:
        """Bring the weights to the device, or anew from the server's disk; requests are answered all the while."""
        request = rpc.LoadMlpRequest(name=self.name, version=self.version or 0)
        self._know(ask(self._session, "LoadMlp", request, rpc.LoadMlpResponse).mlp)

    def delete(self) -> None:
        """Let go of it, on the server's disk too; of all versions, where this is not one of them."""
        request = rpc.DeleteMlpRequest(name=self.name, version=self.version or 0)
        ask(self._session, "DeleteMlp", request, rpc.DeleteMlpResponse)

    def export(self, path: str | os.PathLike[str], *, progress: bool = True) -> None:
        """Save it as a safetensors file, whose tensors have the names of the network's state dict.

        The file is there whole or not at all.
        """
        request = rpc.DownloadMlpRequest(name=self.name, version=self.version or 0)
        channel = self._session.channel
        with transferring(channel, "export"):
            try:
                save(channel.server_stream(MODEL_SERVICE + "DownloadMlp", request), Path(path), progress)
            except grpc.RpcError as error:
                raise translated(error, channel) from None

    @functools.cached_property
    def _names(self) -> list[str]:
        return [info.name for info in self.inputs] if self._is_program else ["input"]

    @functools.cached_property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """Names, dtypes and shapes of the inputs."""
        return tuple(map(info_of, self._summary.inputs))

    @functools.cached_property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """Names, dtypes and shapes of the outputs."""
        return tuple(map(info_of, self._summary.outputs))

    @property
    def dtype(self) -> dtype:
        """The element type of the weights; of several, that of the most of them."""
        return BY_CODE.get(self._summary.dtype, DTYPES["float32"])

    @property
    def owner(self) -> str:
        """Who made it, and may change it; empty where it was made on a server that asks for no credentials."""
        return self._summary.owner

    @property
    def public(self) -> bool:
        """Whether all callers of the server see it."""
        return self._summary.public

    @property
    def state(self) -> str:
        """Whether it answers, as it was when the server last said: "ready", "unloading" or "unloaded"."""
        return _STATES.get(self._summary.state, "unknown")

    def parameter_count(self) -> int:
        """How many weights and biases it has."""
        return self._summary.parameters

    def __repr__(self) -> str:
        try:
            self.describe()
        except TensorError:
            return f"{self._line('gone')}\n{self._summary.text}"
        return f"{self._line()}\n{self._summary.text}"

    def _repr_html_(self) -> str:
        return _notebook.of_model(self)

    def _line(self, state: str = "") -> str:
        """What it is, in one line."""
        summary = self._summary
        takes = ", ".join(map(repr, self.inputs)) or "inputs"
        gives = ", ".join(map(repr, self.outputs)) or "outputs"
        batching = f"batches up to {summary.batching.max_batch_size}" if summary.is_batched else "no batching"
        if not summary.inputs:
            batching = f"batches up to {summary.batching.max_batch_size}"
        serving = [replica for replica in summary.replicas if replica.state == rpc.MLP_STATE_READY]
        replicas = f"{len(serving)} replica{'s' * (len(serving) != 1)}, " if summary.replicas else ""
        owned = f"{'public, ' * summary.public}of {summary.owner}, " if summary.owner else ""
        return (
            f"{self.name} version {summary.version}, {owned}{state or self.state}, "
            f"{summary.parameters:,} parameters, {replicas}{batching}: {takes} -> {gives}"
        )

    def _know(self, summary: rpc.MlpSummary) -> None:
        self._summary = summary
        for derived in ("inputs", "outputs", "_names", "_has_outputs_without_numpy"):
            self.__dict__.pop(derived, None)

    @property
    def _is_program(self) -> bool:
        """Whether it is calls with inputs by name, and not a row of layers."""
        return not self._summary.layers

    @functools.cached_property
    def _has_outputs_without_numpy(self) -> bool:
        return self._is_program and any(info.dtype.numpy is None for info in self.outputs)

    def _as_array(self, inputs: Any, info: TensorInfo | None) -> np.ndarray[Any, Any]:
        if isinstance(inputs, (np.ndarray, np.generic)):
            return np.asarray(inputs)
        element = self.dtype if info is None else info.dtype
        if element.numpy is None:
            raise make_error("TypeError", f"{self.name} is {element._name}, which numpy does not have; give a tensor")
        return np.asarray(inputs, element.numpy)


def _array_of(data: pb.TensorData) -> np.ndarray[Any, Any]:
    """An array of its own memory."""
    return np.frombuffer(bytearray(data.data), BY_CODE[data.dtype].numpy).reshape(tuple(data.shape))


@functools.cache
def _forward(count: int) -> Operation:
    """The operation that returns so many outputs."""
    return Operation({"name": "tc.model_forward", "returns": "tensor" if count == 1 else {"count": count}})


class Models(list[ServedModel]):
    """Several of them; printed, a line each."""

    def __repr__(self) -> str:
        return "\n".join(model._line() for model in self) or "no models"

    def _repr_html_(self) -> str:
        return _notebook.of_models(self)
