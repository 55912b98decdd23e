"""Modules as one call: a description of layers that the server keeps as a network.

Knows how a network is described and when one may stand for a module; does not know what the layers compute.
A description holds the very parameters, so changes to them show in the next forward. It is made again when a parameter
is replaced, a mode changes or a setting does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from tclient.nn import _hooks
from tclient.nn._changes import STATE
from tclient.nn._core import RemoteObject, Tensor, make_network, may_run_networks, run_network, same_session

if TYPE_CHECKING:
    from tclient.nn.module import Module

_OWN_OUTPUT = frozenset({"linear", "neuron"})
"""Kinds whose output is a new tensor that nobody else holds, so that writing into it shows nowhere."""


class LayerCall(NamedTuple):
    """One layer of a description."""

    kind: str
    tensors: tuple[tuple[str, Tensor | None], ...] = ()
    options: tuple[tuple[str, Any], ...] = ()
    inplace: bool = False

    def key(self) -> tuple[Any, ...]:
        """What must be the same for a network made earlier to stand for this layer."""
        return (self.kind, *(id(tensor) for _, tensor in self.tensors), *(value for _, value in self.options))

    def mapping(self) -> dict[str, Any]:
        """The layer as the server wants it."""
        return {"kind": self.kind, **dict(self.tensors), **dict(self.options)}


def describe(module: Module) -> list[LayerCall] | None:
    """The layers of a submodule, or None when only its own forward can tell what it does."""
    if _hooks.has_hooks(module) or "forward" in module.__dict__:
        return None
    if module._backward_hooks or module._backward_pre_hooks:
        return None
    return module._describe() if _describes_its_forward(type(module)) else None


class _Made(NamedTuple):
    """A network that was made of a module, and when it was right."""

    number: int
    key: tuple[Any, ...]
    # Kept as well: as long as they are, no other tensor can have the same id.
    layers: list[LayerCall]
    network: RemoteObject | None


def forward(module: Module, input: Any) -> Tensor | None:
    """The output of the module by one call, or None when it has to be run layer by layer."""
    if not may_run_networks():
        return None
    made: _Made | None = module.__dict__.get("_network")
    if made is None or made.number != STATE.number:
        made = module.__dict__["_network"] = _make(module, made)
    network = made.network
    if network is None or not isinstance(input, Tensor):
        return None
    if not same_session(network, input) and not any(layer.tensors for layer in made.layers):
        # Layers without weights go where their input is; a network can only be made in the session that is current.
        made = module.__dict__["_network"] = _make(module, None)
        network = made.network
        if network is None or not same_session(network, input):
            return None
    return run_network(network, input)


def _make(module: Module, old: _Made | None) -> _Made:
    """A network of the module as it is; the old one if it still is the same."""
    number = STATE.number
    layers = module._describe() if _describes_its_forward(type(module)) else None
    if layers is None or not _hides_inplace(layers):
        return _Made(number, (), [], None)
    key = tuple(layer.key() for layer in layers)
    if old is not None and old.network is not None and old.key == key:
        return old._replace(number=number)
    return _Made(number, key, layers, make_network([layer.mapping() for layer in layers]))


def _hides_inplace(layers: list[LayerCall]) -> bool:
    return all(
        not layer.inplace or (index > 0 and layers[index - 1].kind in _OWN_OUTPUT) for index, layer in enumerate(layers)
    )


_describing: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


def _describes_its_forward(kind: type[Module]) -> bool:
    """Whether the class that says what the layer is also is the last one to say what its forward does."""
    known = _describing.get(kind)
    if known is None:
        known = _describing[kind] = _last_to_say(kind)
    return known


def _last_to_say(kind: type[Module]) -> bool:
    for base in kind.__mro__:
        if "_describe" in base.__dict__:
            return True
        if "forward" in base.__dict__ or "__call__" in base.__dict__:
            return False
    return False
