"""The models of a house, as the Open Inference Protocol's service needs them: what ModelManager is for one engine.

Requests are checked and answered here as they are beside an engine; to be run they go to a replica.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tensorcompute.v1 import model_service_pb2 as ms
from tserver.models.requests import Given, Request

if TYPE_CHECKING:
    from tserver.engines.directory import Entry
    from tserver.front.replicas.choosing import Choosing
    from tserver.front.replicas.coordinator import ModelCoordinator
    from tserver.front.replicas.records import Record


class Order(Request):
    """A request that goes to a replica."""

    __slots__ = ("given",)

    def __init__(self, rows: int, given: Mapping[str, Given]) -> None:
        size = sum(len(each.data) for each in given.values())
        super().__init__(rows, (), (), size, form=None)
        self.given = given


class HouseInference:
    """Forward passes by name, and what there is."""

    def __init__(self, coordinator: ModelCoordinator, choosing: Choosing) -> None:
        self._coordinator = coordinator
        self._choosing = choosing
        self.registry = coordinator.records

    def request_by_name(self, served: Record, given: Mapping[str, Given]) -> Order:
        """A request by value, whose names were checked. Raises: ModelNotReady."""
        if served.state != "READY":
            raise served.not_ready()
        rows = next((each.shape[0] for each in given.values() if each.shape), 1) if served.is_batched else 1
        return Order(rows, given)

    async def run(self, served: Record, request: Order, principal: str) -> None:
        """Have a replica run a request. Raises: what became of it."""
        told = {
            "name": served.name,
            "version": served.version,
            "principal": principal,
            "priority": request.priority,
            "timeout_us": request.timeout_us,
            "inputs": [
                {"name": name, "dtype": each.dtype, "shape": list(each.shape), "bytes": len(each.data)}
                for name, each in request.given.items()
            ],
        }
        datas = [each.data for each in request.given.values()]
        deadline = request.deadline

        async def ask(entry: Entry) -> tuple[list[tuple[int, ...]], Sequence[memoryview]]:
            timeout_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            return await self._coordinator.links.infer(entry, told, datas, timeout_s)

        request.batch_shapes, request.outputs = await self._choosing.run(served, request.rows, deadline, ask)

    async def counted(self, served: Record) -> ms.MlpStatistics:
        """How often and how fast a version was run."""
        return await self._coordinator.statistics(served)

    async def load(self, name: str) -> None:
        """Have a model serve."""
        await self._coordinator.load(name)

    async def unload(self, name: str) -> None:
        """Have a model serve no more."""
        await self._coordinator.unload(name)
