"""All models of the server: names, versions and states. The whole server's: no caller has models of its own.

Any thread may look; changes come from the thread that serves and from the engine's, under a lock. Knows torch; does not
know gRPC, and leaves disks to `store`.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any, Literal

import torch

from tensorcompute.v1 import model_service_pb2 as ms
from tserver.engine.dtypes import DTYPE_CODES
from tserver.engine.models.batching import BatchingConfig
from tserver.engine.models.lane import ModelLane, Scheduler
from tserver.engine.models.model import Model
from tserver.engine.models.requests import Request
from tserver.engine.models.statistics import ModelStatistics
from tserver.engine.streams import Line
from tserver.engine.transfers import send
from tserver.errors import AlreadyExists, InvalidArgument, ModelNotReady, NotFound

State = Literal["READY", "UNLOADING", "UNAVAILABLE"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_MAX_VERSION = (1 << 31) - 1
_STATES: dict[str, ms.MlpState] = {
    "READY": ms.MLP_STATE_READY,
    "UNLOADING": ms.MLP_STATE_UNLOADING,
    "UNAVAILABLE": ms.MLP_STATE_UNAVAILABLE,
}


class Served:
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
        # Where there is no disk to load it from again, an unloaded model waits in the memory of the host.
        self.unloaded: Model | None = None
        self._describe(model)
        self.lane = ModelLane(model, batching, self.statistics, scheduler, deliver)
        self.lane.version = version

    @property
    def waiting(self) -> int:
        """How many requests wait now."""
        return len(self.lane.queue)

    def ready(self) -> Model:
        """The network. Raises: ModelNotReady."""
        model = self.lane.model
        if self.state != "READY" or model is None:
            raise ModelNotReady(
                f"version {self.version} of {self.name!r} is not ready ({self.state.lower()}"
                f"{': ' + self.reason if self.reason else ''}); load it, or ask for another version"
            )
        return model

    def use(self, model: Model) -> None:
        """Run the batches to come by this network. Raises: ModelNotReady if requests that wait would not fit it."""
        has = (self.in_features, self.out_features, self.dtype)
        if (brings := (model.in_features, model.out_features, model.dtype)) != has:
            raise ModelNotReady(
                f"version {self.version} of {self.name!r} on disk has inputs, outputs and dtype {brings}, but the one "
                f"that is served has {has}: it is another network. Delete this version, or give that one another"
            )
        self.lane.use(model)
        self._describe(model)

    def _describe(self, model: Model) -> None:
        self.layers = model.layers
        self.in_features, self.out_features = model.in_features, model.out_features
        self.dtype, self.device = model.dtype, str(model.device)
        self.parameters, self.parameter_bytes = model.parameters, model.parameter_bytes
        self.flops_per_row, self.text = model.flops_per_row, model.text
        self.non_finite_parameters = model.non_finite_parameters

    def configure(self, batching: BatchingConfig) -> None:
        """Change how requests are batched."""
        self.batching = batching
        self.lane.configure(batching)

    def summary(self) -> ms.MlpSummary:
        """The description that callers get."""
        return ms.MlpSummary(
            name=self.name,
            version=self.version,
            layers=self.layers,
            dtype=DTYPE_CODES[self.dtype],
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
        )


class Registry:
    """The models by name and version."""

    def __init__(self, device: torch.device, scheduler: Scheduler) -> None:
        self.device = device
        # Takes finished requests, once a batch, on the engine's thread. Set by whoever put them in line.
        self.deliver: Callable[[list[Request]], None] = _settle
        self._scheduler = scheduler
        self._lock = threading.Lock()
        # Replaced, not changed: who looks needs no lock.
        self._versions: dict[str, dict[int, Served]] = {}

    def index(self) -> list[Served]:
        """Every version there is, in the order of names and versions."""
        return [versions[number] for _, versions in sorted(self._versions.items()) for number in sorted(versions)]

    def versions(self, name: str) -> list[Served]:
        """The versions of one name in ascending order. Raises: NotFound."""
        versions = self._versions.get(name)
        if not versions:
            raise NotFound(f"no network is named {name[:200]!r}; ListMlps tells which there are")
        return [versions[number] for number in sorted(versions)]

    def find(self, name: str, version: int = 0) -> Served:
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

    def add(self, name: str, version: int, model: Model, batching: BatchingConfig) -> Served:
        """Let a model serve. Raises: as `check_free`."""
        with self._lock:
            version = self.check_free(name, version)
            served = Served(name, version, model, batching, self._scheduler, self._deliver)
            self._versions = {**self._versions, name: {**self._versions.get(name, {}), version: served}}
            return served

    def remove(self, served: Served) -> None:
        """Forget a version."""
        with self._lock:
            versions = {
                number: each for number, each in self._versions.get(served.name, {}).items() if each is not served
            }
            rest = {name: each for name, each in self._versions.items() if name != served.name}
            self._versions = {**rest, served.name: versions} if versions else rest

    def forward(self, line: Line | None, name: Any, version: Any, inputs: Any) -> torch.Tensor:
        """One forward pass at once, on the engine's thread and the line that is in force there.

        Raises: NotFound, ModelNotReady, InvalidArgument.
        """
        if not isinstance(name, str) or type(version) is not int or not isinstance(inputs, torch.Tensor):
            raise TypeError("model_forward: give a name, a version and a tensor")
        served = self.find(name, version)
        model = served.ready()
        model.check(inputs.dtype, inputs.shape)
        if inputs.requires_grad:
            inputs = inputs.detach()
        if inputs.device != model.device:
            inputs = send(inputs, model.device) if inputs.is_cpu else inputs.to(model.device)
        if inputs.dim() == 2:
            return served.lane.run_now(inputs, line)
        outputs = served.lane.run_now(inputs.reshape(-1, model.in_features), line)
        return outputs.reshape(*inputs.shape[:-1], model.out_features)

    def _deliver(self, requests: list[Request]) -> None:
        self.deliver(requests)


def _settle(requests: list[Request]) -> None:
    for request in requests:
        if request.settled is not None:
            request.settled(request)
