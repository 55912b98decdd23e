"""What goes into a module's state and comes out of it: names to tensors.

Knows the attributes of a module; does not know any layer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import tclient
from tclient._issue import catch_up
from tclient.nn._core import Tensor

if TYPE_CHECKING:
    from tclient.nn.module import Module


class _Keys(NamedTuple):
    missing_keys: list[str]
    unexpected_keys: list[str]


class IncompatibleKeys(_Keys):
    """Which names did not find their counterpart when a state was loaded."""

    __slots__ = ()

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return super().__repr__()

    __str__ = __repr__


def own_entries(module: Module, keep_vars: bool = False) -> list[tuple[str, Tensor]]:
    """The parameters and persistent buffers of the module itself, by name."""
    entries: list[tuple[str, Tensor]] = [(name, p) for name, p in module._parameters.items() if p is not None]
    entries += [
        (name, buffer)
        for name, buffer in module._buffers.items()
        if buffer is not None and name not in module._non_persistent_buffers_set
    ]
    return entries if keep_vars else [(name, tensor.detach()) for name, tensor in entries]


def collect(module: Module, destination: OrderedDict[str, Any], prefix: str, keep_vars: bool) -> None:
    """Puts the state of the module and its submodules into destination."""
    for name, tensor in own_entries(module, keep_vars):
        destination[prefix + name] = tensor
    for name, child in module._modules.items():
        if child is not None:
            collect(child, destination, f"{prefix}{name}.", keep_vars)


def load(module: Module, state: Mapping[str, Any], strict: bool, assign: bool) -> IncompatibleKeys:
    """Copies the state into the module's tensors; numpy arrays will do.

    Raises: RuntimeError naming every name that is missing or too many (when strict) and every shape that does not fit.
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"Expected state_dict to be dict-like, got {type(state)}.")
    expected: dict[str, tuple[Module, str, Tensor]] = {}
    for prefix, owner in _walk(module, ""):
        for name, tensor in own_entries(owner, keep_vars=True):
            expected[prefix + name] = (owner, name, tensor)
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    errors: list[str] = []
    if strict and missing:
        errors.append("Missing key(s) in state_dict: {}. ".format(", ".join(f'"{key}"' for key in missing)))
    if strict and unexpected:
        errors.append("Unexpected key(s) in state_dict: {}. ".format(", ".join(f'"{key}"' for key in unexpected)))
    # All are sent before the first shape is asked for, so that there is one wait and not one for each.
    sources = {
        key: state[key] if isinstance(state[key], Tensor) else tclient.as_tensor(state[key])
        for key in expected
        if key in state
    }
    catch_up(sources.values())
    for key, source in sources.items():
        owner, name, target = expected[key]
        error = _load_one(owner, name, target, key, source, assign)
        if error:
            errors.append(error)
    if errors:
        raise RuntimeError(
            "Error(s) in loading state_dict for {}:\n\t{}".format(type(module).__name__, "\n\t".join(errors))
        )
    return IncompatibleKeys(missing, unexpected)


def _load_one(owner: Module, name: str, target: Tensor, key: str, source: Tensor, assign: bool) -> str | None:
    shape, wanted = tuple(source.shape), tuple(target.shape)
    if shape != wanted:
        return (
            f"size mismatch for {key}: copying a param with shape torch.Size({list(shape)}) from checkpoint, "
            f"the shape in current model is torch.Size({list(wanted)})."
        )
    if assign:
        if name in owner._parameters:
            owner._parameters[name] = (
                source
                if isinstance(source, tclient.nn.Parameter)
                else tclient.nn.Parameter(source, target.requires_grad)
            )
        else:
            owner._buffers[name] = source
        return None
    with tclient.no_grad():
        target.copy_(source)
    return None


def _walk(module: Module, prefix: str) -> list[tuple[str, Module]]:
    found = [(prefix, module)]
    for name, child in module._modules.items():
        if child is not None:
            found += _walk(child, f"{prefix}{name}.")
    return found
