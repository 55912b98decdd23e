"""The seam between the modules and the client's core: the only file here that knows how calls are made."""

from __future__ import annotations

from typing import Any, TypeVar

from tclient._gradients import gradients, is_new
from tclient._issue import call_builtin
from tclient._session.handles import RemoteObject
from tclient._session.modes import MODES
from tclient._tensor import Tensor, describe

__all__ = [
    "RemoteObject",
    "Tensor",
    "adopt",
    "adopt_new",
    "call_builtin",
    "describe",
    "gradients",
    "make_network",
    "may_run_networks",
    "run_network",
    "same_session",
]

T = TypeVar("T", bound=Tensor)


def adopt(kind: type[T], tensor: Tensor) -> T:
    """An object of a subclass that stands for the same tensor on the server."""
    made: T = tensor._alias(kind)
    return made


def adopt_new(kind: type[T], tensor: Tensor) -> T:
    """The same of a tensor that was just made: it has no gradient."""
    is_new(tensor)
    return adopt(kind, tensor)


def make_network(layers: list[dict[str, Any]]) -> RemoteObject:
    """A network of these layers, kept by the server as long as the object lives. Does not wait."""
    made: RemoteObject = call_builtin("tc.network", layers)
    return made


def run_network(network: RemoteObject, input: Tensor) -> Tensor:
    """The output of a network. Does not wait."""
    output: Tensor = call_builtin("tc.forward", network, input)
    return output


def may_run_networks() -> bool:
    """Whether modules may run as networks of the session: what is recorded for a served model is calls alone."""
    return MODES.recorder is None or MODES.recorder.has_networks


def same_session(network: RemoteObject, tensor: Tensor) -> bool:
    """Whether both are held by the same session."""
    return network._ref.session is tensor._ref.session
