"""The port: what the front needs of an engine, in bytes, messages, numbers and futures.

An engine is a whole small server but for its address: sessions, models, and a device that runs their work. Where it
runs is no concern of the front. What passes here knows no gRPC, and nothing of torch is seen from here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Protocol

from tensorcompute.v1 import model_service_pb2 as ms
from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as ts

if TYPE_CHECKING:
    # What the calls of the port give and take, under the port's name.
    from tserver.engine.engine import Usage
    from tserver.engine.gpu import GpuStatus
    from tserver.engine.looking import Listing, Looked
    from tserver.engine.object_store import Staged
    from tserver.engine.shares import Share
    from tserver.engine.uploads import Upload
    from tserver.engines.disk_use import DiskUse
    from tserver.engines.model_calls import ModelCalls
    from tserver.engines.storage_calls import StorageCalls
    from tserver.limits.account import Accounts
    from tserver.models.batching import BatchingConfig
    from tserver.models.manager import ModelManager
    from tserver.models.names import State
    from tserver.models.registry import ServedModel
    from tserver.models.replicas import Replicas
    from tserver.models.requests import Given
    from tserver.session.attachment import StreamAttachment
    from tserver.session.registry import Sessions
    from tserver.session.session import Session

__all__ = [
    "Counts",
    "Engine",
    "GpuStatus",
    "Listing",
    "Looked",
    "ModelCalls",
    "ModelManager",
    "Models",
    "Replicas",
    "Served",
    "ServedModel",
    "Session",
    "Sessions",
    "Share",
    "Spec",
    "Staged",
    "StorageCalls",
    "StreamAttachment",
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


class Spec(Protocol):
    """An input or an output of a model."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def dtype(self) -> pb.DType:
        """The element type."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes, -1 where one varies."""

    def text(self) -> str:
        """The dtype and the dimensions, as they are told to callers."""


class Failures(Protocol):
    """Requests that were refused."""

    def failed(self, reason: str) -> None:
        """One more."""


class Served(Protocol):
    """One version of a model, wherever it is."""

    name: str
    version: int
    # Who may change it, where it is public.
    owner: str
    batching: BatchingConfig
    state: State
    reason: str

    @property
    def inputs(self) -> Sequence[Spec]:
        """What it takes."""

    @property
    def outputs(self) -> Sequence[Spec]:
        """What it gives."""

    @property
    def is_batched(self) -> bool:
        """Whether the first dimension of all of them is the batch."""

    @property
    def device(self) -> str:
        """Where the weights are."""

    @property
    def parameter_bytes(self) -> int:
        """What they take."""

    @property
    def statistics(self) -> Failures:
        """Where it is counted what is refused before it is run."""

    def output_shapes(self, shapes: Sequence[Sequence[int]]) -> list[tuple[int, ...] | None]:
        """The shapes of the outputs for inputs of these shapes; None where those do not tell."""


class Index(Protocol):
    """Models by name and version."""

    def has(self, name: str) -> bool:
        """Whether there is a name."""

    def find(self, name: str, version: int = 0) -> Any:
        """A version; 0 is the latest one that is ready, or where none is, the highest. Raises: NotFound."""

    def versions(self, name: str) -> Sequence[Any]:
        """The versions of one name in ascending order. Raises: NotFound."""

    def index(self) -> Sequence[Any]:
        """Every version."""


class Models(Protocol):
    """The models of one engine, or of many: each that is found is Served, and is given to those that found it."""

    @property
    def registry(self) -> Index:
        """Which there are."""

    def request_by_name(self, served: Any, given: Mapping[str, Given]) -> Any:
        """A Request by value, checked. Raises: ModelNotReady, InvalidArgument."""

    async def run(self, served: Any, request: Any, principal: str) -> None:
        """Run a request of a principal's. Raises: what became of it."""

    async def counted(self, served: Any) -> ms.MlpStatistics:
        """How often and how fast a version was run."""

    async def load(self, name: str) -> object:
        """Have a model serve. Raises: NotFound, ModelNotReady, Exhausted."""

    async def unload(self, name: str) -> None:
        """Have a model serve no more. Raises: NotFound."""


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
    # What is kept on disk under names.
    storage_calls: StorageCalls
    # What comes from other engines, and goes to them.
    replicas: Replicas
    counts: Counts
    # What principals may use, and what they use of it; None where there is no data directory.
    accounts: Accounts
    disk_use: DiskUse | None

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
