"""A module called with other tensors in the place of its own. Knows how modules register tensors."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tclient.nn._changes import changed
from tclient.nn.module import Module

__all__ = ["functional_call"]


def functional_call(
    module: Module,
    parameters_and_buffers: Mapping[str, Any],
    args: Any = None,
    kwargs: dict[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """What the module computes with other parameters and buffers, by their dotted names; it keeps its own."""
    warnings.warn(
        "`torch.nn.utils.stateless.functional_call` is deprecated as of PyTorch 2.0 and will be removed in a future "
        "version of PyTorch. Please use `torch.func.functional_call` instead which is a drop-in replacement.",
        FutureWarning,
        stacklevel=2,
    )
    return called(module, parameters_and_buffers, args, kwargs, tie_weights=tie_weights, strict=strict)


def called(
    module: Module,
    tensors: Mapping[str, Any],
    args: Any = None,
    kwargs: dict[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """The same without the warning."""
    if args is None:
        args = ()
    elif not isinstance(args, tuple):
        args = (args,)
    with _replaced(module, tensors, tie_weights, strict):
        return module(*args, **(kwargs or {}))


def _places(module: Module) -> dict[str, tuple[dict[str, Any], str]]:
    """Where each parameter and buffer is kept, by its dotted name."""
    return {
        f"{path}.{name}" if path else name: (table, name)
        for path, owner in module.named_modules(remove_duplicate=False)
        for table in (owner._parameters, owner._buffers)
        for name in table
    }


@contextmanager
def _replaced(module: Module, tensors: Mapping[str, Any], tie_weights: bool, strict: bool) -> Iterator[None]:
    places = _places(module)
    wanted = dict(tensors)
    if tie_weights:
        # One tensor under several names is replaced under all of them.
        for name, value in tensors.items():
            if name in places:
                table, own = places[name]
                same = table[own]
                for other, (where, key) in places.items():
                    if same is not None and where[key] is same:
                        wanted.setdefault(other, value)
    unexpected = [name for name in wanted if name not in places]
    missing = [name for name, (table, own) in places.items() if name not in wanted and table[own] is not None]
    if strict and (unexpected or missing):
        said = []
        if unexpected:
            said.append("Unexpected key(s): {}.".format(", ".join(map(repr, unexpected))))
        if missing:
            said.append("Missing key(s): {}.".format(", ".join(map(repr, missing))))
        raise RuntimeError("Error(s) in reparametrizing for {}:\n\t{}".format(module._get_name(), "\n\t".join(said)))
    before = []
    try:
        for name, value in wanted.items():
            if name not in places:
                continue  # as in torch, nobody asks for it
            table, own = places[name]
            before.append((table, own, table[own]))
            dict.__setitem__(table, own, value)
        changed()
        yield
    finally:
        for table, own, value in reversed(before):
            dict.__setitem__(table, own, value)
        changed()
