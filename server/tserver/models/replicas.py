"""Models that come to this engine from others, and go to them, in a house. Which engine has what, the front decides.

A model comes in two steps: its weights are brought to the device beside those that serve, and then serve in their
place, which takes no time. Knows asyncio; knows neither gRPC nor the front.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tserver.engine.memory import is_out_of_memory
from tserver.engine.models import contents
from tserver.errors import InvalidArgument, NotFound, ServerError
from tserver.models import names

if TYPE_CHECKING:
    from tserver.engine.models.model import Content, Model
    from tserver.models.batching import BatchingConfig
    from tserver.models.manager import ModelManager
    from tserver.models.registry import ServedModel

DAMAGED = "MODEL_DAMAGED"
"""The reason for refusing what is no model."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    model: Model
    batching: BatchingConfig
    replicas: int
    is_persistent: bool
    owner: str


class Replicas:
    """What comes and goes."""

    def __init__(self, models: ModelManager) -> None:
        self._models = models
        self._registry = models.registry
        self._prepared: dict[tuple[str, int], _Prepared] = {}

    async def parts(self, name: str, version: int) -> tuple[ServedModel, dict[str, Any], bytes]:
        """A model of this engine, what a manifest says of it, and its file. Raises: NotFound, ModelNotReady."""
        served = self._registry.find_here(name, version)
        content = await self._models.content_of(served, also_unloaded=True)
        return served, content.manifest(), await self._models.in_thread(content.file)

    async def prepare(
        self,
        name: str,
        version: int,
        manifest: dict[str, Any],
        data: bytes | memoryview,
        batching: BatchingConfig,
        replicas: int,
        *,
        is_persistent: bool,
        owner: str = "",
    ) -> None:
        """Bring a model to the device. Raises: InvalidArgument with the reason DAMAGED; ModelNotReady where another
        network serves in its place; Exhausted.
        """
        content = await self._models.in_thread(_read, manifest, data)
        model = await self._models.on_engine(functools.partial(self._models.made, content))
        served = self._there(name, version)
        if served is not None:
            served.check_fits(model)
        self._prepared[name, version] = _Prepared(model, batching, replicas, is_persistent, owner)

    def drop(self, name: str, version: int) -> None:
        """Forget what was prepared."""
        self._prepared.pop((name, version), None)

    async def commit(self, name: str, version: int) -> ServedModel:
        """Let what was prepared serve. Raises: NotFound if nothing is."""
        async with self._models.lock(name):
            prepared = self._prepared.pop((name, version), None)
            if prepared is None:
                raise NotFound(f"version {version} of {names.bare(name)!r} was not prepared here")
            served = self._there(name, version)
            if served is None:
                served = self._registry.add(name, version, prepared.model, prepared.batching)
            else:
                served.use(prepared.model)
                if served.batching != prepared.batching:
                    served.configure(prepared.batching)
                served.unloaded = None
                served.state, served.reason = "READY", ""
            served.replicas, served.is_persistent = prepared.replicas, prepared.is_persistent
            served.owner = prepared.owner
            return served

    def _there(self, name: str, version: int) -> ServedModel | None:
        try:
            return self._registry.find_here(name, version)
        except NotFound:
            return None


def _read(manifest: dict[str, Any], data: bytes | memoryview) -> Content:
    try:
        return contents.read(manifest, data)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        cause = error.message if isinstance(error, ServerError) else f"{type(error).__name__}: {error}"
        raise InvalidArgument(cause, reason=DAMAGED) from error
