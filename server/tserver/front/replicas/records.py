"""What the front knows of each model of a house: where it is, and what it is to be. Asks no engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tensorcompute.tables import dtypes
from tensorcompute.v1 import model_service_pb2 as ms
from tensorcompute.v1 import tensor_pb2 as pb
from tserver.errors import ModelNotReady
from tserver.models import names
from tserver.models.batching import BatchingConfig
from tserver.models.names import STATES, State
from tserver.models.owners import Claim
from tserver.models.shapes import output_shapes

if TYPE_CHECKING:
    from tserver.front.replicas.links import Content

_STATES_OF: dict[int, State] = {code: state for state, code in STATES.items()}


class Replica:
    """A model on one engine."""

    __slots__ = ("boot_id", "device", "engine", "rows", "state")

    def __init__(self, engine: str, boot_id: str, state: State, device: str) -> None:
        self.engine, self.boot_id = engine, boot_id
        self.state: State = state
        self.device = device
        # Rows that the front has under way there.
        self.rows = 0


@dataclass(frozen=True, slots=True)
class Spec:
    """An input or an output. A dimension is a size, or the name of one that varies."""

    name: str
    dtype: pb.DType
    dimensions: tuple[int | str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes, -1 where one varies."""
        return tuple(-1 if isinstance(size, str) else size for size in self.dimensions)

    def text(self) -> str:
        """The dtype and the dimensions, as they are told to callers."""
        dimensions = ", ".join(str(size) or "?" for size in self.dimensions)
        name = next((row.name for row in dtypes.DTYPES if row.code == self.dtype), "unknown")
        return f"{name} of shape ({dimensions}{',' if len(self.dimensions) == 1 else ''})"


class Failures:
    """What is counted of requests that no engine was asked."""

    def failed(self, reason: str) -> None:
        """One was refused here. Engines count what they refuse."""


class Record:
    """One version of a model."""

    def __init__(
        self, name: str, version: int, batching: BatchingConfig, wanted: int, owner: str, size_bytes: int = 0
    ) -> None:
        self.name, self.version = name, version
        # Who may change it, where it is public.
        self.owner = owner
        self.batching = batching
        # On how many engines it is to be; 0 is each that has room.
        self.wanted = wanted
        # What it is to be on all engines that have it.
        self.state: State = "READY"
        self.reason = ""
        self.is_persistent = False
        # What it is made of, while no engine has it that is its owner's, and no disk.
        self.parked: Content | None = None
        # By the engine.
        self.replicas: dict[str, Replica] = {}
        # Runs of engines that have no memory for it.
        self.refused: set[str] = set()
        # What an engine has said of it last; of one that comes from disk, nothing before an engine has it.
        self._summary = ms.MlpSummary(name=name, version=version, parameter_bytes=size_bytes)
        self.is_known = False
        self.inputs: tuple[Spec, ...] = ()
        self.outputs: tuple[Spec, ...] = ()
        self.statistics = Failures()

    def know(self, summary: ms.MlpSummary) -> None:
        """An engine describes it."""
        self._summary.CopyFrom(summary)
        self.inputs, self.outputs = _specs(summary.inputs), _specs(summary.outputs)
        self.is_known = True

    @property
    def parameter_bytes(self) -> int:
        """What its weights take; 0 before that is known."""
        return self._summary.parameter_bytes

    @property
    def is_batched(self) -> bool:
        """Whether the first dimension of all inputs and outputs is the batch."""
        return self._summary.is_batched

    @property
    def device(self) -> str:
        """Where its weights are, on one of the engines."""
        serves = next(self.serving(), None)
        return self._summary.device if serves is None else serves.device

    def output_shapes(self, shapes: Sequence[Sequence[int]]) -> list[tuple[int, ...] | None]:
        """The shapes of the outputs for inputs of these shapes; None where those do not tell."""
        return output_shapes(self.inputs, self.outputs, shapes)

    @property
    def is_gone(self) -> bool:
        """Whether nothing is left of it."""
        return not (self.replicas or self.is_persistent or self.parked is not None)

    def serving(self) -> Iterator[Replica]:
        """Where it serves."""
        return (replica for replica in self.replicas.values() if replica.state == "READY")

    def not_ready(self) -> ModelNotReady:
        """What is told of one that does not serve."""
        if self.state == "READY":
            return names.not_ready(self.name, self.version, "UNAVAILABLE", "no engine has it now")
        return names.not_ready(self.name, self.version, self.state, self.reason)

    def summary(self) -> ms.MlpSummary:
        """The description that callers get."""
        told = ms.MlpSummary()
        told.CopyFrom(self._summary)
        serves = next(self.serving(), None)
        is_lost = self.state == "READY" and serves is None
        told.state = STATES["UNAVAILABLE" if is_lost else self.state]
        told.state_reason = "no engine has it now" if is_lost else self.reason
        if serves is not None:
            told.device = serves.device
        told.batching.CopyFrom(self.batching.message())
        told.is_persistent = self.is_persistent
        told.wanted_replicas = self.wanted
        told.owner = names.owner_in(self.name) or self.owner
        told.public = names.is_public(self.name)
        del told.replicas[:]
        for replica in sorted(self.replicas.values(), key=lambda replica: replica.engine):
            told.replicas.add(engine=replica.engine, state=STATES[replica.state], device=replica.device)
        return told

    def told(self) -> dict[str, Any]:
        """What engines are told of it."""
        return {
            "ready": self.state == "READY",
            "engines": sorted(replica.engine for replica in self.serving()),
            "is_persistent": self.is_persistent,
            "replicas": self.wanted,
        }


class Records:
    """All of them."""

    def __init__(self) -> None:
        self._by_name: dict[str, dict[int, Record]] = {}

    def has(self, name: str) -> bool:
        """Whether there is a name."""
        return name in self._by_name

    def get(self, name: str, version: int) -> Record | None:
        """A version, if there is one."""
        return self._by_name.get(name, {}).get(version)

    def find(self, name: str, version: int = 0) -> Record:
        """A version; 0 is the latest one that is ready, or where none is, the highest. Raises: NotFound."""
        versions = self._by_name.get(name, {})
        return versions[names.chosen(name, version, {number: each.state for number, each in versions.items()})]

    def versions(self, name: str) -> list[Record]:
        """The versions of one name in ascending order. Raises: NotFound."""
        versions = self._by_name.get(name)
        if not versions:
            raise names.unknown(name)
        return [versions[number] for number in sorted(versions)]

    def owner(self, name: str, claim: Claim) -> str:
        """Who is to own a new version of a name. Raises: as `claim`."""
        return claim(self._by_name.get(name, {}))

    def numbers(self, name: str) -> set[int]:
        """The numbers of the versions of a name, which may have none."""
        return set(self._by_name.get(name, ()))

    def index(self) -> list[Record]:
        """Every version, in the order of names and versions."""
        return [versions[number] for _, versions in sorted(self._by_name.items()) for number in sorted(versions)]

    def names(self) -> list[str]:
        """All names."""
        return sorted(self._by_name)

    def add(self, record: Record) -> None:
        """There is one more."""
        self._by_name.setdefault(record.name, {})[record.version] = record

    def remove(self, record: Record) -> None:
        """Forget one."""
        versions = self._by_name.get(record.name, {})
        if versions.get(record.version) is record:
            del versions[record.version]
            if not versions:
                del self._by_name[record.name]

    def told(self, name: str) -> dict[str, Any]:
        """What engines are told of a name."""
        versions = self._by_name.get(name, {})
        latest = self.find(name).version if versions else 0
        return {"latest": latest, "versions": {str(number): each.told() for number, each in versions.items()}}


def _specs(told: Iterable[ms.TensorSpec]) -> tuple[Spec, ...]:
    return tuple(
        Spec(spec.name, spec.dtype, tuple(each.size or each.name for each in spec.dimensions)) for spec in told
    )


def state_of(summary: ms.MlpSummary) -> State:
    """The state that an engine tells of."""
    return _STATES_OF.get(summary.state, "UNAVAILABLE")
