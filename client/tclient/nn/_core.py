"""The seam between the modules and the client's core: the only file here that knows how calls are made."""

from __future__ import annotations

from typing import Any, TypeVar

from tclient._handle import RemoteObject
from tclient._issue import own
from tclient._tensor import Tensor

__all__ = ["RemoteObject", "Tensor", "adopt", "make_network", "own", "run_network", "same_session"]

T = TypeVar("T", bound=Tensor)


def adopt(kind: type[T], tensor: Tensor) -> T:
    """An object of a subclass that stands for the same tensor on the server."""
    made: T = tensor._alias(kind)
    return made


def make_network(layers: list[dict[str, Any]]) -> RemoteObject:
    """A network of these layers, kept by the server as long as the object lives. Does not wait."""
    made: RemoteObject = own("tc.network", layers)
    return made


def run_network(network: RemoteObject, input: Tensor) -> Tensor:
    """The output of a network. Does not wait."""
    output: Tensor = own("tc.forward", network, input)
    return output


def same_session(network: RemoteObject, tensor: Tensor) -> bool:
    """Whether both are held by the same session."""
    return network._cell.session is tensor._cell.session
