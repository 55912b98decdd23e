"""All models of the server: names, versions and states. The whole server's: no caller has models of its own.

Any thread may look; changes come from the thread that serves and from the engine's, under a lock. Leaves weights to the
engine and disks to `store`.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Sequence
from typing import Any, Literal

from tensorcompute.v1 import model_service_pb2 as ms
from tensorcompute.v1 import tensor_pb2 as pb
from tserver.engine.dtypes import DTYPE_CODES
from tserver.engine.models.model import Content, LayeredModel, Model
from tserver.engine.models.spec import TensorSpec
from tserver.engine.scheduling import Scheduler
from tserver.errors import AlreadyExists, InvalidArgument, ModelNotReady, NotFound
from tserver.models.batcher import DynamicBatcher
from tserver.models.batching import BatchingConfig
from tserver.models.requests import Request, check_size, notify
from tserver.models.statistics import ModelStatistics

State = Literal["READY", "UNLOADING", "UNAVAILABLE"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_MAX_VERSION = (1 << 31) - 1
_STATES: dict[str, ms.MlpState] = {
    "READY": ms.MLP_STATE_READY,
    "UNLOADING": ms.MLP_STATE_UNLOADING,
    "UNAVAILABLE": ms.MLP_STATE_UNAVAILABLE,
}


class ServedModel:
    """One version of a model: what it is, how it is batched, and whether it serves."""

    def __init__(
        self,
        name: str,
        version: int,
        model: Model,
        batching: BatchingConfig,
        scheduler: Scheduler,
        deliver: Callable[[list[Request]], None],
    ) -> None:
        self.name, self.version = name, version
        self.batching = batching
        self.statistics = ModelStatistics()
        self.state: State = "READY"
        self.reason = ""
        self.is_persistent = False
        # Where there is no disk to load it from again, what an unloaded model is made of waits in the host's memory.
        self.unloaded: Content | None = None
        self._describe(model)
        self.batcher = DynamicBatcher(model, batching, self.statistics, scheduler, deliver)
        self.batcher.version = version

    @property
    def waiting(self) -> int:
        """How many requests wait now."""
        return len(self.batcher.queue)

    def ready(self) -> Model:
        """The weights. Raises: ModelNotReady."""
        model = self.batcher.model
        if self.state != "READY" or model is None:
            raise ModelNotReady(
                f"version {self.version} of {self.name!r} is not ready ({self.state.lower()}"
                f"{': ' + self.reason if self.reason else ''}); load it, or ask for another version"
            )
        return model

    def row_of_layers(self) -> LayeredModel:
        """The weights of a row of layers, which takes inputs of any shape of rows.

        Raises: ModelNotReady; InvalidArgument for another model.
        """
        model = self.ready()
        if not isinstance(model, LayeredModel):
            raise InvalidArgument(
                f"{self.name!r} has inputs with names: {', '.join(spec.name for spec in self.inputs)[:500]}; "
                "give them by name (ModelForward)"
            )
        return model

    def run_now(self, inputs: Sequence[Any], rows: int, pair: Any) -> Sequence[Any]:
        """See DynamicBatcher.run_now."""
        return self.batcher.run_now(inputs, rows, pair)

    def use(self, model: Model) -> None:
        """Run the batches to come by this model. Raises: ModelNotReady if requests that wait would not fit it."""
        if (model.inputs, model.outputs, model.is_batched) != (self.inputs, self.outputs, self.is_batched):
            raise ModelNotReady(
                f"version {self.version} of {self.name!r} on disk is {_told(model.inputs, model.outputs)}, but the "
                f"one that is served is {_told(self.inputs, self.outputs)}: it is another network. Delete this, "
                "or give that one another version"
            )
        self.batcher.use(model)
        self._describe(model)

    def _describe(self, model: Model) -> None:
        self.inputs, self.outputs, self.is_batched = model.inputs, model.outputs, model.is_batched
        self.layers, self.calls = model.layers, model.calls
        self.dtype, self.device = DTYPE_CODES[model.dtype], str(model.device)
        self.parameters, self.parameter_bytes = model.parameters, model.parameter_bytes
        self.flops_per_row, self.text = model.flops_per_row, model.text
        self.non_finite_parameters = model.non_finite_parameters
        # Of one row of layers.
        self.in_features = self.layers[0].in_features if self.layers else 0
        self.out_features = self.layers[-1].out_features if self.layers else 0
        self.in_bytes, self.out_bytes = (size * model.dtype.itemsize for size in (self.in_features, self.out_features))

    def configure(self, batching: BatchingConfig) -> None:
        """Change how requests are batched."""
        self.batching = batching
        self.batcher.configure(batching)

    def output_shapes(self, shapes: Sequence[Sequence[int]]) -> list[tuple[int, ...] | None]:
        """The shapes of the outputs for inputs of these shapes, before they are run; None where those do not tell."""
        sizes = {
            name: size
            for spec, shape in zip(self.inputs, shapes, strict=True)
            for name, size in zip(spec.dimensions, shape, strict=True)
            if isinstance(name, str)
        }
        return [
            spec.shape_at(sizes) if all(name in sizes for name in spec.dimensions if isinstance(name, str)) else None
            for spec in self.outputs
        ]

    def check_outputs(self, request: Request, max_bytes: int) -> int:
        """The size of the outputs, as far as it is known before anything is run.

        Raises: TooLarge if they do not fit into a message.
        """
        if self.layers:
            size_bytes = request.rows * self.out_bytes
        else:
            size_bytes = sum(
                math.prod(shape) * spec.torch_dtype.itemsize
                for spec, shape in zip(self.outputs, self.output_shapes(request.shapes), strict=True)
                if shape is not None
            )
        check_size(size_bytes, max_bytes)
        return size_bytes

    def response(self, shape: list[int], outputs: bytes | memoryview) -> ms.MlpForwardResponse:
        """The response with outputs by value."""
        elements = pb.TensorData(dtype=self.dtype, shape=shape, data=bytes(outputs))
        return ms.MlpForwardResponse(output=ms.ForwardOutput(data=elements), version=self.version)

    def summary(self) -> ms.MlpSummary:
        """The description that callers get."""
        return ms.MlpSummary(
            name=self.name,
            version=self.version,
            layers=self.layers,
            dtype=self.dtype,
            device=self.device,
            parameters=self.parameters,
            parameter_bytes=self.parameter_bytes,
            state=_STATES[self.state],
            state_reason=self.reason,
            flops_per_row=self.flops_per_row,
            non_finite_parameters=self.non_finite_parameters,
            text=self.text,
            batching=self.batching.message(),
            is_persistent=self.is_persistent,
            inputs=[spec.message() for spec in self.inputs],
            outputs=[spec.message() for spec in self.outputs],
            is_batched=self.is_batched,
            calls=self.calls,
        )


def _told(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> str:
    return " -> ".join(
        ", ".join(f"{spec.name[:50]} {spec.text()}" for spec in specs[:8]) for specs in (inputs, outputs)
    )


class Registry:
    """The models by name and version."""

    def __init__(self, scheduler: Scheduler) -> None:
        # Takes finished requests, once a batch, on the engine's thread. Set by whoever put them in the queue.
        self.deliver: Callable[[list[Request]], None] = notify
        self._scheduler = scheduler
        self._lock = threading.Lock()
        # Replaced, not changed: who looks needs no lock.
        self._versions: dict[str, dict[int, ServedModel]] = {}

    def index(self) -> list[ServedModel]:
        """Every version there is, in the order of names and versions."""
        return [versions[number] for _, versions in sorted(self._versions.items()) for number in sorted(versions)]

    def versions(self, name: str) -> list[ServedModel]:
        """The versions of one name in ascending order. Raises: NotFound."""
        versions = self._versions.get(name)
        if not versions:
            raise NotFound(f"no network is named {name[:200]!r}; ListMlps tells which there are")
        return [versions[number] for number in sorted(versions)]

    def find(self, name: str, version: int = 0) -> ServedModel:
        """A version; 0 is the latest one that is ready, or where none is, the highest. Raises: NotFound."""
        versions = self._versions.get(name)
        if versions is not None:
            if version:
                found = versions.get(version)
                if found is not None:
                    return found
                has = ", ".join(map(str, sorted(versions)))
                raise NotFound(f"{name!r} has no version {version}; it has {has}")
            ready = [number for number, served in versions.items() if served.state == "READY"]
            return versions[max(ready or versions)]
        raise NotFound(f"no network is named {name[:200]!r}; ListMlps tells which there are")

    def check_free(self, name: str, version: int) -> int:
        """The version that a new model gets; 0 asks for version 1 of a new name.

        Raises: InvalidArgument for a name that cannot be, AlreadyExists.
        """
        if not _NAME.fullmatch(name):
            raise InvalidArgument(
                f"the name {name[:200]!r} ({len(name)} characters) is not usable: "
                "1 to 128 of A-Z a-z 0-9 . _ -, the first a letter or digit"
            )
        if version > _MAX_VERSION:
            raise InvalidArgument(f"version {version} is too high; the highest is {_MAX_VERSION}")
        versions = self._versions.get(name)
        if versions and not version:
            raise AlreadyExists(
                f"a network named {name!r} exists; give version {max(versions) + 1} for a new version of it, "
                "or choose another name"
            )
        if versions and version in versions:
            raise AlreadyExists(f"version {version} of {name!r} exists; delete it first, or give another version")
        return version or 1

    def add(self, name: str, version: int, model: Model, batching: BatchingConfig) -> ServedModel:
        """Let a model serve. Raises: as `check_free`."""
        with self._lock:
            version = self.check_free(name, version)
            served = ServedModel(name, version, model, batching, self._scheduler, self._deliver)
            self._versions = {**self._versions, name: {**self._versions.get(name, {}), version: served}}
            return served

    def remove(self, served: ServedModel) -> None:
        """Forget a version."""
        with self._lock:
            versions = {
                number: each for number, each in self._versions.get(served.name, {}).items() if each is not served
            }
            rest = {name: each for name, each in self._versions.items() if name != served.name}
            self._versions = {**rest, served.name: versions} if versions else rest

    def _deliver(self, requests: list[Request]) -> None:
        self.deliver(requests)
