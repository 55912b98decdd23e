"""What the protocol offers but for inference itself, whatever wire it is asked by. Answers are its messages.

Errors are raised, and become statuses in the interceptor.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NoReturn

from tensorcompute.oip import inference_pb2 as oip
from tserver import __version__
from tserver.config import Config
from tserver.errors import InvalidArgument, NotFound, PermissionDenied, Unimplemented
from tserver.front.oip import describe
from tserver.front.oip.inference import Inferences, version_of
from tserver.front.oip.regions import Region, Regions

if TYPE_CHECKING:
    from tserver.engines.port import Models, Served

_EXTENSIONS = ("model_repository", "model_configuration", "binary_tensor_data", "parameters", "statistics")
_SHARED_MEMORY = "system_shared_memory"


class Service:
    """The models of one process, and the regions of shared memory, for all listeners of the protocol."""

    def __init__(self, config: Config, models: Models) -> None:
        self._config = config
        self._models = models
        self._registry = models.registry
        self.inferences = Inferences(models, Regions() if config.oip_shared_memory else None)
        # Not any more once the server is told to stop.
        self.is_ready = True

    # --- the server and its models ---

    def metadata(self) -> oip.ServerMetadataResponse:
        """The server's name, and what it has beyond the protocol itself."""
        extensions = [*_EXTENSIONS, *([_SHARED_MEMORY] if self._config.oip_shared_memory else [])]
        return oip.ServerMetadataResponse(name=describe.PLATFORM, version=__version__, extensions=extensions)

    def find(self, name: str, version: str) -> Served:
        """A version of a model. Raises: NotFound, InvalidArgument."""
        found: Served = self._registry.find(name, version_of(version))
        return found

    def is_model_ready(self, name: str, version: str) -> bool:
        """Whether a version would be run. Raises: InvalidArgument."""
        try:
            served = self.find(name, version)
        except NotFound:
            return False
        return self.is_ready and served.state == "READY"

    def model_metadata(self, name: str, version: str) -> oip.ModelMetadataResponse:
        """Inputs and outputs. Raises: as `find`."""
        served = self.find(name, version)
        return describe.metadata(served, self._registry.versions(served.name))

    def model_config(self, name: str, version: str) -> oip.ModelConfig:
        """How a version is served. Raises: as `find`."""
        return describe.config(self.find(name, version))

    async def statistics(self, name: str, version: str) -> oip.ModelStatisticsResponse:
        """How often and how fast versions were run: those of one name, or of all. Raises: as `find`."""
        number = version_of(version)
        found: Sequence[Served]
        if not name:
            found = [served for served in self._registry.index() if number in (0, served.version)]
        elif number:
            found = [self._registry.find(name, number)]
        else:
            found = self._registry.versions(name)
        told = [describe.statistics(served, await self._models.counted(served)) for served in found]
        return oip.ModelStatisticsResponse(model_stats=told)

    # --- the repository ---

    def index(self, repository: str, *, only_ready: bool) -> oip.RepositoryIndexResponse:
        """Every version there is. Raises: InvalidArgument."""
        _check_repository(repository)
        return describe.index(self._registry.index(), only_ready=only_ready)

    async def load(self, repository: str, name: str, parameters: Collection[str]) -> None:
        """Have a model serve. Raises: PermissionDenied, Unimplemented, NotFound, ModelNotReady."""
        self._check_control("load", repository)
        if parameters:
            raise Unimplemented(
                f"loading with {', '.join(sorted(parameters))[:200]} is not served: create and configure "
                "networks with tensorcompute.v1.ModelService"
            )
        await self._models.load(name)

    async def unload(self, repository: str, name: str) -> None:
        """Have a model serve no more. Raises: PermissionDenied, NotFound."""
        self._check_control("unload", repository)
        await self._models.unload(name)

    # --- shared memory ---

    def regions(self, name: str, *, is_local: bool) -> list[Region]:
        """A region, or all of them. Raises: PermissionDenied, NotFound."""
        regions = self.inferences.regions(is_local)
        return [regions.find(name)] if name else regions.all()

    def register(self, name: str, key: str, offset: int, byte_size: int, *, is_local: bool) -> None:
        """Make a part of an object known. Raises: PermissionDenied, and as Regions.register."""
        self.inferences.regions(is_local).register(name, key, offset, byte_size)

    def unregister(self, name: str, *, is_local: bool) -> None:
        """Forget a region, or all of them. Raises: PermissionDenied."""
        self.inferences.regions(is_local).unregister(name)

    def no_cuda(self) -> NoReturn:
        """Raises: Unimplemented."""
        raise Unimplemented(
            "CUDA shared memory is not served; send elements in the request, or use system shared memory"
        )

    def _check_control(self, what: str, repository: str) -> None:
        if not self._config.oip_model_control:
            raise PermissionDenied(
                f"to {what} models is not allowed here; start the server with --oip-model-control to allow it"
            )
        _check_repository(repository)


def _check_repository(name: str) -> None:
    if name:
        raise InvalidArgument(
            f"there is one repository, without a name; repository_name is {name[:200]!r}, leave it empty"
        )
