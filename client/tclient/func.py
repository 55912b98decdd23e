"""torch.func: a module called with other parameters and buffers than its own, and the transformations of functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tclient._namespace import missing
from tclient._transforms import (
    grad,
    grad_and_value,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    stack_module_state,
    vjp,
    vmap,
)
from tclient.nn.module import Module
from tclient.nn.utils.stateless import called

__all__ = [
    "functional_call",
    "grad",
    "grad_and_value",
    "hessian",
    "jacfwd",
    "jacrev",
    "jvp",
    "stack_module_state",
    "vjp",
    "vmap",
]


def functional_call(
    module: Module,
    parameter_and_buffer_dicts: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    args: Any = None,
    kwargs: dict[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """What the module computes with these tensors in the place of those that it has under their names.

    Raises: ValueError if two of several dicts have a name in common; RuntimeError where strict and names are missing
    or unknown.

    Example:
        >>> net = nn.Linear(1, 1)
        >>> given = {"weight": torch.ones(1, 1), "bias": torch.zeros(1)}
        >>> torch.func.functional_call(net, given, torch.tensor([3.0])).tolist()
        [3.0]
    """
    given = _joined(parameter_and_buffer_dicts)
    return called(module, given, args, kwargs, tie_weights=tie_weights, strict=strict)


def _joined(dicts: Any) -> dict[str, Any]:
    if isinstance(dicts, Mapping):
        return dict(dicts)
    if not isinstance(dicts, Sequence):
        raise ValueError(
            f"Expected parameter_and_buffer_dicts to be a dict, or a list/tuple of dicts, but got {type(dicts)}"
        )
    if not all(isinstance(each, Mapping) for each in dicts):
        raise ValueError("Expected all elements of parameter_and_buffer_dicts to be dictionaries")
    names = [name for each in dicts for name in each]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"{sorted(twice)} appeared in multiple dictionaries; behavior of functional call is ambiguous")
    return {name: tensor for each in dicts for name, tensor in each.items()}


def __getattr__(name: str) -> Any:
    missing(__name__, name, globals())
