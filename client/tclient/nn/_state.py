"""What goes into a module's state and comes out of it: names to tensors.

Knows the attributes of a module; does not know any layer. A module may save and load its own part by itself
(`_save_to_state_dict`, `_load_from_state_dict`), and has hooks around both.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import tclient
from tclient._issue import catch_up
from tclient.nn._core import Tensor
from tclient.nn.parameter import Parameter, is_lazy

if TYPE_CHECKING:
    from tclient.nn.module import Module

EXTRA = "_extra_state"


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


# By which it prints.
IncompatibleKeys.__name__ = "_IncompatibleKeys"


@dataclass(frozen=True)
class WithModule:
    """A hook that is called with the module before its arguments."""

    function: Callable[..., Any]


def own_entries(module: Module) -> dict[str, Tensor]:
    """The parameters and persistent buffers of the module itself, by name."""
    kept = (
        (name, buffer) for name, buffer in module._buffers.items() if name not in module._non_persistent_buffers_set
    )
    entries = itertools.chain(module._parameters.items(), kept)
    return {name: tensor for name, tensor in entries if tensor is not None}


def save(module: Module, destination: Any, prefix: str, keep_vars: bool) -> Any:
    """Puts the state of the module and its submodules into destination; gives what a hook puts in its place."""
    versions = {"version": module._version}
    if hasattr(destination, "_metadata"):
        destination._metadata[prefix[:-1]] = versions
    for hook in tuple(module._state_dict_pre_hooks.values()):
        hook(module, prefix, keep_vars)
    module._save_to_state_dict(destination, prefix, keep_vars)
    for name, child in module._modules.items():
        if child is not None:
            child.state_dict(destination=destination, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
    for hook in tuple(module._state_dict_hooks.values()):
        result = hook(module, destination, prefix, versions)
        if result is not None:
            if getattr(hook, "_from_public_api", False):
                raise RuntimeError("state_dict post-hook must return None")
            destination = result
    return destination


def save_own(module: Module, destination: Any, prefix: str, keep_vars: bool) -> None:
    """Puts the module's own tensors and its extra state into destination."""
    for name, tensor in own_entries(module).items():
        destination[prefix + name] = tensor if keep_vars or is_lazy(tensor) else tensor.detach()
    if _defines(module, "get_extra_state"):
        destination[prefix + EXTRA] = module.get_extra_state()


def _defines(module: Module, name: str) -> bool:
    from tclient.nn.module import Module as Base

    return getattr(type(module), name) is not getattr(Base, name)


def load(module: Module, state: Mapping[str, Any], strict: bool, assign: bool) -> IncompatibleKeys:
    """Copies the state into the module's tensors; numpy arrays will do.

    Raises: RuntimeError naming every name that is missing or too many (when strict) and every shape that does not fit.
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"Expected state_dict to be dict-like, got {type(state)}.")
    metadata: Mapping[str, dict[str, Any]] | None = getattr(state, "_metadata", None)
    whole = OrderedDict((key, _sent(key, value)) for key, value in state.items())
    if metadata is not None:
        whole._metadata = metadata  # type: ignore[attr-defined]
    # All are sent before the first shape is asked for, so that there is one wait and not one for each.
    catch_up([value for value in whole.values() if isinstance(value, Tensor)])
    missing: list[str] = []
    unexpected: list[str] = []
    errors: list[str] = []

    def load_into(owner: Module, part: Any, prefix: str) -> None:
        versions: dict[str, Any] = {} if metadata is None else metadata.get(prefix[:-1], {})
        if assign:
            versions["assign_to_params_buffers"] = assign
        owner._load_from_state_dict(part, prefix, versions, True, missing, unexpected, errors)
        for name, child in owner._modules.items():
            if child is not None:
                below = f"{prefix}{name}."
                load_into(child, {key: value for key, value in part.items() if key.startswith(below)}, below)
        found = IncompatibleKeys(missing, unexpected)
        for hook in tuple(owner._load_state_dict_post_hooks.values()):
            if hook(owner, found) is not None:
                raise AssertionError(
                    "Hooks registered with ``register_load_state_dict_post_hook`` are not expected to return new "
                    "values, if incompatible_keys need to be modified, it should be done inplace."
                )

    load_into(module, whole, "")
    if strict and unexpected:
        errors.insert(0, "Unexpected key(s) in state_dict: {}. ".format(", ".join(f'"{key}"' for key in unexpected)))
    if strict and missing:
        errors.insert(0, "Missing key(s) in state_dict: {}. ".format(", ".join(f'"{key}"' for key in missing)))
    if errors:
        raise RuntimeError(
            "Error(s) in loading state_dict for {}:\n\t{}".format(type(module).__name__, "\n\t".join(errors))
        )
    return IncompatibleKeys(missing, unexpected)


def _sent(key: str, value: Any) -> Any:
    """The value as a tensor of the server, where it is an array or a tensor of this process."""
    if isinstance(value, Tensor) or key.endswith(EXTRA):
        return value
    is_torch = type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "detach")
    return tclient.as_tensor(value) if is_torch or isinstance(value, np.ndarray | np.generic) else value


def load_own(
    module: Module,
    state: dict[str, Any],
    prefix: str,
    versions: dict[str, Any],
    strict: bool,
    missing: list[str],
    unexpected: list[str],
    errors: list[str],
) -> None:
    """Copies the module's own part of a state into its tensors, and notes what does not fit."""
    for hook in tuple(module._load_state_dict_pre_hooks.values()):
        before = (module,) if isinstance(hook, WithModule) else ()
        function = hook.function if isinstance(hook, WithModule) else hook
        function(*before, state, prefix, versions, strict, missing, unexpected, errors)
    entries = own_entries(module)
    for name, target in entries.items():
        key = prefix + name
        if key in state:
            error = _load_one(module, name, target, key, state[key], versions.get("assign_to_params_buffers", False))
            if error:
                errors.append(error)
        elif strict:
            missing.append(key)
    extra = prefix + EXTRA
    if _defines(module, "set_extra_state"):
        if extra in state:
            module.set_extra_state(state[extra])
        elif strict:
            missing.append(extra)
    elif strict and extra in state:
        unexpected.append(extra)
    if strict:
        for key in state:
            if key.startswith(prefix) and key != extra:
                name, _, below = key[len(prefix) :].partition(".")
                if name not in (module._modules if below else entries):
                    unexpected.append(key)


def _load_one(module: Module, name: str, target: Tensor, key: str, source: Any, assign: bool) -> str | None:
    if not isinstance(source, Tensor):
        return (
            f'While copying the parameter named "{key}", expected torch.Tensor or Tensor-like object from checkpoint '
            f"but received {type(source)}"
        )
    if is_lazy(target):
        _load_lazy(target, source)
        return None
    shape, wanted = tuple(source.shape), tuple(target.shape)
    if len(shape) == 1 and not wanted:
        # Old states keep numbers in a row of one.
        source = source[0]
        shape = ()
    if shape != wanted:
        return (
            f"size mismatch for {key}: copying a param with shape torch.Size({list(shape)}) from checkpoint, "
            f"the shape in current model is torch.Size({list(wanted)})."
        )
    if not assign:
        with tclient.no_grad():
            target.copy_(source)
        return None
    if isinstance(target, Parameter):
        needs = target.requires_grad
        source = source.requires_grad_(needs) if isinstance(source, Parameter) else Parameter(source, needs)
    setattr(module, name, source)
    return None


def _load_lazy(target: Any, source: Tensor) -> None:
    """Gives a parameter without a shape that of the source, and its elements."""
    if not is_lazy(source):
        target.materialize(tuple(source.shape))
        with tclient.no_grad():
            target.copy_(source)
