"""What the protocol offers but for inference itself, whatever wire it is asked by. Answers are its messages.

Errors are raised, and become statuses in the interceptor.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

from tensorcompute.oip import inference_pb2 as oip
from tserver import __version__
from tserver.config import Config
from tserver.errors import InvalidArgument, NotFound, PermissionDenied, Unimplemented
from tserver.front.oip import describe
from tserver.front.oip.inference import Inferences, version_of
from tserver.front.oip.regions import AllRegions, Region
from tserver.front.oip.settings import Told, TraceSettings, change_log, log_told
from tserver.identity import Role
from tserver.models.owners import Owners, check_may_change, told_name

if TYPE_CHECKING:
    from tserver.engines.port import Models, Served
    from tserver.front.health import Health
    from tserver.identity import Identity

_EXTENSIONS = (
    "model_repository",
    "model_configuration",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "trace",
    "logging",
)
_SHARED_MEMORY = "system_shared_memory"


class Service:
    """The models of one process, and the regions of shared memory, for all listeners of the protocol."""

    def __init__(self, config: Config, models: Models, health: Health) -> None:
        self._config = config
        self._models = models
        self._registry = models.registry
        self._owners = Owners(models.registry.has)
        self._traces = TraceSettings(config.trace_rate)
        self.inferences = Inferences(models, AllRegions() if config.oip_shared_memory else None, self._traces)
        self._health = health

    # --- the server and its models ---

    @property
    def is_ready(self) -> bool:
        """Whether the server is: not while its engine does not go on, and not any more once it is told to stop."""
        return self._health.is_serving

    def metadata(self) -> oip.ServerMetadataResponse:
        """The server's name, and what it has beyond the protocol itself."""
        extensions = [*_EXTENSIONS, *([_SHARED_MEMORY] if self._config.oip_shared_memory else [])]
        return oip.ServerMetadataResponse(name=describe.PLATFORM, version=__version__, extensions=extensions)

    def find(self, name: str, version: str, identity: Identity) -> Served:
        """The version of a model that a caller names. Raises: NotFound, InvalidArgument."""
        return self.inferences.find(name, version_of(version), identity)

    def is_model_ready(self, name: str, version: str, identity: Identity) -> bool:
        """Whether a version would be run. Raises: InvalidArgument."""
        try:
            served = self.find(name, version, identity)
        except NotFound:
            return False
        return self.is_ready and served.state == "READY"

    def model_metadata(self, name: str, version: str, identity: Identity) -> oip.ModelMetadataResponse:
        """Inputs and outputs. Raises: as `find`."""
        served = self.find(name, version, identity)
        return describe.metadata(served, self._registry.versions(served.name), name)

    def model_config(self, name: str, version: str, identity: Identity) -> oip.ModelConfig:
        """How a version is served. Raises: as `find`."""
        return describe.config(self.find(name, version, identity), name)

    async def statistics(self, name: str, version: str, identity: Identity) -> oip.ModelStatisticsResponse:
        """How often and how fast versions were run: those of one name, or of all. Raises: as `find`."""
        number = version_of(version)
        found: Sequence[Served]
        if not name:
            seen = self._owners.visible(self._registry.index(), identity)
            found = [served for served in seen if number in (0, served.version)]
        elif number:
            found = [self.find(name, version, identity)]
        else:
            found = self._registry.versions(self._owners.qualified(name, identity))
        told = [
            describe.statistics(served, await self._models.counted(served), told_name(served.name, identity))
            for served in found
        ]
        return oip.ModelStatisticsResponse(model_stats=told)

    # --- the repository ---

    def index(self, repository: str, identity: Identity, *, only_ready: bool) -> oip.RepositoryIndexResponse:
        """Every version that a caller sees. Raises: InvalidArgument."""
        _check_repository(repository)
        seen = self._owners.visible(self._registry.index(), identity)
        return describe.index([(told_name(each.name, identity), each) for each in seen], only_ready=only_ready)

    async def load(self, repository: str, name: str, parameters: Collection[str], identity: Identity) -> None:
        """Have a model serve. Raises: PermissionDenied, Unimplemented, NotFound, ModelNotReady."""
        self._check_control("load", repository)
        if parameters:
            raise Unimplemented(
                f"loading with {', '.join(sorted(parameters))[:200]} is not served: create and configure "
                "networks with tensorcompute.v1.ModelService"
            )
        await self._models.load(self._to_change(self._owners.to_load(name, 0, identity), identity))

    async def unload(self, repository: str, name: str, identity: Identity) -> None:
        """Have a model serve no more. Raises: PermissionDenied, NotFound."""
        self._check_control("unload", repository)
        await self._models.unload(self._to_change(self._owners.qualified(name, identity), identity))

    # --- shared memory ---

    def regions(self, name: str, identity: Identity) -> list[Region]:
        """A region of the caller's, or all of them. Raises: PermissionDenied, NotFound."""
        regions = self.inferences.regions(identity)
        return [regions.find(name)] if name else regions.all()

    def register(self, name: str, key: str, offset: int, byte_size: int, identity: Identity) -> None:
        """Make a part of an object known. Raises: PermissionDenied, and as Regions.register."""
        self.inferences.regions(identity).register(name, key, offset, byte_size)

    def unregister(self, name: str, identity: Identity) -> None:
        """Forget a region of the caller's, or all of them. Raises: PermissionDenied."""
        self.inferences.regions(identity).unregister(name)

    def no_cuda(self) -> NoReturn:
        """Raises: Unimplemented."""
        raise Unimplemented(
            "CUDA shared memory is not served; send elements in the request, or use system shared memory"
        )

    # --- settings ---

    def trace_settings(self, model: str, changes: Told, identity: Identity) -> Told:
        """Which requests for inference are traced, of all models or of one, once these have changed.

        Raises: PermissionDenied, NotFound, InvalidArgument, NotConfigured.
        """
        name = self.find(model, "", identity).name if model else ""
        if changes:
            _check_admin("traces", identity)
            self._traces.change(changes, name)
        return self._traces.told(name)

    def log_settings(self, changes: Mapping[str, object], identity: Identity) -> dict[str, bool | int | str]:
        """What is written to the log, once these have changed. Raises: PermissionDenied, InvalidArgument."""
        if changes:
            _check_admin("the log", identity)
            change_log(changes)
        return log_told()

    def _to_change(self, name: str, identity: Identity) -> str:
        """The name of models that a caller may change. Raises: PermissionDenied."""
        if self._registry.has(name):
            check_may_change(self._registry.versions(name), identity)
        return name

    def _check_control(self, what: str, repository: str) -> None:
        if not self._config.oip_model_control:
            raise PermissionDenied(
                f"to {what} models is not allowed here; start the server with --oip-model-control to allow it"
            )
        _check_repository(repository)


def _check_admin(what: str, identity: Identity) -> None:
    if identity.role < Role.ADMIN:
        raise PermissionDenied(f"settings of {what} are those of all callers, and are changed by an admin")


def _check_repository(name: str) -> None:
    if name:
        raise InvalidArgument(
            f"there is one repository, without a name; repository_name is {name[:200]!r}, leave it empty"
        )
