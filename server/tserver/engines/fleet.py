"""Where the engines of a house come from: the port in its second form, whose engines are other processes.

They may be children of the supervisor (processes.py), or actors on many hosts. Knows neither gRPC nor torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from tserver.config import Config
from tserver.engines.house import House


@dataclass(frozen=True, slots=True)
class Launch:
    """An engine that is to be there."""

    # Its settings: where it listens for clients, its device as its own process sees it, its share of threads.
    config: Config
    house: House
    # The GPUs that its process is shown, as CUDA_VISIBLE_DEVICES names them; None shows what there is.
    gpus: tuple[str, ...] | None = None
    # Whether it gets a successor when it ends by itself.
    is_kept: bool = True

    @property
    def engine(self) -> str:
        """Its id."""
        return self.house.engine


@dataclass(frozen=True, slots=True)
class Serving:
    """An engine takes requests."""

    engine: str
    # Of its run; the secrets of its sessions begin with it.
    boot_id: str
    # Where the front reaches it, and where clients do.
    internal: str
    endpoint: str
    # What it runs on, as the house counts devices.
    device: str
    node: str = ""
    pid: int = 0


@dataclass(frozen=True, slots=True)
class Ended:
    """An engine has ended."""

    engine: str
    # Empty if it never served.
    boot_id: str
    cause: str
    # Whether it gets a successor, at once or after a while.
    comes_again: bool


@dataclass(frozen=True, slots=True)
class Draining:
    """An engine is to take no new sessions: its host is drained."""

    engine: str
    cause: str


@dataclass(frozen=True, slots=True)
class Told:
    """What an engine of another host says that it has to do; the front there has asked it."""

    engine: str
    boot_id: str
    said: dict[str, Any]


Event = Serving | Ended | Draining | Told


class Fleet(Protocol):
    """All engines of a house. Used on the event loop of the front alone."""

    # Of the house, and where this front is, in a cluster; known once it is started.
    key: str
    node: str
    # In a cluster: where other fronts reach this one, and where it reaches the front that keeps the models of all,
    # which is empty if that is itself. It changes.
    internal: str
    leader: str

    async def start(self, on_event: Callable[[Event], None]) -> None:
        """Begin to tell what becomes of engines, on the event loop; at once of those that serve already, since they
        outlive a front, and of those that have ended as far as that is remembered.
        """

    def launch(self, wanted: Launch) -> None:
        """Have an engine of that id, unless there is one. That it serves, or why it does not, is told by an event."""

    def end(self, engine: str, cause: str) -> None:
        """End an engine for good; it drains first where it can."""

    def left(self, engine: str) -> None:
        """An engine whose host is drained has no model any more that others lack."""

    def tell(self, told: Told) -> None:
        """An engine of this host has said what it has to do: fronts of other hosts are to know."""

    async def stop(self) -> None:
        """Tell no more. What becomes of the engines is the fleet's business."""
