"""The port: what the front needs of an engine, in bytes, messages, numbers and futures.

An engine is a whole small server but for its address: sessions, models, and a device that runs their work. Where it
runs is no concern of the front. What passes here knows no gRPC, and nothing of torch is seen from here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol

from tensorcompute.v1 import tensor_service_pb2 as ts

if TYPE_CHECKING:
    # What the calls of the port give and take, under the port's name.
    from tserver.engine.engine import Usage
    from tserver.engine.gpu import GpuStatus
    from tserver.engine.models.spec import TensorSpec
    from tserver.engine.object_store import Staged
    from tserver.engine.uploads import Upload
    from tserver.engines.model_calls import ModelCalls
    from tserver.models.manager import ModelManager
    from tserver.models.registry import ServedModel
    from tserver.session.attachment import StreamAttachment
    from tserver.session.registry import Sessions
    from tserver.session.session import Session

__all__ = [
    "Counts",
    "Engine",
    "GpuStatus",
    "ModelCalls",
    "ModelManager",
    "ServedModel",
    "Session",
    "Sessions",
    "Staged",
    "StreamAttachment",
    "TensorSpec",
    "Upload",
    "Usage",
]


class Counts(Protocol):
    """How much work there was. Read from any thread; numbers only grow."""

    batches: int
    calls: int

    @property
    def failures(self) -> Mapping[str, int]:
        """Calls that failed or were skipped, by the reason."""


class Engine(Protocol):
    """One engine."""

    # Where new tensors go, as torch names it.
    device: str
    torch_version: str
    # Says which operations there are.
    operations_digest: str
    sessions: Sessions
    models: ModelManager
    model_calls: ModelCalls
    counts: Counts

    def start(self) -> None:
        """Begin to take work."""

    def watch(self, on_stall: Callable[[bool], None]) -> None:
        """Notice it when work does not go on, and tell whether it does when that changes; from a thread of its own."""

    def stop_watching(self) -> None:
        """Work may stand still from now on."""

    def stop(self, timeout_s: float) -> str:
        """End after the work that waits now. What is still being done when the time is up, in words; empty if all
        ended.
        """

    def devices(self) -> list[ts.DeviceInfo]:
        """Every device, and its memory now."""

    def gpus(self) -> list[GpuStatus]:
        """What the GPUs are doing. From any thread."""

    def usage(self) -> Future[Usage]:
        """What all sessions hold, seen in its place among the work. From any thread."""

    def check_device(self, name: str) -> None:
        """Refuse a device that is not there. Raises: InvalidArgument."""
