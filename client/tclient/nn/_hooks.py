"""Functions of the caller that run around a forward pass, in the caller's process.

Knows how a hook is called and taken away; does not know layers. As in torch, a table of hooks holds the functions
themselves by number, and other tables the numbers of those that are called in a way of their own.
"""

from __future__ import annotations

import itertools
import warnings
from collections import OrderedDict
from collections.abc import Iterable, MutableMapping
from typing import TYPE_CHECKING, Any, Self

from tclient.nn._backward import Around, at_last_node
from tclient.nn._changes import Watched, changed

if TYPE_CHECKING:
    from tclient.nn.module import Module

_keys = itertools.count()


class RemovableHandle:
    """Takes a hook away again; also when a with-block ends."""

    def __init__(self, hooks_dict: MutableMapping[int, Any], *, extra_dict: Any = None) -> None:
        self._hooks = hooks_dict
        extra = [] if extra_dict is None else extra_dict
        self._extra: list[MutableMapping[int, Any]] = extra if isinstance(extra, list) else [extra]
        self.id = next(_keys)

    def remove(self) -> None:
        """Takes the hook away; a second time does nothing."""
        for table in (self._hooks, *self._extra):
            table.pop(self.id, None)
        changed()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


def add(
    hooks: OrderedDict[int, Any], hook: Any, prepend: bool, ways: Iterable[tuple[MutableMapping[int, bool], bool]] = ()
) -> RemovableHandle:
    """Adds the hook behind the others, or before them; ways are tables, and whether its number goes there."""
    ways = list(ways)
    handle = RemovableHandle(hooks, extra_dict=[table for table, _ in ways])
    hooks[handle.id] = hook
    for table, wanted in ways:
        if wanted:
            table[handle.id] = True
    if prepend:
        hooks.move_to_end(handle.id, last=False)
    changed()
    return handle


# The hooks of all modules.
_global_forward_pre_hooks: Watched[int, Any] = Watched()
_global_forward_hooks: Watched[int, Any] = Watched()
_global_forward_hooks_always_called: dict[int, bool] = {}
_global_forward_hooks_with_kwargs: dict[int, bool] = {}
_global_buffer_registration_hooks: OrderedDict[int, Any] = OrderedDict()
_global_module_registration_hooks: OrderedDict[int, Any] = OrderedDict()
_global_parameter_registration_hooks: OrderedDict[int, Any] = OrderedDict()


def register_module_forward_pre_hook(hook: Any) -> RemovableHandle:
    """Calls hook(module, args) before each forward of any module."""
    return add(_global_forward_pre_hooks, hook, False)


def register_module_forward_hook(hook: Any, *, with_kwargs: bool = False, always_call: bool = False) -> RemovableHandle:
    """Calls hook(module, args, output) after each forward of any module."""
    ways = (_global_forward_hooks_with_kwargs, with_kwargs), (_global_forward_hooks_always_called, always_call)
    return add(_global_forward_hooks, hook, False, ways)


def register_module_buffer_registration_hook(hook: Any) -> RemovableHandle:
    """Calls hook(module, name, buffer) when any module registers a buffer; it may return another one."""
    return add(_global_buffer_registration_hooks, hook, False)


def register_module_module_registration_hook(hook: Any) -> RemovableHandle:
    """Calls hook(module, name, submodule) when any module registers a submodule; it may return another one."""
    return add(_global_module_registration_hooks, hook, False)


def register_module_parameter_registration_hook(hook: Any) -> RemovableHandle:
    """Calls hook(module, name, parameter) when any module registers a parameter; it may return another one."""
    return add(_global_parameter_registration_hooks, hook, False)


def registered(hooks: OrderedDict[int, Any], module: Module, name: str, value: Any) -> Any:
    """What is registered in the place of the value."""
    for hook in tuple(hooks.values()):
        other = hook(module, name, value)
        value = value if other is None else other
    return value


def has_hooks(module: Module) -> bool:
    """Whether a forward of the module is more than its `forward`."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or _global_forward_hooks
        or _global_forward_pre_hooks
        or module._compiled_call_impl is not None
    )


def run(module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Runs the forward of the module with its hooks."""
    for key, pre in (*_global_forward_pre_hooks.items(), *module._forward_pre_hooks.items()):
        args, kwargs = _run_pre_hook(module, pre, args, kwargs, key in module._forward_pre_hooks_with_kwargs)
    called: set[int] = set()
    result = None
    is_full = module._is_full_backward_hook is not False
    around = Around(module) if (module._backward_hooks and is_full) or module._backward_pre_hooks else None
    try:
        if around is not None:
            args = around.enter(args)
        result = module.forward(*args, **kwargs)
        for key, hook in (*_global_forward_hooks.items(), *module._forward_hooks.items()):
            called.add(key)
            other = _run_hook(module, key, hook, args, kwargs, result)
            result = result if other is None else other
        if around is not None:
            result = around.leave(result)
        if not is_full:
            at_last_node(module, result)
    except Exception:
        for kind, hooks, always in (
            ("global module", _global_forward_hooks, _global_forward_hooks_always_called),
            ("module", module._forward_hooks, module._forward_hooks_always_called),
        ):
            for key, hook in tuple(hooks.items()):
                if key in always and key not in called:
                    try:
                        other = _run_hook(module, key, hook, args, kwargs, result)
                    except Exception as error:
                        warnings.warn(
                            f"{kind} forward hook with ``always_call=True`` raised an exception that was silenced as "
                            f"another error was raised in forward: {error}",
                            stacklevel=2,
                        )
                    else:
                        result = result if other is None else other
        raise
    return result


def _run_hook(module: Module, key: int, hook: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
    if key in module._forward_hooks_with_kwargs or key in _global_forward_hooks_with_kwargs:
        return hook(module, args, kwargs, result)
    return hook(module, args, result)


def _run_pre_hook(
    module: Module, hook: Any, args: tuple[Any, ...], kwargs: dict[str, Any], with_kwargs: bool
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if with_kwargs:
        other = hook(module, args, kwargs)
        if other is None:
            return args, kwargs
        if not isinstance(other, tuple) or len(other) != 2:
            raise RuntimeError(
                f"forward pre-hook must return None or a tuple of (new_args, new_kwargs), but got {other}."
            )
        return other
    other = hook(module, args)
    if other is None:
        return args, kwargs
    return other if isinstance(other, tuple) else (other,), kwargs
