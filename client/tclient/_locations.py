"""map_location: where the tensors of a file go. Knows devices; does not know files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tclient._codec.device import device


class _Storage:
    """What a function for map_location gets of the memory of a tensor: where it is, and where it shall be."""

    def __init__(self, place: Any) -> None:
        self.device = device(place)

    def cpu(self) -> _Storage:
        """The same in the memory of the server."""
        return _Storage("cpu")

    def cuda(self, device: Any = None, non_blocking: bool = False) -> _Storage:
        """The same on a GPU."""
        return _Storage("cuda" if device is None else f"cuda:{device}" if isinstance(device, int) else device)

    def to(self, *, device: Any, non_blocking: bool = False) -> _Storage:
        """The same on a device."""
        return _Storage(device)


def mapping(map_location: Any, default: Callable[[], Any]) -> Callable[[str], Any]:
    """Where a tensor goes that was at a place. Raises what torch raises for a GPU that is not there."""
    if map_location is None:
        return lambda location: default()
    if isinstance(map_location, Mapping):
        return lambda location: _checked(map_location.get(location, location))
    if callable(map_location):

        def called(location: str) -> Any:
            given = map_location(_Storage("cpu"), location)
            return _checked(location if given is None else given.device)

        return called
    where = _checked(map_location)
    return lambda location: where


def _checked(place: Any) -> Any:
    found = device(place)
    if found.type == "cuda":
        import tclient

        if not tclient.cuda.is_available():
            raise RuntimeError(
                "Attempting to deserialize object on a CUDA device but torch.cuda.is_available() is False. If you are "
                "running on a CPU-only machine, please use torch.load with map_location=torch.device('cpu') to map "
                "your storages to the CPU."
            )
    return found
