"""All models of the server: names, versions and states. Whose they are, and what callers call them, `owners` says.

Any thread may look; changes come from the thread that serves and from the engine's, under a lock. Leaves weights to the
engine and disks to `store`.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from tensorcompute.v1 import model_service_pb2 as ms
from tensorcompute.v1 import tensor_pb2 as pb
from tserver.engine.dtypes import DTYPE_CODES
from tserver.engine.models.model import Content, LayeredModel, Model
from tserver.engine.models.spec import TensorSpec
from tserver.engine.scheduling import Scheduler
from tserver.errors import InvalidArgument, ModelNotReady
from tserver.models import names
from tserver.models.batcher import DynamicBatcher
from tserver.models.batching import BatchingConfig
from tserver.models.names import STATES, State
from tserver.models.owners import Claim, is_of
from tserver.models.requests import Request, check_size, notify
from tserver.models.shapes import output_shapes
from tserver.models.statistics import ModelStatistics


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
        owner: str = "",
    ) -> None:
        self.name, self.version = name, version
        # Who may change it, where it is public.
        self.owner = owner
        self.batching = batching
        self.statistics = ModelStatistics()
        self.state: State = "READY"
        self.reason = ""
        self.is_persistent = False
        # On how many engines it is to be, where there are several; 0 is each that has room.
        self.replicas = 0
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
            raise names.not_ready(self.name, self.version, self.state, self.reason)
        return model

    def row_of_layers(self) -> LayeredModel:
        """The weights of a row of layers, which takes inputs of any shape of rows.

        Raises: ModelNotReady; InvalidArgument for another model.
        """
        model = self.ready()
        if not isinstance(model, LayeredModel):
            raise InvalidArgument(
                f"{names.bare(self.name)!r} has inputs with names: "
                f"{', '.join(spec.name for spec in self.inputs)[:500]}; give them by name (ModelForward)"
            )
        return model

    def run_now(self, inputs: Sequence[Any], rows: int, pair: Any) -> Sequence[Any]:
        """See DynamicBatcher.run_now."""
        return self.batcher.run_now(inputs, rows, pair)

    def use(self, model: Model) -> None:
        """Run the batches to come by this model. Raises: as `check_fits`."""
        self.check_fits(model)
        self.batcher.use(model)
        self._describe(model)

    def check_fits(self, model: Model) -> None:
        """Raises: ModelNotReady if requests that wait would not fit this model."""
        if (model.inputs, model.outputs, model.is_batched) != (self.inputs, self.outputs, self.is_batched):
            raise ModelNotReady(
                f"version {self.version} of {names.bare(self.name)!r} on disk is "
                f"{_told(model.inputs, model.outputs)}, but the one that is served is "
                f"{_told(self.inputs, self.outputs)}: it is another network. Delete this, or give that one another "
                "version"
            )

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
        return output_shapes(self.inputs, self.outputs, shapes)

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
            state=STATES[self.state],
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
            wanted_replicas=self.replicas,
            owner=names.owner_in(self.name) or self.owner,
            public=names.is_public(self.name),
        )


def _told(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> str:
    return " -> ".join(
        ", ".join(f"{spec.name[:50]} {spec.text()}" for spec in specs[:8]) for specs in (inputs, outputs)
    )


class Elsewhere(Protocol):
    """What other engines have."""

    def has(self, name: str) -> bool:
        """Whether there is a name anywhere. From any thread."""

    def check(self, name: str, version: int, here: Mapping[int, ServedModel]) -> None:
        """Whether a version of a name, 0 the latest, is to be taken of those that are here. From any thread.

        Raises: ModelElsewhere.
        """


class Registry:
    """The models by name and version."""

    def __init__(self, scheduler: Scheduler) -> None:
        # Takes finished requests, once a batch, on the engine's thread. Set by whoever put them in the queue.
        self.deliver: Callable[[list[Request]], None] = notify
        # What other engines have, in a house.
        self.elsewhere: Elsewhere | None = None
        self._scheduler = scheduler
        self._lock = threading.Lock()
        # Replaced, not changed: who looks needs no lock.
        self._versions: dict[str, dict[int, ServedModel]] = {}

    def has(self, name: str) -> bool:
        """Whether there is a name, here or on another engine."""
        return name in self._versions or (self.elsewhere is not None and self.elsewhere.has(name))

    def index(self) -> list[ServedModel]:
        """Every version there is, in the order of names and versions."""
        return [versions[number] for _, versions in sorted(self._versions.items()) for number in sorted(versions)]

    def versions(self, name: str) -> list[ServedModel]:
        """The versions of one name in ascending order. Raises: NotFound."""
        versions = self._versions.get(name)
        if not versions:
            raise names.unknown(name)
        return [versions[number] for number in sorted(versions)]

    def find(self, name: str, version: int = 0) -> ServedModel:
        """A version that this engine has; 0 is the latest one that is ready, or where none is, the highest.

        Raises: NotFound; ModelElsewhere where another engine is to be asked.
        """
        versions = self._versions.get(name, {})
        if self.elsewhere is not None:
            self.elsewhere.check(name, version, versions)
        return self._chosen(name, version, versions)

    def find_here(self, name: str, version: int = 0) -> ServedModel:
        """The same, whatever other engines have. Raises: NotFound."""
        return self._chosen(name, version, self._versions.get(name, {}))

    def _chosen(self, name: str, version: int, versions: dict[int, ServedModel]) -> ServedModel:
        if version and (found := versions.get(version)) is not None:
            return found
        return versions[names.chosen(name, version, {number: each.state for number, each in versions.items()})]

    def check_free(self, name: str, version: int) -> int:
        """The version that a new model gets; 0 asks for version 1 of a new name.

        Raises: InvalidArgument for a name that cannot be, AlreadyExists.
        """
        return names.free(name, version, self._versions.get(name, {}))

    def check_claim(self, name: str, claim: Claim) -> str:
        """Who is to own a new version of a name. Raises: as `claim`."""
        return claim(self._versions.get(name, {}))

    def add(
        self,
        name: str,
        version: int,
        model: Model,
        batching: BatchingConfig,
        claim: Claim | None = None,
        room: Callable[[int], None] = lambda used: None,
    ) -> ServedModel:
        """Let a model serve. `room` is told how many its owner has. Raises: as `check_free`, `claim` and `room`."""
        with self._lock:
            owner = "" if claim is None else self.check_claim(name, claim)
            room(sum(is_of(each, owner) for each in self.index()))
            version = self.check_free(name, version)
            served = ServedModel(name, version, model, batching, self._scheduler, self._deliver, owner)
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
