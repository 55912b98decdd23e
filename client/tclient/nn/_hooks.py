"""Functions of the caller that run around a forward pass, in the caller's process.

Knows how a hook is called; does not know layers.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from tclient.nn.module import Module

_keys = itertools.count()


@dataclass(frozen=True)
class ForwardHook:
    """A function called after a forward."""

    function: Callable[..., Any]
    with_kwargs: bool
    always_call: bool


@dataclass(frozen=True)
class ForwardPreHook:
    """A function called before a forward."""

    function: Callable[..., Any]
    with_kwargs: bool


class RemovableHandle:
    """Takes a hook away again; also when a with-block ends."""

    def __init__(self, hooks: OrderedDict[int, Any], key: int) -> None:
        self._hooks = hooks
        self.id = key

    def remove(self) -> None:
        """Takes the hook away; a second time does nothing."""
        self._hooks.pop(self.id, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


def add(hooks: OrderedDict[int, Any], hook: Any, prepend: bool) -> RemovableHandle:
    """Adds the hook behind the others, or before them."""
    key = next(_keys)
    hooks[key] = hook
    if prepend:
        hooks.move_to_end(key, last=False)
    return RemovableHandle(hooks, key)


def run(module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Runs the forward of the module with its hooks."""
    for pre in tuple(module._forward_pre_hooks.values()):
        args, kwargs = _run_pre_hook(module, pre, args, kwargs)
    called: set[int] = set()
    try:
        result = module.forward(*args, **kwargs)
        for key, hook in tuple(module._forward_hooks.items()):
            called.add(key)
            changed = _run_hook(module, hook, args, kwargs, result)
            result = result if changed is None else changed
    except Exception:
        for key, hook in tuple(module._forward_hooks.items()):
            if hook.always_call and key not in called:
                _run_hook(module, hook, args, kwargs, None)
        raise
    return result


def _run_hook(module: Module, hook: ForwardHook, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
    if hook.with_kwargs:
        return hook.function(module, args, kwargs, result)
    return hook.function(module, args, result)


def _run_pre_hook(
    module: Module, hook: ForwardPreHook, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if hook.with_kwargs:
        changed = hook.function(module, args, kwargs)
        if changed is None:
            return args, kwargs
        if not isinstance(changed, tuple) or len(changed) != 2:
            raise RuntimeError(
                f"forward pre-hook must return None or a tuple of (new_args, new_kwargs), but got {changed}."
            )
        return changed
    changed = hook.function(module, args)
    if changed is None:
        return args, kwargs
    return changed if isinstance(changed, tuple) else (changed,), kwargs
